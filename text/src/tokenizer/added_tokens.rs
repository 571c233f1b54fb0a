//! Tokens that stand beside `tokenizer.json`, and the order in which Transformers adds them to it: an id follows from the
//! order alone, whatever id a file claims.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use serde_json::{Map, Value};
use tokenizers::AddedToken;

use super::TokenizerError;
use super::config::{STANDARD_NAMES, field};

/// A token as a file has it: its text, and how it is matched where the file says so.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Token {
    pub(super) content: String,
    saved: Option<AddedToken>,
}

impl Token {
    pub(super) fn text(content: &str) -> Self {
        Self { content: content.to_owned(), saved: None }
    }
}

/// The tokens of the files beside `tokenizer.json`.
#[derive(Debug, Default)]
pub(super) struct Declared {
    /// By name; `None` where a file says that there is no such token.
    named: Vec<(String, Option<Token>)>,
    /// Special tokens without a name.
    extra: Vec<Token>,
    /// Special tokens of which `extra_special_tokens` says names.
    specific: Vec<(String, Token)>,
    /// `added_tokens_decoder`, by the ids that it claims.
    decoder: Option<BTreeMap<i64, AddedToken>>,
    /// `added_tokens.json`, which counts where there is no `added_tokens_decoder`.
    legacy: Vec<(String, i64)>,
}

impl Declared {
    /// Takes every `…_token`: a string, an object with `content` (a saved AddedToken), or null for none.
    pub(super) fn take_named(&mut self, path: &Path, fields: &Map<String, Value>) -> Result<(), TokenizerError> {
        // add_bos_token and its like share the ending.
        let named = fields.iter().filter(|(name, value)| name.ends_with("_token") && !value.is_boolean());
        for (name, value) in named {
            let token = if value.is_null() { None } else { Some(token(path, name, value)?) };
            self.set(name, token);
        }
        Ok(())
    }

    /// Takes `extra_special_tokens` or `additional_special_tokens`: a list, or an object of names.
    pub(super) fn take_extra(&mut self, path: &Path, name: &str, value: &Value) -> Result<(), TokenizerError> {
        match value {
            Value::Array(list) => {
                for (number, value) in list.iter().enumerate() {
                    let token = token(path, &format!("{name}[{number}]"), value)?;
                    if !self.extra.contains(&token) {
                        self.extra.push(token);
                    }
                }
            }
            Value::Object(fields) => {
                for (key, value) in fields {
                    let token = token(path, &format!("{name}.{key}"), value)?;
                    self.specific.retain(|(known, _)| known != key);
                    self.specific.push((key.clone(), token));
                }
            }
            _ => return Err(field(path, name, "must be a list of tokens, or an object of names and tokens")),
        }
        Ok(())
    }

    pub(super) fn take_added_tokens_decoder(&mut self, path: &Path, value: &Value) -> Result<(), TokenizerError> {
        let name = "added_tokens_decoder";
        let list = value.as_object().ok_or_else(|| field(path, name, "must be an object of ids and tokens"))?;
        let mut decoder = BTreeMap::new();
        for (id, value) in list {
            let name = format!("{name}.{id}");
            let key = id.parse().map_err(|_| field(path, &name, "must be named by a token id"))?;
            let fields = value.as_object().ok_or_else(|| field(path, &name, "must be an object with `content`"))?;
            decoder.insert(key, added_token(path, &name, fields, false)?);
        }
        self.decoder = Some(decoder);
        Ok(())
    }

    pub(super) fn take_added_tokens(&mut self, path: &Path, map: &Map<String, Value>) -> Result<(), TokenizerError> {
        for (content, id) in map {
            let id = id.as_i64().ok_or_else(|| field(path, content, "must be a token id"))?;
            self.legacy.push((content.clone(), id));
        }
        Ok(())
    }

    pub(super) fn set(&mut self, name: &str, token: Option<Token>) {
        self.named.retain(|(known, _)| known != name);
        self.named.push((name.to_owned(), token));
    }

    /// Whether a file says which token a name has, be it none.
    pub(super) fn names(&self, name: &str) -> bool {
        self.named.iter().any(|(known, _)| known == name)
    }

    pub(super) fn has_extra(&self) -> bool {
        !self.extra.is_empty() || !self.specific.is_empty()
    }

    /// Whether tokens have names that are not those of every tokenizer.
    pub(super) fn has_own_names(&self) -> bool {
        let own = |(name, token): &(String, Option<Token>)| token.is_some() && !STANDARD_NAMES.contains(&name.as_str());
        !self.specific.is_empty() || self.named.iter().any(own)
    }

    /// Names and tokens: those of every tokenizer, then the model's own.
    pub(super) fn named(&self) -> impl Iterator<Item = (&str, &Token)> {
        let all = || self.named.iter().filter_map(|(name, token)| Some((name.as_str(), token.as_ref()?)));
        let standard = STANDARD_NAMES.iter().filter_map(move |name| all().find(|(known, _)| known == name));
        let own = all().filter(|(name, _)| !STANDARD_NAMES.contains(name));
        standard.chain(own).chain(self.specific.iter().map(|(name, token)| (name.as_str(), token)))
    }

    /// What is to be added to a tokenizer that has `present`, in order; `saved` are the added tokens of `tokenizer.json`. Adding
    /// one that is there changes how it is matched.
    pub(super) fn to_add<'a>(
        &self,
        saved: impl Iterator<Item = (u32, AddedToken)>,
        present: impl Iterator<Item = &'a str>,
    ) -> Vec<AddedToken> {
        let named: HashSet<&str> = self.named().map(|(_, token)| token.content.as_str()).collect();
        let listed = self.decoder.clone().unwrap_or_else(|| {
            let is_special =
                |content: &str| named.contains(content) || self.extra.iter().any(|it| it.content == content);
            let legacy = self.legacy.iter().map(|(content, id)| (*id, AddedToken::from(content, is_special(content))));
            legacy.chain(saved.map(|(id, token)| (i64::from(id), token))).collect()
        });
        let known: HashMap<&str, &AddedToken> = listed.values().map(|token| (token.content.as_str(), token)).collect();
        let present: HashSet<&str> = present.collect();
        let is_new = |token: &&Token| {
            let content = token.content.as_str();
            !present.contains(content) && !known.contains_key(content)
        };
        let others = self.named().map(|(_, token)| token).chain(&self.extra).filter(is_new);
        let others: Vec<AddedToken> = others
            .map(|token| token.saved.clone().unwrap_or_else(|| AddedToken::from(token.content.clone(), true)))
            .collect();
        let all = listed.values().cloned().chain(others);
        all.map(|token| if named.contains(token.content.as_str()) { token.special(true) } else { token }).collect()
    }
}

/// A token that is a string, or an object with `content`.
fn token(path: &Path, name: &str, value: &Value) -> Result<Token, TokenizerError> {
    match value {
        Value::String(text) => Ok(Token::text(text)),
        Value::Object(fields) => {
            let saved = added_token(path, name, fields, true)?;
            Ok(Token { content: saved.content.clone(), saved: Some(saved) })
        }
        _ => Err(field(path, name, "must be a string or an object with a string `content`")),
    }
}

/// A saved AddedToken; what it does not say is as Transformers' constructor has it.
fn added_token(
    path: &Path,
    name: &str,
    fields: &Map<String, Value>,
    special: bool,
) -> Result<AddedToken, TokenizerError> {
    let Some(Value::String(content)) = fields.get("content") else {
        return Err(field(path, name, "must be a string or an object with a string `content`"));
    };
    let flag = |key: &str, default: bool| match fields.get(key) {
        None => Ok(default),
        Some(Value::Bool(value)) => Ok(*value),
        Some(_) => Err(field(path, &format!("{name}.{key}"), "must be true or false")),
    };
    let special = flag("special", special)?;
    Ok(AddedToken {
        content: content.clone(),
        single_word: flag("single_word", false)?,
        lstrip: flag("lstrip", false)?,
        rstrip: flag("rstrip", false)?,
        normalized: flag("normalized", !special)?,
        special,
    })
}
