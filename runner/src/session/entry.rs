//! A request as the session knows it: its sequences, and where their outputs go.

use std::time::Instant;

use text::stop_strings::StopStrings;
use text::text_stream::TextStream;
use text::tokenizer::Tokenizer;

use crate::executor::{RequestSpec, Response, TokenResult};

use super::sequence::Sequence;
use super::{Destination, Output};

/// What the router knows of a request.
pub(super) struct Entry {
    /// By sequence number; `None` after its end. All may be `None` before the executor's final response.
    sequences: Vec<Option<Sequence>>,
    prompt_tokens: usize,
    submitted: Instant,
    /// Whether the outputs of a sequence are delivered as one, at its end, although the executor streams.
    gathers: bool,
    pub(super) destination: Destination,
    pub(super) tag: u64,
}

impl Entry {
    pub(super) fn new(
        spec: &RequestSpec,
        tokenizer: Option<&Tokenizer>,
        stop_strings: StopStrings,
        gathers: bool,
        destination: Destination,
        tag: u64,
    ) -> Self {
        let is_guided = spec.guided_decoding.is_some();
        let stream = tokenizer.map(|it| TextStream::new(it, &spec.input_token_ids, is_guided, stop_strings));
        let sequences = vec![Some(Sequence::new(stream)); spec.sampling.num_return_sequences];
        let prompt_tokens = spec.input_token_ids.len();
        Self { sequences, prompt_tokens, submitted: Instant::now(), gathers, destination, tag }
    }

    pub(super) fn is_over(&self) -> bool {
        self.sequences.iter().all(Option::is_none)
    }

    /// Ends every sequence, whatever it had come to.
    pub(super) fn end(&mut self) {
        self.sequences.clear();
    }

    /// The output that a result makes, if any, and whether the executor has to be told that a stop string ended the sequence.
    pub(super) fn take(&mut self, mut result: TokenResult, now: Instant) -> (Option<Output>, bool) {
        let Some(slot) = self.sequences.get_mut(result.sequence_index) else { return (None, false) };
        let Some(sequence) = slot.as_mut() else { return (None, false) };
        let ended_by_executor = result.is_sequence_final;
        let (text, stopped) = sequence.push(&mut result, now);
        let is_over = result.is_sequence_final;
        let stats = is_over.then(|| sequence.stats(self.prompt_tokens, self.submitted));
        let output = Output { response: Response::Result(result), text, stats, tag: self.tag };
        let output = if self.gathers { sequence.gather(output, is_over) } else { Some(output) };
        if is_over {
            *slot = None;
        }
        let is_final = self.is_over();
        let output = output.map(|mut output| {
            if let Response::Result(result) = &mut output.response {
                result.is_final |= is_final;
            }
            output
        });
        (output, stopped && !ended_by_executor)
    }
}
