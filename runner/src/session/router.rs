//! The session's thread: takes responses, makes outputs of them, and brings each to its destination.
//!
//! A response costs one look-up of its request, whatever else runs.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use text::stop_strings::StopStrings;
use text::text_stream::TextStream;
use text::tokenizer::Tokenizer;

use crate::executor::{EnqueueError, Executor, RequestId, RequestSpec, Response, TokenResult};

use super::arrivals::Arrivals;
use super::queues::Queues;
use super::sequence::Sequence;
use super::{Destination, Output, OutputCallback, OutputQueue};

/// What the router knows of a request.
pub(super) struct Entry {
    /// By their number; taken out when they end. All have ended where the executor's final response is still to come.
    sequences: Vec<Option<Sequence>>,
    prompt_tokens: usize,
    submitted: Instant,
    /// Whether the outputs of a sequence are delivered as one, at its end, although the executor streams.
    gathers: bool,
    destination: Destination,
    tag: u64,
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

    fn is_over(&self) -> bool {
        self.sequences.iter().all(Option::is_none)
    }

    /// The output that a result makes, if any, and whether the executor has to be told that a stop string ended the sequence.
    fn take(&mut self, mut result: TokenResult, now: Instant) -> (Option<Output>, bool) {
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

/// Runs until the executor is shut down and every response has been taken. However it ends, every request that is known gets
/// its final output, and later submissions are refused.
pub(super) fn run(executor: &dyn Executor, arrivals: &Arrivals, queues: &Queues) {
    let mut router = Router { executor, queue: &queues.shared, entries: HashMap::new(), outputs: Vec::new() };
    let failed = catch_unwind(AssertUnwindSafe(|| router.serve(arrivals))).is_err();
    let (reason, message) = match failed {
        false => (EnqueueError::ShutDown, "the executor ended without ending the request"),
        true => {
            let problem = "its thread ended unexpectedly".to_owned();
            (EnqueueError::Failed { executor: "the session", problem }, "the session's thread ended unexpectedly")
        }
    };
    arrivals.close(&mut router.entries, reason);
    if failed {
        executor.cancel_all();
    }
    // An executor that kept its promises has left none.
    for (id, mut entry) in std::mem::take(&mut router.entries) {
        if !entry.is_over() {
            let output = Output::error(id, message.to_owned(), entry.tag);
            router.deliver(id, &mut entry.destination, output);
        }
    }
    router.flush();
    queues.close();
}

struct Router<'a> {
    executor: &'a dyn Executor,
    queue: &'a OutputQueue,
    entries: HashMap<RequestId, Entry>,
    /// On their way to `queue`.
    outputs: Vec<Output>,
}

impl Router<'_> {
    fn serve(&mut self, arrivals: &Arrivals) {
        loop {
            let responses = self.executor.await_responses(None);
            if responses.is_empty() {
                return;
            }
            let now = Instant::now();
            for response in responses {
                let id = response.request_id();
                if !self.entries.contains_key(&id) {
                    arrivals.take_into(&mut self.entries, id);
                }
                self.route(id, response, now);
            }
            self.flush();
        }
    }

    fn route(&mut self, id: RequestId, response: Response, now: Instant) {
        let is_last_response = response.is_final();
        let MapEntry::Occupied(mut occupied) = self.entries.entry(id) else { return };
        let entry = occupied.get_mut();
        let output = match response {
            Response::Result(result) => {
                let sequence_index = result.sequence_index;
                let (output, tell_executor) = entry.take(result, now);
                if tell_executor {
                    match entry.is_over() {
                        true => self.executor.cancel(id),
                        false => self.executor.cancel_sequence(id, sequence_index),
                    }
                }
                output
            }
            Response::Error { message, .. } => {
                let is_open = !entry.is_over();
                entry.sequences.clear();
                is_open.then(|| Output::error(id, message, entry.tag))
            }
        };
        let (is_over, mut destination) = (entry.is_over(), std::mem::take(&mut entry.destination));
        if is_last_response {
            occupied.remove();
        }
        if let Some(output) = output {
            self.deliver(id, &mut destination, output);
        }
        // A callback is dropped with its final output, even where the executor has not ended the request yet.
        if !is_over && let Some(entry) = self.entries.get_mut(&id) {
            entry.destination = destination;
        } else {
            discard(destination);
        }
    }

    fn deliver(&mut self, id: RequestId, destination: &mut Destination, output: Output) {
        match destination {
            Destination::Session => self.outputs.push(output),
            Destination::Queue(queue) => queue.put(&mut vec![output]),
            Destination::Callback(on_output) => {
                // Those who wait for outputs do not wait for a callback.
                self.queue.put(&mut self.outputs);
                if catch_unwind(AssertUnwindSafe(|| on_output(output))).is_err() {
                    // What panicked is not called again; its request ends, and nothing else does.
                    discard(std::mem::replace(destination, Destination::Nowhere));
                    self.executor.cancel(id);
                }
            }
            Destination::Nowhere => {}
        }
    }

    fn flush(&mut self) {
        self.queue.put(&mut self.outputs);
    }
}

/// Drops a destination. What a callback owns may panic as it is dropped.
fn discard(destination: Destination) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(destination)));
}

impl From<OutputCallback> for Destination {
    fn from(on_output: OutputCallback) -> Self {
        Self::Callback(on_output)
    }
}

impl From<Arc<OutputQueue>> for Destination {
    fn from(queue: Arc<OutputQueue>) -> Self {
        Self::Queue(queue)
    }
}
