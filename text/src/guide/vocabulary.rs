//! A tokenizer's tokens as the bytes that a grammar is matched with.

use std::sync::Arc;

use llguidance::toktrie::{ApproximateTokEnv, INVALID_TOKEN, TokEnv, TokRxInfo, TokTrie};

use super::GuideError;
use crate::TokenId;
use crate::tokenizer::{Kind, Tokenizer};

/// Longest token that the trie's nodes can count; a longer one is never generated under a guide.
const MAX_TOKEN_BYTES: usize = 1024;

/// The trie of a model's tokens. It knows no end token: when an output may end is asked of the parser.
pub(super) fn token_environment(tokenizer: &Tokenizer, vocab_size: usize) -> Result<TokEnv, GuideError> {
    let size = u32::try_from(vocab_size)
        .map_err(|_| GuideError::Vocabulary { problem: format!("{vocab_size} tokens are too many") })?;
    let words: Vec<Vec<u8>> = (0..size).map(|id| bytes_of(tokenizer, id)).collect();
    if words.iter().all(Vec::is_empty) {
        return Err(GuideError::Vocabulary { problem: "no token has any text".to_owned() });
    }
    // A vocabulary too large for the trie is found out in its middle, by an assertion.
    super::error::guarded(|| {
        let trie = TokTrie::from(&TokRxInfo::new(size, INVALID_TOKEN), &words);
        // Not canonical: bytes that a grammar forces are still chosen by the model, token by token.
        Ok(Arc::new(ApproximateTokEnv::new(trie)) as TokEnv)
    })
    .map_err(|problem| GuideError::Vocabulary { problem })
}

/// What a token adds to a text after its first token; nothing for ids without text and for special tokens, which a
/// grammar can then name by their ids and never spell.
fn bytes_of(tokenizer: &Tokenizer, id: TokenId) -> Vec<u8> {
    let pieces = tokenizer.pieces();
    let (kind, bytes) = pieces.get(id, false);
    // No text has the marker's byte, 0xFF; to the trie it begins a special token's name.
    let no_text = kind == Kind::Absent
        || pieces.is_special(id)
        || bytes.first() == Some(&TokTrie::SPECIAL_TOKEN_MARKER)
        || bytes.len() > MAX_TOKEN_BYTES;
    if no_text { Vec::new() } else { bytes.to_vec() }
}
