//! `tokenizer_config.json` and `special_tokens_map.json`: the names of special tokens.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::TokenizerError;

/// The named special tokens of a tokenizer: `bos_token`, `eos_token`, `pad_token` and so on, each with its text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialTokens(Vec<(String, String)>);

impl SpecialTokens {
    /// Reads the names from a directory; a directory without the files has none.
    ///
    /// # Errors
    /// A file that cannot be read or is malformed.
    pub fn read(dir: &Path) -> Result<Self, TokenizerError> {
        TokenizerConfig::read(dir).map(|config| config.special_tokens)
    }

    /// The text of a token by its name, such as `bos_token`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(key, _)| *key == name).map(|(_, text)| text)
    }

    /// All names with their texts.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, text)| (name.as_str(), text.as_str()))
    }

    fn set(&mut self, name: &str, text: Option<&str>) {
        self.0.retain(|(key, _)| key != name);
        if let Some(text) = text {
            self.0.push((name.to_owned(), text.to_owned()));
        }
    }
}

/// What `tokenizer_config.json` adds to `tokenizer.json`.
#[derive(Debug, Default)]
pub(super) struct TokenizerConfig {
    pub(super) special_tokens: SpecialTokens,
    pub(super) add_bos_token: Option<bool>,
    pub(super) add_eos_token: Option<bool>,
}

impl TokenizerConfig {
    pub(super) fn read(dir: &Path) -> Result<Self, TokenizerError> {
        let path = dir.join("tokenizer_config.json");
        let mut read = Self::default();
        let config = read_json_object(&path)?.unwrap_or_default();
        read.take_tokens(&path, &config)?;
        read.add_bos_token = flag(&path, &config, "add_bos_token")?;
        read.add_eos_token = flag(&path, &config, "add_eos_token")?;

        // As in Transformers, a configuration that lists its added tokens has replaced the older file.
        if !config.contains_key("added_tokens_decoder") {
            let path = dir.join("special_tokens_map.json");
            let map = read_json_object(&path)?.unwrap_or_default();
            read.take_tokens(&path, &map)?;
        }
        Ok(read)
    }

    /// Takes every `…_token`: a string, an object with `content` (a saved AddedToken), or null for none.
    fn take_tokens(&mut self, path: &Path, fields: &Map<String, Value>) -> Result<(), TokenizerError> {
        for (name, value) in fields {
            if !name.ends_with("_token") {
                continue;
            }
            match (value, value.get("content")) {
                (Value::String(text), _) | (_, Some(Value::String(text))) => self.special_tokens.set(name, Some(text)),
                (Value::Null, _) => self.special_tokens.set(name, None),
                // add_bos_token and its like share the ending.
                (Value::Bool(_), _) => {}
                _ => {
                    return Err(TokenizerError::Field {
                        path: path.to_path_buf(),
                        field: name.clone(),
                        problem: "must be a string or an object with a string `content`".to_owned(),
                    });
                }
            }
        }
        Ok(())
    }
}

fn flag(path: &Path, config: &Map<String, Value>, name: &str) -> Result<Option<bool>, TokenizerError> {
    match config.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(_) => Err(TokenizerError::Field {
            path: path.to_path_buf(),
            field: name.to_owned(),
            problem: "must be true or false".to_owned(),
        }),
    }
}

/// Reads a file that holds one JSON object; `None` where there is no such file.
pub(crate) fn read_json_object(path: &Path) -> Result<Option<Map<String, Value>>, TokenizerError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(TokenizerError::Read { path: path.to_path_buf(), source: Arc::new(error) }),
    };
    let parsed: Result<Map<String, Value>, _> = serde_json::from_slice(&bytes);
    parsed.map(Some).map_err(|error| TokenizerError::Invalid { path: path.to_path_buf(), detail: error.to_string() })
}
