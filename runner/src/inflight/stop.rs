//! Stop words: token sequences that end an output.

use crate::executor::TokenId;

/// Whether `tokens` ends with a stop word whose last token was generated; `generated` tokens were.
pub(super) fn is_stopped(tokens: &[TokenId], generated: usize, stop_words: &[Vec<TokenId>]) -> bool {
    generated > 0 && stop_words.iter().any(|word| tokens.ends_with(word))
}
