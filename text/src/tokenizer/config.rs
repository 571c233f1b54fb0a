//! What stands beside `tokenizer.json`: `tokenizer_config.json`, `special_tokens_map.json` and `added_tokens.json`, as
//! Transformers 5 reads them. `docs/model-files.md` has every field.

use std::path::Path;
use std::sync::Arc;

use engine_format::foreign_file::ForeignFile;
use engine_format::json::brief;
use engine_format::model_files::TOKENIZER_CONFIG;
use engine_format::python_json;
use serde_json::{Map, Value};

use super::added_tokens::{Declared, Token};
use super::{TokenizerError, class};

/// The tokens that have a name of their own in every tokenizer, in Transformers' order.
pub(super) const STANDARD_NAMES: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// The named special tokens of a tokenizer: `bos_token`, `eos_token`, `pad_token` and so on, each with its text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialTokens(Vec<(String, String)>);

impl SpecialTokens {
    /// Reads the names from a directory; a directory without the files has none.
    ///
    /// # Errors
    /// A file that cannot be read or is malformed.
    pub fn read(dir: &Path) -> Result<Self, TokenizerError> {
        TokenizerConfig::read(dir).map(|config| config.special_tokens())
    }

    /// The text of a token by its name, such as `bos_token`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(key, _)| *key == name).map(|(_, text)| text)
    }

    /// All names with their texts.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, text)| (name.as_str(), text.as_str()))
    }
}

/// What the files beside `tokenizer.json` say.
#[derive(Debug, Default)]
pub(super) struct TokenizerConfig {
    pub(super) declared: Declared,
    /// `tokenizer_class`, without the ending `Fast`.
    pub(super) class: String,
    pub(super) add_prefix_space: Option<bool>,
    pub(super) legacy: Option<bool>,
}

impl TokenizerConfig {
    pub(super) fn read(dir: &Path) -> Result<Self, TokenizerError> {
        let path = dir.join("tokenizer_config.json");
        let config = read_json_object(&path)?.unwrap_or_default();
        if let Some((name, value, accepted)) = TOKENIZER_CONFIG.refusal(|name| config.get(name)) {
            let value = brief(value);
            let problem =
                format!("is {value}, which is not supported; set it to {accepted}, or save the tokenizer without it");
            return Err(field(&path, name, &problem));
        }
        let mut read = Self {
            class: class_of(&path, &config)?,
            add_prefix_space: flag(&path, &config, "add_prefix_space")?,
            legacy: flag(&path, &config, "legacy")?,
            declared: Declared::default(),
        };
        let declared = &mut read.declared;
        declared.take_named(&path, &config)?;
        // The older name counts where the newer one is empty.
        let is_filled = |value: &&Value| !matches!(value, Value::Null) && **value != Value::Array(Vec::new());
        let extra = ["extra_special_tokens", "additional_special_tokens"];
        if let Some(name) = extra.into_iter().find(|name| config.get(*name).filter(is_filled).is_some()) {
            declared.take_extra(&path, name, &config[name])?;
        }
        let name = "model_specific_special_tokens";
        match config.get(name) {
            None | Some(Value::Null) => {}
            Some(Value::Object(_)) if declared.has_own_names() => {}
            Some(tokens @ Value::Object(_)) => declared.take_extra(&path, name, tokens)?,
            Some(_) => return Err(field(&path, name, "must be an object of names and tokens")),
        }
        if let Some(list) = config.get("added_tokens_decoder") {
            declared.take_added_tokens_decoder(&path, list)?;
        } else {
            // As in Transformers, a configuration that lists its added tokens has replaced the older files.
            let path = dir.join("special_tokens_map.json");
            let map = read_json_object(&path)?.unwrap_or_default();
            declared.take_named(&path, &map)?;
            for name in extra {
                if let Some(value) = map.get(name).filter(is_filled)
                    && (name == "extra_special_tokens" || !declared.has_extra())
                {
                    declared.take_extra(&path, name, value)?;
                }
            }
            let path = dir.join("added_tokens.json");
            if let Some(tokens) = read_json_object(&path)? {
                declared.take_added_tokens(&path, &tokens)?;
            }
        }
        // The classes that build their tokenizer anew have names for tokens that no file names.
        let defaults: &[(&str, &str)] = match read.class.as_str() {
            "LlamaTokenizer" => &[("unk_token", "<unk>"), ("bos_token", "<s>"), ("eos_token", "</s>")],
            "GPT2Tokenizer" => &["unk_token", "bos_token", "eos_token"].map(|name| (name, "<|endoftext|>")),
            _ => &[],
        };
        let unnamed: Vec<_> = defaults.iter().filter(|(name, _)| !declared.names(name)).collect();
        let file = || std::fs::read(dir.join("tokenizer.json")).unwrap_or_default().into();
        if !unnamed.is_empty() && class::rebuilds(&read.class, dir, file) {
            unnamed.into_iter().for_each(|(name, text)| declared.set(name, Some(Token::text(text))));
        }
        Ok(read)
    }

    /// The names and texts of special tokens.
    pub(super) fn special_tokens(&self) -> SpecialTokens {
        SpecialTokens(self.declared.named().map(|(name, token)| (name.to_owned(), token.content.clone())).collect())
    }
}

fn class_of(path: &Path, config: &Map<String, Value>) -> Result<String, TokenizerError> {
    match config.get("tokenizer_class") {
        None | Some(Value::Null) => Ok(String::new()),
        Some(Value::String(class)) => Ok(class.strip_suffix("Fast").unwrap_or(class).to_owned()),
        Some(_) => Err(field(path, "tokenizer_class", "must be a string")),
    }
}

fn flag(path: &Path, config: &Map<String, Value>, name: &str) -> Result<Option<bool>, TokenizerError> {
    match config.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::Bool(value)) => Ok(Some(*value)),
        Some(_) => Err(field(path, name, "must be true or false")),
    }
}

pub(super) fn field(path: &Path, field: &str, problem: &str) -> TokenizerError {
    TokenizerError::Field { path: path.to_owned(), field: field.to_owned(), problem: problem.to_owned() }
}

/// Reads a file that holds one JSON object; `None` where there is no such file.
pub(crate) fn read_json_object(path: &Path) -> Result<Option<Map<String, Value>>, TokenizerError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(TokenizerError::Read { path: path.to_path_buf(), source: Arc::new(error) }),
    };
    match python_json::parse(&bytes) {
        Ok(Value::Object(fields)) => Ok(Some(fields)),
        Ok(_) => Err(invalid(path, &bytes, "it is no JSON object")),
        Err(error) => Err(invalid(path, &bytes, &error.to_string())),
    }
}

/// The error for a file whose content is not what its name promises.
pub(super) fn invalid(path: &Path, bytes: &[u8], detail: &str) -> TokenizerError {
    let path = path.to_owned();
    match ForeignFile::recognise(bytes) {
        Some(foreign) => TokenizerError::Foreign { detail: foreign.error(&path).to_string() },
        None => TokenizerError::Invalid { path, detail: python_json::in_words(detail) },
    }
}
