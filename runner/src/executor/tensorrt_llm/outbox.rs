//! The responses that wait to be taken.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What waiting led to.
pub(super) enum Taken<T> {
    /// At least one, in order.
    Items(Vec<T>),
    /// None came in time.
    TimedOut,
    /// No more will come, and every one has been taken.
    Closed,
}

/// The queue. One lock, held for moves only.
#[derive(Debug)]
pub(super) struct Outbox<T> {
    state: Mutex<State<T>>,
    ready: Condvar,
}

#[derive(Debug)]
struct State<T> {
    items: Vec<T>,
    closed: bool,
}

impl<T> Default for Outbox<T> {
    fn default() -> Self {
        Self { state: Mutex::new(State { items: Vec::new(), closed: false }), ready: Condvar::new() }
    }
}

impl<T> Outbox<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds `items` and leaves none in it.
    pub(super) fn put(&self, items: &mut Vec<T>) {
        if !items.is_empty() {
            self.lock().items.append(items);
            self.ready.notify_one();
        }
    }

    /// No more will come.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.ready.notify_all();
    }

    /// Waits until there is something and takes all of it; without a limit where `timeout` is `None`.
    pub(super) fn take(&self, timeout: Option<Duration>) -> Taken<T> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut state = self.lock();
        loop {
            if !state.items.is_empty() {
                return Taken::Items(std::mem::take(&mut state.items));
            }
            if state.closed {
                return Taken::Closed;
            }
            state = match deadline {
                None => self.ready.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Taken::TimedOut;
                    }
                    self.ready.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}
