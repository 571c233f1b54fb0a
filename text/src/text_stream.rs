//! The text of one sequence as its tokens come, up to a stop string.

use crate::TokenId;
use crate::detokenizer::Detokenizer;
use crate::stop_strings::{Emit, StopStrings};
use crate::tokenizer::Tokenizer;

/// A detokenizer and the stop strings behind it.
#[derive(Debug, Clone)]
pub struct TextStream {
    detokenizer: Detokenizer,
    stop_strings: StopStrings,
}

impl TextStream {
    /// The stream of what follows `prompt`. A guided output is matched from its first byte, so its text does not depend on the prompt.
    pub fn new(tokenizer: &Tokenizer, prompt: &[TokenId], is_guided: bool, stop_strings: StopStrings) -> Self {
        let detokenizer = match is_guided {
            true => Detokenizer::of_guided_output(tokenizer, true),
            false => Detokenizer::after_prompt(tokenizer, prompt, true),
        };
        Self { detokenizer, stop_strings }
    }

    /// What one more token makes certain.
    pub fn push(&mut self, token: TokenId) -> Emit {
        self.stop_strings.push(&self.detokenizer.push(token))
    }

    /// What was held back, now that no more tokens come.
    pub fn finish(&mut self) -> Emit {
        let mut emit = self.stop_strings.push(&self.detokenizer.finish());
        if emit.stopped.is_none() {
            emit.text.push_str(&self.stop_strings.finish());
        }
        emit
    }
}
