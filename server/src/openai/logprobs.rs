//! Tokens by their names, places in the text, and probabilities.

use std::fmt::Write;

use runner::executor::{TokenId, TokenLogProb};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use text::tokenizer::Tokenizer;

use crate::generate::cell::PromptScores;

/// What stands for minus infinity, which JSON does not have.
const IMPOSSIBLE: f32 = -9999.0;

/// A token of an output or of an echoed prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// The token.
    pub id: TokenId,
    /// Its log-probability; of a prompt's first token there is none.
    pub log_prob: Option<f32>,
    /// The most probable tokens in its place.
    pub top: Vec<TokenLogProb>,
    /// Characters of the choice's text before it.
    pub offset: usize,
    /// Characters of the choice's text with it.
    pub end: usize,
}

/// The names of tokens.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    /// None behind an engine without one: names are numbers.
    pub tokenizer: Option<&'a Tokenizer>,
    /// Whether names are numbers all the same.
    pub as_ids: bool,
}

/// A log-probability as JSON can have it.
pub fn finite(log_prob: f32) -> f32 {
    if log_prob.is_finite() { log_prob } else { IMPOSSIBLE }
}

impl Names<'_> {
    fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.filter(|_| !self.as_ids)
    }

    /// The text of a token, or its bytes where they are no whole characters.
    fn exact(&self, id: TokenId) -> String {
        match self.tokenizer() {
            None => format!("token_id:{id}"),
            Some(tokenizer) => {
                let bytes = tokenizer.token_bytes(id);
                std::str::from_utf8(bytes).map_or_else(|_| escaped(bytes), str::to_owned)
            }
        }
    }

    /// The text of a token, with replacements for what is no whole character.
    pub fn lossy(&self, id: TokenId) -> String {
        match self.tokenizer() {
            None => format!("token_id:{id}"),
            Some(tokenizer) => String::from_utf8_lossy(tokenizer.token_bytes(id)).into_owned(),
        }
    }

    /// The bytes that a token adds to a text.
    fn bytes(&self, id: TokenId, skip_special_tokens: bool) -> Option<Vec<u8>> {
        let tokenizer = self.tokenizer.filter(|tokenizer| !skip_special_tokens || !tokenizer.is_special(id))?;
        Some(tokenizer.token_bytes(id).to_vec())
    }

    /// A map of tokens; of two of the same text the second has its bytes for a name.
    fn pairs(&self, entry: &Entry, most: usize) -> Option<Pairs> {
        let log_prob = entry.log_prob?;
        let mut pairs = Pairs(Vec::new());
        let mut add = |id: TokenId, log_prob: f32| {
            let mut name = self.exact(id);
            if pairs.0.iter().any(|(known, _)| *known == name) {
                name = match self.tokenizer() {
                    Some(tokenizer) => escaped(tokenizer.token_bytes(id)),
                    None => name,
                };
            }
            pairs.0.push((name, finite(log_prob)));
        };
        for top in entry.top.iter().take(most) {
            add(top.token_id, top.log_prob);
        }
        if !entry.top.iter().take(most).any(|top| top.token_id == entry.id) {
            add(entry.id, log_prob);
        }
        Some(pairs)
    }
}

fn escaped(bytes: &[u8]) -> String {
    bytes.iter().fold("bytes:".to_owned(), |mut text, byte| {
        let _ = write!(text, "\\x{byte:02x}");
        text
    })
}

/// An object of names and log-probabilities, in order.
#[derive(Debug, Clone, PartialEq)]
pub struct Pairs(Vec<(String, f32)>);

impl Serialize for Pairs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, log_prob) in &self.0 {
            map.serialize_entry(name, log_prob)?;
        }
        map.end()
    }
}

/// Log-probabilities of completions, or of chat.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Logprobs {
    /// Four lists of equal length.
    Lists {
        /// Names.
        tokens: Vec<String>,
        /// Of each.
        token_logprobs: Vec<Option<f32>>,
        /// The most probable in the place of each.
        top_logprobs: Vec<Option<Pairs>>,
        /// Characters before each.
        text_offset: Vec<usize>,
    },
    /// A list of objects.
    Content {
        /// Of each token.
        content: Vec<ChatToken>,
        /// Never.
        refusal: (),
    },
}

/// A token of chat.
#[derive(Debug, Serialize)]
pub struct ChatToken {
    token: String,
    logprob: f32,
    bytes: Option<Vec<u8>>,
    top_logprobs: Vec<ChatTop>,
}

#[derive(Debug, Serialize)]
struct ChatTop {
    token: String,
    logprob: f32,
    bytes: Option<Vec<u8>>,
}

/// Completions' shape.
pub fn lists(names: Names<'_>, entries: &[Entry], top: usize) -> Logprobs {
    Logprobs::Lists {
        tokens: entries.iter().map(|entry| names.exact(entry.id)).collect(),
        token_logprobs: entries.iter().map(|entry| entry.log_prob.map(finite)).collect(),
        top_logprobs: entries.iter().map(|entry| names.pairs(entry, top)).collect(),
        text_offset: entries.iter().map(|entry| entry.offset).collect(),
    }
}

/// Chat's shape.
pub fn content(names: Names<'_>, entries: &[Entry], top: usize, skip_special_tokens: bool) -> Logprobs {
    let alternative = |id: TokenId, log_prob: f32| ChatTop {
        token: names.lossy(id),
        logprob: finite(log_prob),
        bytes: names.bytes(id, false),
    };
    let one = |entry: &Entry| {
        let log_prob = entry.log_prob.unwrap_or(IMPOSSIBLE);
        let alternatives = entry.top.iter().take(top).map(|top| alternative(top.token_id, top.log_prob));
        ChatToken {
            token: names.lossy(entry.id),
            logprob: finite(log_prob),
            bytes: names.bytes(entry.id, skip_special_tokens),
            top_logprobs: match entry.top.is_empty() && top > 0 {
                // None were asked of the executor, because the chosen token is the most probable.
                true => vec![alternative(entry.id, log_prob)],
                false => alternatives.collect(),
            },
        }
    };
    Logprobs::Content { content: entries.iter().map(one).collect(), refusal: () }
}

/// vLLM's shape of a prompt's log-probabilities: for each token a map from ids.
#[derive(Debug, Serialize)]
pub struct PromptLogprobs(Vec<Option<Ranked>>);

#[derive(Debug)]
struct Ranked(Vec<(TokenId, RankedToken)>);

#[derive(Debug, Serialize)]
struct RankedToken {
    logprob: f32,
    rank: Option<usize>,
    decoded_token: String,
}

impl Serialize for Ranked {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (id, token) in &self.0 {
            map.serialize_entry(&id.to_string(), token)?;
        }
        map.end()
    }
}

/// What the model makes of a prompt, in vLLM's shape.
pub fn of_prompt(names: Names<'_>, ids: &[TokenId], scores: &PromptScores, most: usize) -> PromptLogprobs {
    let of = |index: usize| {
        let (id, log_prob) = (*ids.get(index)?, *scores.log_probs.get(index.checked_sub(1)?)?);
        let top = scores.top_log_probs.get(index - 1).map(Vec::as_slice).unwrap_or_default();
        let token = |id: TokenId, log_prob: f32, rank: Option<usize>| {
            (id, RankedToken { logprob: finite(log_prob), rank, decoded_token: names.lossy(id) })
        };
        let numbered = top.iter().take(most).zip(1..);
        let mut tokens: Vec<_> = numbered.map(|(top, rank)| token(top.token_id, top.log_prob, Some(rank))).collect();
        if !tokens.iter().any(|(known, _)| *known == id) {
            tokens.push(token(id, log_prob, scores.ranks.get(index - 1).copied()));
        }
        Some(Ranked(tokens))
    };
    PromptLogprobs((0..ids.len()).map(of).collect())
}
