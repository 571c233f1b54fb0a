//! Stop words: token sequences that end a sequence.

use crate::executor::TokenId;

/// Whether `tokens`, of which the last `generated` are output, ends with a stop word. A word may begin in the prompt,
/// but its last token was generated.
pub(super) fn is_stopped(tokens: &[TokenId], generated: usize, stop_words: &[Vec<TokenId>]) -> bool {
    generated > 0 && stop_words.iter().any(|word| !word.is_empty() && tokens.ends_with(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_ends_with_what_was_generated() {
        let words = [vec![1, 2], vec![3]];
        assert!(is_stopped(&[0, 1, 2], 1, &words));
        assert!(is_stopped(&[0, 1, 2], 2, &words));
        assert!(!is_stopped(&[0, 1, 2], 0, &words));
        assert!(!is_stopped(&[1, 2, 0], 1, &words));
        assert!(is_stopped(&[3], 1, &words));
        assert!(!is_stopped(&[2], 1, &words));
        assert!(!is_stopped(&[], 0, &[vec![]]));
        assert!(!is_stopped(&[5], 1, &[vec![]]));
    }
}
