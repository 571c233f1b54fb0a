//! Tokens with their texts. A token is given out when all of its text is there, so that the texts of a sequence's tokens, one after
//! another, are the sequence's text.

use std::collections::VecDeque;

use crate::openai::logprobs::Entry;
use crate::openai::sequence::Piece;

/// The tokens of a sequence, and the text that they are given.
#[derive(Debug, Default)]
pub struct Assembly {
    waiting: VecDeque<Entry>,
    /// Text that came and is no token's yet.
    text: String,
    /// Characters that came, and of them those that were given to tokens.
    came: usize,
    given: usize,
}

impl Assembly {
    /// Takes in a piece, and gives the tokens that are whole. The last token of a sequence has what is left.
    pub fn take(&mut self, piece: &mut Piece) -> Vec<(Entry, String)> {
        self.came += piece.text.chars().count();
        self.text.push_str(&piece.text);
        self.waiting.extend(std::mem::take(&mut piece.entries));
        let is_over = piece.ended.is_some();
        let mut whole = Vec::new();
        while let Some(entry) = self.waiting.pop_front_if(|entry| is_over || entry.end <= self.came) {
            let text = match is_over && self.waiting.is_empty() {
                true => std::mem::take(&mut self.text),
                false => {
                    let count = entry.end.saturating_sub(self.given);
                    let end = self.text.char_indices().nth(count).map_or(self.text.len(), |(at, _)| at);
                    self.text.drain(..end).collect()
                }
            };
            self.given += text.chars().count();
            whole.push((entry, text));
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::sequence::Ended;

    fn entry(id: u32, offset: usize, end: usize) -> Entry {
        Entry { id, log_prob: Some(0.0), top: Vec::new(), offset, end }
    }

    fn piece(text: &str, entries: Vec<Entry>, is_over: bool) -> Piece {
        let ended = is_over.then_some(Ended { finish_reason: "stop", stop_reason: None });
        Piece { text: text.to_owned(), entries, ids: Vec::new(), ended }
    }

    fn texts(whole: Vec<(Entry, String)>) -> Vec<(u32, String)> {
        whole.into_iter().map(|(entry, text)| (entry.id, text)).collect()
    }

    #[test]
    fn a_token_waits_for_all_of_its_text() {
        let mut assembly = Assembly::default();
        // The end of the second token may begin a stop string.
        let first = assembly.take(&mut piece("one tw", vec![entry(1, 0, 3), entry(2, 3, 7)], false));
        assert_eq!(texts(first), [(1, "one".to_owned())]);
        let second = assembly.take(&mut piece("o\u{e9}", vec![entry(3, 7, 7), entry(4, 7, 8)], false));
        assert_eq!(texts(second), [(2, " two".to_owned()), (3, String::new()), (4, "\u{e9}".to_owned())]);
        assert!(assembly.take(&mut piece("", Vec::new(), false)).is_empty());
    }

    #[test]
    fn the_last_token_has_what_is_left_and_no_more_than_there_is() {
        let mut assembly = Assembly::default();
        let cut = assembly.take(&mut piece("one tw", vec![entry(1, 0, 3), entry(2, 3, 7)], true));
        assert_eq!(texts(cut), [(1, "one".to_owned()), (2, " tw".to_owned())]);
        let mut assembly = Assembly::default();
        // Half a character, which ends as a replacement.
        let half = assembly.take(&mut piece("a\u{fffd}", vec![entry(1, 0, 1), entry(2, 1, 1)], true));
        assert_eq!(texts(half), [(1, "a".to_owned()), (2, "\u{fffd}".to_owned())]);
    }
}
