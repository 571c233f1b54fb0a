//! A session's queues: the one that everybody shares, and those that somebody asked for. They end with the session.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::OutputQueue;

#[derive(Debug, Default)]
pub(super) struct Queues {
    pub(super) shared: OutputQueue,
    /// Queues of `new_queue`; they close with the session.
    others: Mutex<Others>,
}

#[derive(Debug, Default)]
struct Others {
    queues: Vec<Weak<OutputQueue>>,
    /// At this length dropped queues are removed. It doubles, so that each removal is paid for by as many additions.
    forget_at: usize,
    closed: bool,
}

impl Queues {
    pub(super) fn add(&self) -> Arc<OutputQueue> {
        let queue = Arc::new(OutputQueue::default());
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        if others.closed {
            queue.close();
            return queue;
        }
        if others.queues.len() >= others.forget_at {
            others.queues.retain(|queue| queue.strong_count() > 0);
            others.forget_at = 2 * others.queues.len() + 16;
        }
        others.queues.push(Arc::downgrade(&queue));
        queue
    }

    pub(super) fn close(&self) {
        self.shared.close();
        let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
        others.closed = true;
        others.queues.drain(..).filter_map(|queue| queue.upgrade()).for_each(|queue| queue.close());
    }
}
