//! Stop words: token sequences that end a sequence.

use crate::executor::TokenId;

/// Whether `token`, generated after `tokens`, completes a stop word. A word may begin in the prompt.
pub(super) fn is_stopped(tokens: &[TokenId], token: TokenId, stop_words: &[Vec<TokenId>]) -> bool {
    let completes = |word: &Vec<TokenId>| {
        word.split_last().is_some_and(|(&last, before)| last == token && tokens.ends_with(before))
    };
    stop_words.iter().any(completes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_ends_with_what_was_generated() {
        let words = [vec![1, 2], vec![3]];
        assert!(is_stopped(&[0, 1], 2, &words));
        assert!(is_stopped(&[1], 2, &words));
        assert!(!is_stopped(&[1, 2], 0, &words));
        assert!(is_stopped(&[], 3, &words));
        assert!(!is_stopped(&[], 2, &words));
        assert!(!is_stopped(&[2], 1, &words));
        assert!(!is_stopped(&[5], 5, &[vec![]]));
    }
}
