//! The session's thread: takes responses, makes outputs of them, and brings each to its destination.
//!
//! A response costs one look-up of its request, whatever else runs.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::time::Instant;

use crate::contained::contained;
use crate::executor::{EnqueueError, Executor, LogitsPostProcessor, RequestId, Response};

use super::arrivals::Arrivals;
use super::entry::{Entry, Taken};
use super::queues::Queues;
use super::{Destination, Output, OutputCallback, OutputQueue};

/// Runs until the executor is shut down and every response has been taken. However it ends, every request that is known gets
/// its final output, and later submissions are refused.
pub(super) fn run(executor: &dyn Executor, arrivals: &Arrivals, queues: &Queues) {
    let mut router = Router { executor, queue: &queues.shared, entries: HashMap::new(), outputs: Vec::new() };
    let failed = contained(|| router.serve(arrivals)).is_err();
    let (reason, message) = match failed {
        false => (EnqueueError::ShutDown, "the executor ended without ending the request"),
        true => {
            let problem = "its thread ended unexpectedly".to_owned();
            (EnqueueError::Failed { executor: "the session", problem }, "the session's thread ended unexpectedly")
        }
    };
    arrivals.close(&mut router.entries, reason);
    if failed {
        tracing::error!("{message}");
        // Its panic, too, would keep requests from their end.
        let _ = contained(|| executor.cancel_all());
    }
    // An executor that kept its promises has left none.
    for (id, mut entry) in std::mem::take(&mut router.entries) {
        if !entry.is_over() {
            let open = entry.first_open();
            let output = Output::error(id, open, message.to_owned(), entry.tag);
            let (outputs, entry) = (&mut router.outputs, &mut entry);
            let _ = contained(|| deliver(executor, &queues.shared, outputs, id, open, entry, output));
        }
        discard(entry.destination);
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
        let mut output = Output::new(response, entry.tag);
        let Taken { deliver: is_news, stopped } = entry.take(&mut output, now);
        let is_over = entry.is_over();
        match stopped {
            None => {}
            Some(_) if is_over => self.executor.cancel(id),
            Some(sequence_index) => self.executor.cancel_sequence(id, sequence_index),
        }
        let open = entry.first_open();
        if is_news && !deliver(self.executor, self.queue, &mut self.outputs, id, open, entry, output) {
            entry.end();
        }
        let is_over = entry.is_over();
        // A callback is dropped with its final output, even where the executor has not ended the request yet.
        if is_last_response {
            discard(occupied.remove().destination);
        } else if is_over {
            discard(std::mem::replace(&mut entry.destination, Destination::Nowhere));
        }
    }

    fn flush(&mut self) {
        self.queue.put(&mut self.outputs);
    }
}

/// Brings an output of request `id`, of whose sequences `open` is the first to go on, to its destination. `outputs` are on their way to `queue`. Whether the request goes on: it
/// ends where nobody wants its outputs any more.
#[inline]
fn deliver(
    executor: &dyn Executor,
    queue: &OutputQueue,
    outputs: &mut Vec<Output>,
    id: RequestId,
    open: usize,
    entry: &mut Entry,
    output: Output,
) -> bool {
    let is_last = output.response.is_final();
    let Entry { destination, hook, .. } = entry;
    let hook = hook.as_ref();
    if is_last {
        hook.inspect(|hook| hook.end());
    }
    let is_wanted = match destination {
        Destination::Session => {
            outputs.push(output);
            true
        }
        Destination::Queue(queue) => queue.put(&mut vec![output]),
        Destination::Callback(on_output) => {
            // Those who wait for outputs do not wait for a callback.
            queue.put(outputs);
            call(on_output, id, open, hook, output)
        }
        Destination::Nowhere => true,
    };
    if !is_wanted {
        discard(std::mem::replace(destination, Destination::Nowhere));
        if !is_last {
            executor.cancel(id);
        }
    }
    is_wanted
}

/// Calls a callback. If it fails, the request ends with what it says, which it is told; what panicked is not called again.
/// Nothing else ends.
fn call(
    on_output: &mut OutputCallback,
    id: RequestId,
    open: usize,
    hook: Option<&LogitsPostProcessor>,
    output: Output,
) -> bool {
    let (is_last, tag) = (output.response.is_final(), output.tag);
    let result = contained(|| on_output(output));
    if let (Ok(Err(message)), false) = (&result, is_last) {
        // What follows is the final output.
        hook.inspect(|hook| hook.end());
        let _ = contained(|| on_output(Output::error(id, open, message.clone(), tag)));
    }
    matches!(result, Ok(Ok(())))
}

/// Drops a destination. What a callback owns may panic as it is dropped.
fn discard(destination: Destination) {
    let _ = contained(|| drop(destination));
}
