//! Chunks: an answer as it comes.

use crate::error::ApiError;
use crate::generate::cell::{Cell, Delta};
use crate::http::sse::{self, DONE, Events};

use super::answer::Context;
use super::sequence::{Piece, Sequence};
use super::shape::{ChatDelta, Choice};

/// Writes chunks.
pub(super) struct Chunks {
    pub(super) context: Context,
    pub(super) sequences: Vec<Sequence>,
}

impl Chunks {
    fn write(&self, choice: Choice<'_>, cell: &Cell, out: &mut Vec<u8>) {
        let usage = match (self.context.wanted.include_usage, self.context.wanted.continuous_usage) {
            (_, true) => Some(Some(self.context.usage(cell))),
            (true, false) => Some(None),
            (false, false) => None,
        };
        let mut answer = self.context.answer(self.object(), vec![choice], usage);
        // Of chat the prompt's tokens come with the beginning of each choice.
        let begins = answer.choices[0].delta.as_ref().is_some_and(|delta| delta.role.is_some());
        if begins && self.context.wanted.return_token_ids {
            answer.prompt_token_ids = Some(&self.context.prompts[0].ids);
        }
        sse::event(out, &answer);
    }

    fn object(&self) -> &'static str {
        if self.context.is_chat { "chat.completion.chunk" } else { "text_completion" }
    }

    /// Writes the chunk of some text.
    fn text(&self, index: usize, piece: &Piece, first: bool, cell: &Cell, out: &mut Vec<u8>) {
        let text = piece.text.as_str();
        let is_chat = self.context.is_chat;
        let ids = self.context.wanted.return_token_ids;
        let choice = Choice {
            index,
            text: (!is_chat).then_some(text),
            delta: is_chat.then_some(ChatDelta { role: None, content: Some(text) }),
            logprobs: self.context.logprobs(&piece.entries),
            token_ids: (ids && !piece.ids.is_empty()).then_some(piece.ids.as_slice()),
            prompt_token_ids: (ids && first && !is_chat)
                .then(|| self.context.prompts[self.context.prompt(index)].ids.as_slice()),
            prompt_logprobs: match first && !is_chat {
                true => self.context.prompt_logprobs(self.context.prompt(index)),
                false => None,
            },
            ..Choice::default()
        };
        self.write(choice, cell, out);
    }

    fn begin(&mut self, index: usize, cell: &Cell, out: &mut Vec<u8>) -> Result<(), ApiError> {
        if self.context.is_chat {
            let delta = Some(ChatDelta { role: Some("assistant"), content: Some("") });
            self.write(Choice { index, delta, ..Choice::default() }, cell, out);
        } else if self.context.wanted.echo {
            let mut sequence = std::mem::take(&mut self.sequences[index]);
            let piece = self.context.echo(index, cell, &mut sequence);
            self.sequences[index] = sequence;
            self.text(index, &piece?, true, cell, out);
        }
        self.sequences[index].has_begun = true;
        Ok(())
    }
}

impl Events for Chunks {
    fn delta(&mut self, index: usize, delta: Delta, cell: &Cell, out: &mut Vec<u8>) -> Result<(), ApiError> {
        let is_first = !self.sequences[index].has_begun;
        let echoes = self.context.wanted.echo;
        if is_first && (self.context.is_chat || echoes) {
            self.begin(index, cell, out)?;
        }
        let piece = self.sequences[index].take(delta, cell.tokens(), &self.context.added_ends)?;
        if !piece.text.is_empty()
            || !piece.entries.is_empty()
            || !piece.ids.is_empty() && self.context.wanted.return_token_ids
        {
            self.text(index, &piece, is_first && !echoes, cell, out);
            self.sequences[index].has_begun = true;
        }
        if let Some(ended) = &piece.ended {
            let choice = Choice {
                index,
                text: (!self.context.is_chat).then_some(""),
                delta: self.context.is_chat.then(ChatDelta::default),
                finish_reason: Some(ended.finish_reason),
                stop_reason: Some(ended.stop_reason.as_ref()),
                ..Choice::default()
            };
            self.write(choice, cell, out);
        }
        Ok(())
    }

    fn end(&mut self, cell: &Cell, out: &mut Vec<u8>) {
        if self.context.wanted.include_usage {
            let usage = Some(Some(self.context.usage(cell)));
            sse::event(out, &self.context.answer(self.object(), Vec::new(), usage));
        }
        out.extend_from_slice(DONE);
    }
}
