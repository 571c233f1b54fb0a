//! Tokens, their kinds and the ids with a meaning, checked.

use std::collections::HashMap;
use std::path::Path;

use engine_format::FormatError;
use engine_format::json::brief;
use serde_json::{Value, json};

use super::super::config::TOKENS;
use super::super::source::Metadata;
use crate::error::Result;

/// What a token is; the numbers are the format's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Normal = 1,
    Unknown = 2,
    Control = 3,
    UserDefined = 4,
    Unused = 5,
    Byte = 6,
}

impl Kind {
    const ALL: [Self; 6] = [Self::Normal, Self::Unknown, Self::Control, Self::UserDefined, Self::Unused, Self::Byte];
}

/// The tokenizer's tokens.
#[derive(Debug)]
pub(super) struct Vocabulary<'a> {
    /// The kind of the tokenizer.
    pub(super) model: &'a str,
    tokens: Vec<(&'a str, Kind)>,
    ids: HashMap<&'a str, usize>,
    /// Tokens with a name, and their ids.
    named: Vec<(&'static str, usize)>,
    end_ids: Vec<usize>,
    bos: Option<usize>,
    eos: Option<usize>,
}

impl<'a> Vocabulary<'a> {
    /// Reads the vocabulary of the file at `path`; `None` where the metadata has none.
    pub(super) fn read(path: &Path, metadata: &'a Metadata) -> Result<Option<Self>> {
        let Some(model) = metadata.get("tokenizer.ggml.model") else { return Ok(None) };
        let model = model.as_str().ok_or_else(|| refused(path, "tokenizer.ggml.model", "must be a string"))?;
        // A tokenizer elsewhere is `none` or `no_vocab` here.
        let Some(texts) = list(path, metadata, TOKENS, "strings", Value::as_str)? else { return Ok(None) };
        let kinds = match list(path, metadata, "tokenizer.ggml.token_type", "whole numbers", Value::as_i64)? {
            Some(kinds) => kinds,
            None => vec![Kind::Normal as i64; texts.len()],
        };
        same_length(path, "tokenizer.ggml.token_type", kinds.len(), texts.len())?;
        let mut tokens = Vec::with_capacity(texts.len());
        let mut ids = HashMap::with_capacity(texts.len());
        for (id, (text, number)) in texts.into_iter().zip(kinds).enumerate() {
            let kind = Kind::ALL.into_iter().find(|kind| *kind as i64 == number).ok_or_else(|| {
                refused(path, "tokenizer.ggml.token_type", format!("has {number} for token {id}, which is no kind"))
            })?;
            if kind != Kind::Unused
                && let Some(other) = ids.insert(text, id)
            {
                return Err(refused(path, TOKENS, format!("has one text for tokens {other} and {id}")).into());
            }
            tokens.push((text, kind));
        }
        // Files of SentencePiece's tokenizers need not name the three tokens that all of them have.
        let default = |id: usize| (model == "llama" && id < tokens.len()).then_some(id);
        let id = |name: &str| id_of(path, metadata, name, tokens.len());
        let (bos, eos) = (id("bos")?.or(default(1)), id("eos")?.or(default(2)));
        let unknown = id("unknown")?.or(default(0));
        let names = [("bos_token", bos), ("eos_token", eos), ("unk_token", unknown), ("pad_token", id("padding")?)];
        let mut end_ids = Vec::new();
        for id in [eos, id("eot")?, id("eom")?].into_iter().flatten() {
            if !end_ids.contains(&id) {
                end_ids.push(id);
            }
        }
        let add_bos = flag(path, metadata, "add_bos_token")?.unwrap_or(adds_bos(model, metadata));
        let add_eos = flag(path, metadata, "add_eos_token")?.unwrap_or(false);
        Ok(Some(Self {
            model,
            named: names.into_iter().filter_map(|(name, id)| Some((name, id?))).collect(),
            end_ids,
            bos: bos.filter(|_| add_bos),
            eos: eos.filter(|_| add_eos),
            tokens,
            ids,
        }))
    }

    /// The number of tokens.
    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Ids, texts and kinds.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &'a str, Kind)> {
        self.tokens.iter().enumerate().map(|(id, (text, kind))| (id, *text, *kind))
    }

    /// Ids and texts of all but those that only fill up the vocabulary.
    pub(super) fn used(&self) -> impl Iterator<Item = (usize, &'a str)> {
        self.iter().filter(|(_, _, kind)| *kind != Kind::Unused).map(|(id, text, _)| (id, text))
    }

    /// The id of a text.
    pub(super) fn id(&self, text: &str) -> Option<usize> {
        self.ids.get(text).copied()
    }

    /// What a token is.
    pub(super) fn kind(&self, id: usize) -> Kind {
        self.tokens[id].1
    }

    /// The text of the token with a name, such as `unk_token`.
    pub(super) fn named(&self, name: &str) -> Option<&'a str> {
        let (_, id) = self.named.iter().find(|(known, _)| *known == name)?;
        Some(self.tokens[*id].0)
    }

    /// Ids that end an output.
    pub(super) fn end_ids(&self) -> &[usize] {
        &self.end_ids
    }

    /// `added_tokens` of `tokenizer.json`: what is found in a text before it is split.
    pub(super) fn added_tokens(&self) -> Value {
        let added = self.iter().filter_map(|(id, content, kind)| {
            let special = match kind {
                Kind::Control | Kind::Unknown => true,
                Kind::UserDefined => false,
                Kind::Normal | Kind::Unused | Kind::Byte => return None,
            };
            Some(json!({
                "id": id, "content": content, "special": special,
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            }))
        });
        added.collect()
    }

    /// What is put around a prompt.
    pub(super) fn post_processor(&self) -> Value {
        let token = |id: usize, of: usize| json!({ "SpecialToken": { "id": self.tokens[id].0, "type_id": of } });
        let around = |of: usize, name: &str| -> Vec<Value> {
            let before = self.bos.map(|id| token(id, of));
            let after = self.eos.map(|id| token(id, of));
            before.into_iter().chain([json!({ "Sequence": { "id": name, "type_id": of } })]).chain(after).collect()
        };
        let described = |id: usize| {
            (
                self.tokens[id].0.to_owned(),
                json!({ "id": self.tokens[id].0, "ids": [id], "tokens": [self.tokens[id].0] }),
            )
        };
        let special: serde_json::Map<_, _> = self.bos.into_iter().chain(self.eos).map(described).collect();
        if special.is_empty() {
            return Value::Null;
        }
        let pair = [around(0, "A"), around(1, "B")].concat();
        json!({
            "type": "TemplateProcessing",
            "single": around(0, "A"),
            "pair": pair,
            "special_tokens": special,
        })
    }

    /// `tokenizer_config.json`.
    pub(super) fn config(&self) -> Value {
        self.named.iter().map(|(name, id)| ((*name).to_owned(), Value::from(self.tokens[*id].0))).collect()
    }
}

/// Whether a kind of tokenizer puts its BOS before a prompt where the file does not say, as in llama.cpp.
fn adds_bos(model: &str, metadata: &Metadata) -> bool {
    let splitter = metadata.get("tokenizer.ggml.pre").and_then(Value::as_str);
    model == "llama" || splitter.is_some_and(|name| ["llama3", "llama-v3", "llama-bpe", "tekken"].contains(&name))
}

/// An error about a key.
pub(super) fn refused(path: &Path, key: &str, problem: impl Into<String>) -> FormatError {
    FormatError::field(path, key, problem)
}

pub(super) fn same_length(path: &Path, key: &str, found: usize, expected: usize) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(refused(path, key, format!("has {found} elements, but there are {expected} tokens")).into())
}

/// The list that a key holds, whose elements `read` reads.
pub(super) fn list<'a, T>(
    path: &Path,
    metadata: &'a Metadata,
    key: &str,
    of: &str,
    read: impl Fn(&'a Value) -> Option<T>,
) -> Result<Option<Vec<T>>> {
    let Some(value) = metadata.get(key) else { return Ok(None) };
    let values = value.as_array().and_then(|values| values.iter().map(read).collect::<Option<Vec<_>>>());
    let wrong = || refused(path, key, format!("must be a list of {of}, not `{}`", brief(value)));
    Ok(Some(values.ok_or_else(wrong)?))
}

pub(super) fn flag(path: &Path, metadata: &Metadata, name: &str) -> Result<Option<bool>> {
    let key = format!("tokenizer.ggml.{name}");
    match metadata.get(&key) {
        None => Ok(None),
        Some(Value::Bool(flag)) => Ok(Some(*flag)),
        Some(value) => Err(refused(path, &key, format!("must be true or false, not `{}`", brief(value))).into()),
    }
}

fn id_of(path: &Path, metadata: &Metadata, name: &str, count: usize) -> Result<Option<usize>> {
    let key = format!("tokenizer.ggml.{name}_token_id");
    let Some(value) = metadata.get(&key) else { return Ok(None) };
    let id = value.as_u64().and_then(|id| usize::try_from(id).ok()).filter(|&id| id < count);
    let wrong = || refused(path, &key, format!("must be the id of one of {count} tokens, not `{}`", brief(value)));
    Ok(Some(id.ok_or_else(wrong)?))
}
