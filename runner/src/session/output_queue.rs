//! Where outputs wait to be taken.
//!
//! A slow reader delays nobody. Beyond [`UNMERGED`] waiting outputs, a new one is appended to the last of its sequence. So no
//! more than `UNMERGED`, and one for each sequence and each request, ever wait.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};

use crate::executor::RequestId;

use super::Output;

/// Outputs that wait as they came; those of a host that keeps up are never merged.
const UNMERGED: usize = 4096;

/// What waiting for outputs led to.
#[derive(Debug, Clone, PartialEq)]
pub enum Awaited {
    /// At least one; those of a sequence in order, and a request's final one last.
    Outputs(Vec<Output>),
    /// None came in time.
    TimedOut,
    /// The session has ended and every output has been taken.
    Closed,
}

/// A queue of outputs. One lock, held for moves only.
#[derive(Debug, Default)]
pub struct OutputQueue {
    state: Mutex<State>,
    ready: Condvar,
}

#[derive(Debug, Default)]
struct State {
    outputs: Vec<Output>,
    /// Where the last waiting output of each sequence is; empty until outputs have to be merged. From then on every output is
    /// merged until all are taken: one that were only appended would be overtaken.
    last: HashMap<(RequestId, usize), usize>,
    closed: bool,
    abandoned: bool,
    /// For hosts that wait for descriptors. Its counter is above 0 while outputs wait, and from the end on.
    event: Option<OwnedFd>,
}

impl OutputQueue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds `outputs` and leaves none in it. Whether somebody may still take them.
    pub(super) fn put(&self, outputs: &mut Vec<Output>) -> bool {
        if outputs.is_empty() {
            return true;
        }
        let mut state = self.lock();
        if state.abandoned {
            drop(state);
            outputs.clear();
            return false;
        }
        if state.outputs.is_empty() {
            state.raise();
        }
        if state.last.is_empty() && state.outputs.len() + outputs.len() <= UNMERGED {
            state.outputs.append(outputs);
        } else {
            outputs.drain(..).for_each(|output| state.merge(output));
        }
        drop(state);
        self.ready.notify_one();
        true
    }

    /// No more will come.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        state.raise();
        drop(state);
        self.ready.notify_all();
    }

    /// Nobody takes outputs any more: those that wait are dropped, whoever waits is told that the queue is closed, and a request
    /// whose next output would go here is cancelled.
    pub fn abandon(&self) {
        let mut state = self.lock();
        state.abandoned = true;
        state.last.clear();
        let outputs = std::mem::take(&mut state.outputs);
        drop(state);
        drop(outputs);
        self.close();
    }

    /// A descriptor that is readable while outputs wait, and for ever once the queue is closed, for `poll` and `epoll`. It is the
    /// caller's, and another one of the same event at each call; it must not be read or written.
    ///
    /// # Errors
    /// The process has too many descriptors.
    pub fn event_fd(&self) -> io::Result<OwnedFd> {
        let mut state = self.lock();
        if state.event.is_none() {
            state.event = Some(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
            if state.closed || !state.outputs.is_empty() {
                state.raise();
            }
        }
        match &state.event {
            Some(event) => event.try_clone(),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Waits until there are outputs and takes all of them; without a limit where `timeout` is `None`. Several threads may
    /// wait: each output goes to one of them.
    pub fn take(&self, timeout: Option<Duration>) -> Awaited {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut state = self.lock();
        loop {
            if !state.outputs.is_empty() {
                state.last.clear();
                state.lower();
                return Awaited::Outputs(std::mem::take(&mut state.outputs));
            }
            if state.closed {
                return Awaited::Closed;
            }
            state = match deadline {
                None => self.ready.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Awaited::TimedOut;
                    }
                    self.ready.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

impl State {
    /// Makes the descriptor readable, where there is one.
    fn raise(&self) {
        if let Some(event) = &self.event {
            // Fails only where the counter is full, and the descriptor is readable then.
            let _ = rustix::io::write(event, &1_u64.to_ne_bytes());
        }
    }

    /// No outputs wait any more.
    fn lower(&self) {
        if let Some(event) = self.event.as_ref().filter(|_| !self.closed) {
            // Fails only where the counter is 0 already.
            let _ = rustix::io::read(event, &mut [0_u8; 8]);
        }
    }

    /// Adds an output to the last one of its sequence that waits. A request's final output stays behind all others of the
    /// request, so it is never added to an earlier one.
    fn merge(&mut self, output: Output) {
        if self.last.is_empty() {
            let sequences = self.outputs.iter().enumerate();
            self.last.extend(sequences.filter_map(|(index, waiting)| Some((waiting.sequence()?, index))));
        }
        let Some(sequence) = output.sequence().filter(|_| !output.response.is_final()) else {
            self.outputs.push(output);
            return;
        };
        match self.last.get(&sequence) {
            Some(&index) => self.outputs[index].append(output),
            None => {
                self.last.insert(sequence, self.outputs.len());
                self.outputs.push(output);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::{FinishReason, Response, TokenResult};

    fn output(request: u64, sequence: usize, token: u32, is_final: bool) -> Output {
        let result = TokenResult {
            output_token_ids: vec![token],
            is_sequence_final: is_final,
            ..TokenResult::ended(RequestId(request), sequence, FinishReason::Length, is_final)
        };
        Output { text: format!("{token},"), ..Output::new(Response::Result(result), request) }
    }

    fn tokens(outputs: &[Output], request: u64, sequence: usize) -> Vec<u32> {
        let of = outputs.iter().filter(|output| output.sequence() == Some((RequestId(request), sequence)));
        of.flat_map(|output| match &output.response {
            Response::Result(result) => result.output_token_ids.clone(),
            Response::Error { .. } => Vec::new(),
        })
        .collect()
    }

    #[test]
    fn outputs_that_nobody_takes_are_bounded_and_complete() {
        let (queue, sequences, length) = (OutputQueue::default(), 3, 2 * UNMERGED as u32);
        for token in 0..length {
            queue.put(&mut (0..sequences).map(|sequence| output(7, sequence, token, false)).collect());
        }
        queue.put(&mut vec![output(7, 1, length, true)]);
        let Awaited::Outputs(outputs) = queue.take(None) else { panic!("outputs wait") };
        assert!(outputs.len() <= UNMERGED + sequences + 1, "{} outputs wait", outputs.len());
        for sequence in 0..sequences {
            let end = length + u32::from(sequence == 1);
            assert_eq!(tokens(&outputs, 7, sequence), (0..end).collect::<Vec<_>>());
        }
        assert!(outputs.iter().rposition(|output| output.response.is_final()) == Some(outputs.len() - 1));
        let text: String =
            outputs.iter().filter(|o| o.sequence() == Some((RequestId(7), 0))).map(|o| &*o.text).collect();
        assert_eq!(text, (0..length).map(|token| format!("{token},")).collect::<String>());
        assert_eq!(queue.take(Some(Duration::ZERO)), Awaited::TimedOut);
        queue.put(&mut vec![output(8, 0, 1, true)]);
        queue.close();
        assert!(matches!(queue.take(None), Awaited::Outputs(_)));
        assert_eq!(queue.take(None), Awaited::Closed);
    }

    #[test]
    fn order_holds_whatever_the_batches() {
        let queue = OutputQueue::default();
        let mut next = [0_u32; 8];
        // Batches of every size, also small ones after the first that had to be merged.
        for round in 0..3 * UNMERGED {
            let sequences = if round % 7 < 3 { 8 } else { 1 + round % 3 };
            let mut batch = Vec::new();
            for (sequence, token) in next.iter_mut().enumerate().take(sequences) {
                batch.push(output(3, sequence, *token, false));
                *token += 1;
            }
            queue.put(&mut batch);
        }
        let Awaited::Outputs(outputs) = queue.take(None) else { panic!("outputs wait") };
        for (sequence, end) in next.into_iter().enumerate() {
            assert_eq!(tokens(&outputs, 3, sequence), (0..end).collect::<Vec<_>>());
        }
    }

    #[test]
    fn outputs_of_a_host_that_keeps_up_are_never_merged() {
        let queue = OutputQueue::default();
        for token in 0..UNMERGED as u32 {
            queue.put(&mut vec![output(1, 0, token, false)]);
        }
        let Awaited::Outputs(outputs) = queue.take(None) else { panic!("outputs wait") };
        assert_eq!(outputs.len(), UNMERGED);
    }
}
