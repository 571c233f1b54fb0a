//! Where guides are compiled: on threads of their own, a few at a time, and not for longer than a deadline.
//!
//! What of their large stacks is not touched costs nothing. One that is late cannot be stopped: it runs
//! out unheard, and counts among the few until it has, so that late ones never take more than [`AT_ONCE`] cores.

use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Threads that compile at once.
const AT_ONCE: usize = 4;

/// What follows the references of a grammar by recursion. The longest chains that [`source`](super::source) lets through were
/// seen to do with an eighth of this stack.
const STACK: usize = 256 << 20;

/// The threads that compile.
#[derive(Debug, Default)]
pub(super) struct Workers {
    running: Mutex<usize>,
    ended: Condvar,
}

/// A thread among the few, until it ends.
struct Place(Arc<Workers>);

impl Drop for Place {
    fn drop(&mut self) {
        *self.0.running.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.ended.notify_one();
    }
}

impl Workers {
    /// Runs `run` on a thread of its own, and waits for it until `limit` is over.
    pub(super) fn run<T: Send + 'static>(
        self: &Arc<Self>,
        limit: Duration,
        run: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, String> {
        let late = || format!("compiling it takes longer than {} s; simplify it", limit.as_secs_f32());
        let deadline = Instant::now() + limit;
        let left = || deadline.saturating_duration_since(Instant::now());
        let place = self.place(deadline).ok_or_else(late)?;
        let (sender, receiver) = sync_channel(1);
        let thread = system::threads::spawn_on_stack("trtllm-guide", STACK, move || {
            let compiled = run();
            drop(place);
            // Nobody waits any more where it was late.
            let _ = sender.send(compiled);
        });
        thread.map_err(|error| format!("no thread can be started to compile it: {error}"))?;
        receiver.recv_timeout(left()).map_err(|error| match error {
            RecvTimeoutError::Timeout => late(),
            RecvTimeoutError::Disconnected => "the thread that compiled it ended early".to_owned(),
        })
    }

    /// A place among the few, as soon as there is one; `None` where there is none in time.
    fn place(self: &Arc<Self>, deadline: Instant) -> Option<Place> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            if *running < AT_ONCE {
                *running += 1;
                return Some(Place(self.clone()));
            }
            running = self.ended.wait_timeout(running, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
