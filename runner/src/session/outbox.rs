//! Outputs that wait to be taken.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Output;

/// What waiting for outputs led to.
#[derive(Debug, Clone, PartialEq)]
pub enum Awaited {
    /// At least one, in order.
    Outputs(Vec<Output>),
    /// None came in time.
    TimedOut,
    /// The session was shut down and every output has been taken.
    Closed,
}

/// The queue of outputs. One lock, held for moves only.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    ready: Condvar,
}

#[derive(Debug, Default)]
struct State {
    outputs: Vec<Output>,
    closed: bool,
}

impl Outbox {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds outputs and leaves `outputs` empty.
    pub(super) fn put(&self, outputs: &mut Vec<Output>) {
        if !outputs.is_empty() {
            self.lock().outputs.append(outputs);
            self.ready.notify_one();
        }
    }

    /// No more outputs will come.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.ready.notify_all();
    }

    pub(super) fn take(&self, timeout: Option<Duration>) -> Awaited {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut state = self.lock();
        loop {
            if !state.outputs.is_empty() {
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
