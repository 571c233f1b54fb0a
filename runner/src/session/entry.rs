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
        let index = result.sequence_index;
        let Some(sequence) = self.sequences.get_mut(index).and_then(Option::as_mut) else { return (None, false) };
        let ended_by_executor = result.is_sequence_final;
        let (text, stopped) = sequence.push(&mut result, now);
        let (mut stats, mut gathered) = (None, None);
        let is_over = result.is_sequence_final;
        if is_over {
            stats = Some(sequence.stats(self.prompt_tokens, self.submitted));
            gathered = sequence.gathered.take();
            self.sequences[index] = None;
            result.is_final |= self.is_over();
        }
        let output = Output { response: Response::Result(result), text, stats, tag: self.tag };
        let tell_executor = stopped && !ended_by_executor;
        if !self.gathers {
            return (Some(output), tell_executor);
        }
        if let Some(mut whole) = gathered {
            whole.append(output);
            return (Some(*whole), tell_executor);
        }
        match self.sequences[index].as_mut() {
            None => (Some(output), tell_executor),
            Some(sequence) => {
                sequence.gather(output);
                (None, tell_executor)
            }
        }
    }
}
