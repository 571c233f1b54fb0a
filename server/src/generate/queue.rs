//! Requests that wait in the executor's queue, given up when they have waited too long: a long queue hides from its callers that the
//! server is overloaded.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::error::ApiError;

use super::cell::Cell;

/// Requests that had no token when they were last looked at, in the order in which they came.
#[derive(Debug, Default)]
pub struct Queue(Mutex<VecDeque<Waiting>>);

#[derive(Debug)]
struct Waiting {
    cell: Weak<Cell>,
    prompt: usize,
    since: Instant,
}

impl Queue {
    /// Notes a request, which is submitted now.
    pub fn note(&self, cell: &Arc<Cell>, prompt: usize, since: Instant) {
        let waiting = Waiting { cell: Arc::downgrade(cell), prompt, since };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(waiting);
    }

    /// Gives up those that have waited for more than `longest`. Of those without a token, the executor works on all but the last
    /// `queued`; where priorities differ, that is an estimate.
    pub fn shed(&self, queued: usize, longest: Duration, refusal: impl Fn() -> ApiError) -> usize {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.retain(|one| one.cell.upgrade().is_some_and(|cell| cell.waits(one.prompt)));
        let worked_on = waiting.len().saturating_sub(queued);
        let late = waiting.iter().skip(worked_on).filter(|one| one.since.elapsed() > longest);
        late.filter_map(|one| one.cell.upgrade()).map(|cell| cell.fail(refusal())).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::generate::cell::Failure;

    #[test]
    fn those_that_wait_are_given_up_and_not_those_that_are_worked_on() {
        let queue = Queue::default();
        let cells: Vec<_> = (0..3).map(|_| Cell::new(1, 1)).collect();
        for cell in &cells {
            queue.note(cell, 0, Instant::now());
        }
        let refusal = || ApiError::overloaded("queue_full", "late", 1);
        let given_up = || -> Vec<_> { cells.iter().map(|cell| cell.summary().failure.is_some()).collect() };
        assert_eq!(queue.shed(2, Duration::from_secs(1000), refusal), 0);
        assert_eq!((queue.shed(1, Duration::ZERO, refusal), given_up()), (1, vec![false, false, true]));
        assert_eq!((queue.shed(1, Duration::ZERO, refusal), given_up()), (1, vec![false, true, true]));
        assert_eq!(cells[1].summary().failure, Some(Failure::Refused(refusal())));
        assert_eq!(queue.shed(0, Duration::ZERO, refusal), 0);
        drop(cells);
        queue.shed(0, Duration::ZERO, refusal);
        assert!(queue.0.lock().unwrap().is_empty());
    }
}
