//! The text of one sequence as its tokens come, up to a stop string.

use crate::TokenId;
use crate::detokenizer::Detokenizer;
use crate::stop_strings::{Emit, StopSearch, StopStrings};
use crate::tokenizer::Tokenizer;

/// A detokenizer and the search for stop strings behind it.
#[derive(Debug, Clone)]
pub struct TextStream {
    detokenizer: Detokenizer,
    search: StopSearch,
}

impl TextStream {
    /// The stream of what follows `prompt`. A guided output is matched from its first byte, so its text does not depend on the prompt.
    pub fn new(
        tokenizer: &Tokenizer,
        prompt: &[TokenId],
        is_guided: bool,
        skip_special_tokens: bool,
        stop_strings: StopStrings,
    ) -> Self {
        let detokenizer = match is_guided {
            true => Detokenizer::of_guided_output(tokenizer, skip_special_tokens),
            false => Detokenizer::after_prompt(tokenizer, prompt, skip_special_tokens),
        };
        Self { detokenizer, search: StopSearch::new(stop_strings, tokenizer, !skip_special_tokens) }
    }

    /// What one more token makes certain.
    pub fn push(&mut self, token: TokenId) -> Emit {
        if self.search.is_empty() {
            return Emit { text: self.detokenizer.push(token), stopped: None };
        }
        if !self.search.looks_for_special_tokens() || !self.detokenizer.is_special(token) {
            return self.search.push(&self.detokenizer.push(token));
        }
        // The text before the token has to be there before the token is.
        let mut text = self.detokenizer.flush();
        text.push_str(&self.detokenizer.push(token));
        let shown = self.detokenizer.shown(token);
        let before = text.strip_suffix(shown.as_str()).unwrap_or(&text);
        let mut emit = self.search.push(before);
        if emit.stopped.is_none() {
            let special = self.search.push_special(token, &text[before.len()..]);
            emit = Emit { text: emit.text + &special.text, stopped: special.stopped };
        }
        emit
    }

    /// What was held back, now that no more tokens come.
    pub fn finish(&mut self) -> Emit {
        let mut emit = self.search.push(&self.detokenizer.finish());
        if emit.stopped.is_none() {
            emit.text.push_str(&self.search.finish());
        }
        emit
    }

    /// A stop string, by its index in the list.
    pub fn stop_string(&self, index: usize) -> Option<&str> {
        self.search.texts().get(index).map(String::as_str)
    }
}
