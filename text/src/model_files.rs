//! The files beside the weights, opened as a run opens them, so that a build tells what is wrong before it writes anything.

use std::path::Path;

use crate::TokenId;
use crate::chat::{ChatError, ChatTemplate};
use crate::tokenizer::{Tokenizer, TokenizerError, Vocabulary};

/// What the tokenizer and the chat template of a model are good for.
#[derive(Debug, Default)]
pub struct Checked {
    /// The tokenizer's `eos_token`, where the model has a place for it.
    pub eos_id: Option<TokenId>,
    /// What a user of the engine is to know, as sentences.
    pub warnings: Vec<String>,
}

/// Opens the tokenizer and the chat template of a model whose vocabulary has `vocab_size` tokens.
///
/// What leaves token ids usable is a warning: no tokenizer, a decoder that cannot be followed, a template that cannot be used.
///
/// # Errors
/// A tokenizer's file that cannot be read, or is not what its name promises.
pub fn check(dir: &Path, vocab_size: usize) -> Result<Checked, TokenizerError> {
    let mut checked = Checked::default();
    let ids_only = |error: TokenizerError| format!("{error}; the engine will take and give token ids only");
    let vocabulary = match Vocabulary::open(dir) {
        Err(error @ TokenizerError::Missing { .. }) => {
            checked.warnings.push(ids_only(error));
            return Ok(checked);
        }
        opened => opened?,
    };
    let beyond = vocabulary.beyond(vocab_size);
    let eos_id = vocabulary.eos_id();
    if let Some((id, token)) = beyond.iter().find(|(id, _)| Some(*id) == eos_id) {
        checked.warnings.push(format!(
            "eos_token {token:?} of the tokenizer has the id {id}, which the model's vocabulary of {vocab_size} lacks: it ends no output"
        ));
    }
    checked.eos_id = eos_id.filter(|&id| (id as usize) < vocab_size);
    if !beyond.is_empty() {
        checked.warnings.push(without_a_place(&beyond, vocab_size));
    }
    match Tokenizer::of(vocabulary) {
        Err(error @ TokenizerError::Decoder { .. }) => checked.warnings.push(ids_only(error)),
        opened => drop(opened?),
    }
    match ChatTemplate::open(dir) {
        Ok(_) | Err(ChatError::Missing { .. }) => {}
        Err(ChatError::Tokenizer(error)) => return Err(error),
        Err(error) => checked.warnings.push(format!("{error}; until then the engine cannot chat")),
    }
    Ok(checked)
}

fn without_a_place(beyond: &[(TokenId, String)], vocab_size: usize) -> String {
    let shown: Vec<String> = beyond.iter().take(3).map(|(id, token)| format!("{token:?} ({id})")).collect();
    let more =
        if beyond.len() > shown.len() { format!(" and {} more", beyond.len() - shown.len()) } else { String::new() };
    format!(
        "the tokenizer has tokens that the model, of {vocab_size} tokens, has no place for: {}{more}; a prompt with one of \
         them is refused",
        shown.join(", ")
    )
}
