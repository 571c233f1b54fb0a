//! The session's thread: takes responses, makes outputs of them, and brings each where it belongs.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::executor::{EnqueueError, Executor, RequestId, RequestSpec, Response, TokenResult};
use crate::outbox::Outbox;
use text::stop_strings::StopStrings;
use text::text_stream::TextStream;
use text::tokenizer::Tokenizer;

use super::sequence::Sequence;
use super::{Output, OutputCallback};

/// Where submitted requests wait until the router looks. A response may come before the submission returns, so the router
/// waits for requests that are on their way.
#[derive(Default)]
pub(super) struct Doorstep {
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Default)]
struct State {
    entries: Vec<(RequestId, Entry)>,
    submitting: usize,
}

impl Doorstep {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enqueues a request and leaves its entry for the router.
    pub(super) fn submit(
        &self,
        entry: Entry,
        enqueue: impl FnOnce() -> Result<RequestId, EnqueueError>,
    ) -> Result<RequestId, EnqueueError> {
        self.lock().submitting += 1;
        let id = enqueue();
        let mut state = self.lock();
        state.submitting -= 1;
        if let Ok(id) = id {
            state.entries.push((id, entry));
        }
        drop(state);
        self.arrived.notify_one();
        id
    }

    /// Moves what has arrived into `entries`, waiting for the request `id` as long as one is on its way.
    fn take_into(&self, entries: &mut HashMap<RequestId, Entry>, id: RequestId) {
        let mut state = self.lock();
        loop {
            entries.extend(state.entries.drain(..));
            if state.submitting == 0 || entries.contains_key(&id) {
                return;
            }
            state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// What the router knows of a request.
pub(super) struct Entry {
    /// By their number; taken out when they end. All have ended where the executor's final response is still to come.
    sequences: Vec<Option<Sequence>>,
    prompt_tokens: usize,
    submitted: Instant,
    on_output: Option<OutputCallback>,
    tag: u64,
}

impl Entry {
    pub(super) fn new(
        spec: &RequestSpec,
        tokenizer: Option<&Tokenizer>,
        stop_strings: StopStrings,
        on_output: Option<OutputCallback>,
        tag: u64,
    ) -> Self {
        let stream = tokenizer.map(|tokenizer| {
            TextStream::new(tokenizer, &spec.input_token_ids, spec.guided_decoding.is_some(), stop_strings)
        });
        let sequences = vec![Some(Sequence::new(stream)); spec.sampling.num_return_sequences];
        Self { sequences, prompt_tokens: spec.input_token_ids.len(), submitted: Instant::now(), on_output, tag }
    }

    fn is_over(&self) -> bool {
        self.sequences.iter().all(Option::is_none)
    }

    /// The output that a result makes; none for a sequence that had ended.
    fn take(&mut self, mut result: TokenResult, now: Instant) -> Option<Output> {
        let place = self.sequences.get_mut(result.sequence_index)?;
        let sequence = place.as_mut()?;
        let text = sequence.push(&mut result, now);
        let stats = result.is_sequence_final.then(|| sequence.stats(self.prompt_tokens, self.submitted));
        if stats.is_some() {
            *place = None;
        }
        result.is_final |= self.is_over();
        Some(Output { response: Response::Result(result), text, stats, tag: self.tag })
    }
}

/// Runs until the executor is shut down and every response has been taken.
pub(super) fn run(executor: &dyn Executor, doorstep: &Doorstep, outbox: &Outbox<Output>) {
    struct Farewell<'a>(&'a Outbox<Output>);
    impl Drop for Farewell<'_> {
        fn drop(&mut self) {
            self.0.close();
        }
    }
    let _farewell = Farewell(outbox);
    let mut router = Router { executor, outbox, entries: HashMap::new(), outputs: Vec::new() };
    loop {
        let responses = executor.await_responses(None);
        if responses.is_empty() {
            break;
        }
        let now = Instant::now();
        for response in responses {
            let id = response.request_id();
            if !router.entries.contains_key(&id) {
                doorstep.take_into(&mut router.entries, id);
            }
            router.route(id, response, now);
        }
        outbox.put(&mut router.outputs);
    }
    // An executor that kept its promises has left none.
    for (request_id, mut entry) in std::mem::take(&mut router.entries) {
        if !entry.is_over() {
            let message = "the executor ended without ending the request".to_owned();
            let response = Response::Error { request_id, message };
            let output = Output { response, text: String::new(), stats: None, tag: entry.tag };
            router.deliver(&mut entry.on_output, output);
        }
    }
    outbox.put(&mut router.outputs);
}

struct Router<'a> {
    executor: &'a dyn Executor,
    outbox: &'a Outbox<Output>,
    entries: HashMap<RequestId, Entry>,
    /// On their way to the outbox.
    outputs: Vec<Output>,
}

impl Router<'_> {
    fn route(&mut self, id: RequestId, response: Response, now: Instant) {
        let was_final = response.is_final();
        let MapEntry::Occupied(mut place) = self.entries.entry(id) else { return };
        let entry = place.get_mut();
        let output = match response {
            Response::Result(result) => entry.take(result, now),
            error @ Response::Error { .. } => {
                let open = !entry.is_over();
                open.then(|| Output { response: error, text: String::new(), stats: None, tag: entry.tag })
            }
        };
        let is_final = output.as_ref().is_some_and(|output| output.response.is_final());
        let mut on_output = entry.on_output.take();
        if was_final {
            place.remove();
        } else if is_final {
            // Stop strings, of which the executor knows nothing, have ended all sequences.
            self.executor.cancel(id);
        }
        if let Some(output) = output {
            self.deliver(&mut on_output, output);
        }
        if !is_final && let Some(entry) = self.entries.get_mut(&id) {
            entry.on_output = on_output;
        }
    }

    fn deliver(&mut self, on_output: &mut Option<OutputCallback>, output: Output) {
        match on_output {
            // Those who wait do not wait for a callback.
            Some(on_output) => {
                self.outbox.put(&mut self.outputs);
                on_output(output);
            }
            None => self.outputs.push(output),
        }
    }
}
