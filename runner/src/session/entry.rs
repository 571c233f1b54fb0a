//! A request as the session knows it: its sequences, and where their outputs go.

use std::time::Instant;

use text::text_stream::TextStream;

use crate::executor::{LogitsPostProcessor, RequestSpec, Response};

use super::ends::Ends;
use super::sequence::Sequence;
use super::{Destination, Output};

/// What the router knows of a request.
pub(super) struct Entry {
    /// By sequence number; `None` after its end. All may be `None` before the executor's final response.
    sequences: Vec<Option<Sequence>>,
    ends: Ends,
    prompt_tokens: usize,
    submitted: Instant,
    /// Whether the outputs of a sequence are delivered as one, at its end, although the executor streams.
    gathers: bool,
    pub(super) destination: Destination,
    pub(super) tag: u64,
    /// What sees the logits of its tokens.
    pub(super) hook: Option<LogitsPostProcessor>,
}

impl Entry {
    pub(super) fn new(
        spec: &RequestSpec,
        stream: Option<TextStream>,
        gathers: bool,
        destination: Destination,
        tag: u64,
    ) -> Self {
        let ends = Ends::of(spec);
        let sequences = vec![Some(Sequence::new(stream, ends.tail())); spec.sampling.num_return_sequences];
        let prompt_tokens = spec.input_token_ids.len();
        Self {
            sequences,
            ends,
            prompt_tokens,
            submitted: Instant::now(),
            gathers,
            destination,
            tag,
            hook: spec.logits_post_processor.clone(),
        }
    }

    #[inline]
    pub(super) fn is_over(&self) -> bool {
        self.sequences.iter().all(Option::is_none)
    }

    /// Nothing more of it is told.
    pub(super) fn end(&mut self) {
        self.sequences.clear();
    }

    /// The first sequence that has not ended.
    pub(super) fn first_open(&self) -> usize {
        self.sequences.iter().position(Option::is_some).unwrap_or(0)
    }

    /// Takes a response in, as an `output` that has no text yet, and makes of it what is to be delivered.
    #[inline]
    pub(super) fn take(&mut self, output: &mut Output, now: Instant) -> Taken {
        let nothing = Taken { deliver: false, stopped: None };
        let Response::Result(result) = &mut output.response else {
            let deliver = !self.is_over();
            output.sequence_index = self.first_open();
            self.end();
            return Taken { deliver, stopped: None };
        };
        let index = result.sequence_index;
        let Some(sequence) = self.sequences.get_mut(index).and_then(Option::as_mut) else { return nothing };
        let ended_by_executor = result.is_sequence_final;
        let stop_string = sequence.push(result, &self.ends, &mut output.text, now);
        let stopped = stop_string.is_some();
        if !result.is_sequence_final {
            if self.gathers {
                sequence.gather(output);
            }
            return Taken { deliver: !self.gathers, stopped: None };
        }
        output.stop_reason =
            stop_string.or_else(|| sequence.stop_reason(&self.ends, result.finish_reason)).map(Box::new);
        output.stats = Some(sequence.stats(self.prompt_tokens, self.submitted));
        let gathered = sequence.gathered.take();
        self.sequences[index] = None;
        result.is_final |= self.is_over();
        if let Some(mut whole) = gathered {
            std::mem::swap(output, &mut whole);
            output.append(*whole);
        }
        Taken { deliver: true, stopped: (stopped && !ended_by_executor).then_some(index) }
    }
}

/// What a response led to.
pub(super) struct Taken {
    /// Whether the output is to be delivered: not if its sequence had ended, or goes on and is gathered.
    pub(super) deliver: bool,
    /// The sequence that a stop string has ended, of which the executor does not know yet.
    pub(super) stopped: Option<usize>,
}
