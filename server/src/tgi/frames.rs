//! Frames: an answer token by token.

use crate::error::ApiError;
use crate::generate::cell::{Cell, Delta};
use crate::http::sse::{self, Events};
use crate::openai::logprobs::Entry;
use crate::openai::sequence::{Ended, Sequence};

use super::answer::{Context, finish_reason};
use super::assembly::Assembly;
use super::error::{self, of_generation};
use super::shape::{Frame, StreamDetails, Token};

/// Writes frames.
pub(super) struct Frames {
    context: Context,
    sequence: Sequence,
    assembly: Assembly,
    /// All of the text, for the last frame.
    text: String,
    index: usize,
}

impl Frames {
    pub(super) fn new(context: Context) -> Self {
        let (sequence, text) = (context.sequence(), context.own.prefix.clone());
        Self { context, sequence, assembly: Assembly::default(), text, index: 0 }
    }

    fn write(&mut self, token: Token, top_tokens: Vec<Token>, ended: Option<&Ended>, out: &mut Vec<u8>) {
        self.index += 1;
        let details = ended.filter(|_| self.context.own.details).map(|ended| StreamDetails {
            finish_reason: finish_reason(ended),
            generated_tokens: self.sequence.tokens,
            seed: self.context.seed(0),
            input_length: self.context.prompt.ids.len(),
        });
        let generated_text = ended.map(|_| std::mem::take(&mut self.text));
        sse::event(out, &Frame { index: self.index, token, top_tokens, generated_text, details });
    }

    /// The frame of an end that no token came with, as that of a request whose time is over: it has a token that says nothing, because
    /// every frame has one.
    fn write_end(&mut self, ended: &Ended, out: &mut Vec<u8>) {
        let id = self.context.state.model().and_then(|model| model.end_ids().first().copied()).unwrap_or_default();
        let token = Token { id, text: String::new(), logprob: 0.0, special: true };
        self.write(token, Vec::new(), Some(ended), out);
    }
}

impl Events for Frames {
    fn delta(&mut self, _: usize, delta: Delta, cell: &Cell, out: &mut Vec<u8>) -> Result<(), ApiError> {
        let mut piece = self.sequence.take(delta, cell.tokens(), &[])?;
        self.text.push_str(&piece.text);
        let whole = self.assembly.take(&mut piece);
        let ended = piece.ended.as_ref();
        let last = whole.len().checked_sub(1);
        for (number, (entry, text)) in whole.into_iter().enumerate() {
            let (token, top): (Token, Vec<Token>) = (self.context.token(&entry, text), self.top(&entry));
            self.write(token, top, ended.filter(|_| Some(number) == last), out);
        }
        if let (Some(ended), None) = (ended, last) {
            self.write_end(ended, out);
        }
        Ok(())
    }

    fn end(&mut self, _: &Cell, _: &mut Vec<u8>) {}

    fn error(&mut self, error: &ApiError, out: &mut Vec<u8>) {
        sse::event(out, &error::body(&of_generation(error.clone())));
    }
}

impl Frames {
    fn top(&self, entry: &Entry) -> Vec<Token> {
        self.context.top(entry)
    }
}
