//! The text of one sequence as its tokens come, up to a stop string.

use crate::detokenizer::Detokenizer;
use crate::executor::{RequestSpec, TokenId};
use crate::stop_strings::{Emit, StopStrings};
use crate::tokenizer::Tokenizer;

/// A detokenizer and the stop strings behind it.
#[derive(Debug, Clone)]
pub(crate) struct TextStream {
    detokenizer: Detokenizer,
    stop_strings: StopStrings,
}

impl TextStream {
    /// The stream of what a request generates.
    pub(crate) fn new(tokenizer: &Tokenizer, spec: &RequestSpec, stop_strings: StopStrings) -> Self {
        let detokenizer = match spec.guided_decoding {
            Some(_) => Detokenizer::of_guided_output(tokenizer, true),
            None => Detokenizer::after_prompt(tokenizer, &spec.input_token_ids, true),
        };
        Self { detokenizer, stop_strings }
    }

    /// What one more token makes certain.
    pub(crate) fn push(&mut self, token: TokenId) -> Emit {
        self.stop_strings.push(&self.detokenizer.push(token))
    }

    /// What was held back, now that no more tokens come.
    pub(crate) fn finish(&mut self) -> Emit {
        let mut emit = self.stop_strings.push(&self.detokenizer.finish());
        if emit.stopped.is_none() {
            emit.text.push_str(&self.stop_strings.finish());
        }
        emit
    }
}
