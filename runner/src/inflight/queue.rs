//! What callers and the owner thread share: requests on their way in, responses on their way out.

use std::collections::{HashSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::executor::{
    EnqueueError, ExecutorConfig, FinishReason, IterationStats, Request, RequestId, Response, Shutdown, TokenResult,
};

/// The shared queue. One lock, held for moves only; one condition for each side that waits.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    work_arrived: Condvar,
    responses_ready: Condvar,
    max_queue_size: usize,
    max_stats: usize,
}

#[derive(Debug, Default)]
struct State {
    next_id: u64,
    waiting: VecDeque<(RequestId, Request)>,
    active: HashSet<RequestId>,
    cancelled: HashSet<RequestId>,
    responses: VecDeque<Response>,
    stats: VecDeque<IterationStats>,
    closed: bool,
    owner_gone: bool,
}

impl Queue {
    pub(super) fn new(config: &ExecutorConfig) -> Self {
        Self {
            state: Mutex::default(),
            work_arrived: Condvar::new(),
            responses_ready: Condvar::new(),
            max_queue_size: config.max_queue_size,
            max_stats: config.iter_stats_max_iterations,
        }
    }

    /// The state. A panic elsewhere cannot leave it half-changed: each critical section only moves values.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn enqueue(&self, request: Request) -> Result<RequestId, EnqueueError> {
        let mut state = self.lock();
        if state.closed || state.owner_gone {
            return Err(EnqueueError::ShutDown);
        }
        if state.waiting.len() >= self.max_queue_size {
            return Err(EnqueueError::QueueFull { max_queue_size: self.max_queue_size });
        }
        let id = RequestId(state.next_id);
        state.next_id += 1;
        state.waiting.push_back((id, request));
        self.work_arrived.notify_one();
        Ok(id)
    }

    pub(super) fn await_responses(&self, timeout: Option<Duration>) -> Vec<Response> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut state = self.lock();
        while state.responses.is_empty() && !state.owner_gone {
            state = match deadline {
                None => self.responses_ready.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        break;
                    }
                    self.responses_ready.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        state.responses.drain(..).collect()
    }

    pub(super) fn cancel(&self, id: RequestId) {
        let mut state = self.lock();
        if let Some(position) = state.waiting.iter().position(|&(waiting, _)| waiting == id) {
            state.waiting.remove(position);
            state.responses.push_back(cancelled(id));
            self.responses_ready.notify_all();
        } else if state.active.contains(&id) {
            state.cancelled.insert(id);
        }
    }

    pub(super) fn close(&self, how: Shutdown) {
        let mut state = self.lock();
        state.closed = true;
        if how == Shutdown::Cancel {
            let waiting: Vec<_> = state.waiting.drain(..).map(|(id, _)| cancelled(id)).collect();
            state.responses.extend(waiting);
            let active: Vec<_> = state.active.iter().copied().collect();
            state.cancelled.extend(active);
        }
        self.work_arrived.notify_all();
        self.responses_ready.notify_all();
    }

    pub(super) fn take_stats(&self) -> Vec<IterationStats> {
        self.lock().stats.drain(..).collect()
    }

    /// The owner's: waits for the next request and marks it active; `None` when the queue is closed and empty.
    pub(super) fn next(&self) -> Option<(RequestId, Request)> {
        let mut state = self.lock();
        loop {
            if let Some((id, request)) = state.waiting.pop_front() {
                state.active.insert(id);
                return Some((id, request));
            }
            if state.closed {
                return None;
            }
            state = self.work_arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The owner's: whether an active request is to be ended.
    pub(super) fn is_cancelled(&self, id: RequestId) -> bool {
        self.lock().cancelled.contains(&id)
    }

    /// The owner's: requests that wait.
    pub(super) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// The owner's: delivers a response.
    pub(super) fn respond(&self, response: Response) {
        let mut state = self.lock();
        if response.is_final() {
            state.active.remove(&response.request_id());
            state.cancelled.remove(&response.request_id());
        }
        state.responses.push_back(response);
        self.responses_ready.notify_all();
    }

    /// The owner's: records an iteration.
    pub(super) fn record(&self, stats: IterationStats) {
        if self.max_stats == 0 {
            return;
        }
        let mut state = self.lock();
        if state.stats.len() == self.max_stats {
            state.stats.pop_front();
        }
        state.stats.push_back(stats);
    }

    /// The owner's last act, also when it panics: nobody is left waiting.
    pub(super) fn owner_is_gone(&self) {
        let mut state = self.lock();
        state.owner_gone = true;
        let waiting: Vec<_> = state.waiting.drain(..).map(|(id, _)| id).collect();
        let active: Vec<_> = state.active.drain().collect();
        for request_id in active.into_iter().chain(waiting) {
            let message = "the executor's owner thread ended unexpectedly".to_owned();
            state.responses.push_back(Response::Error { request_id, message });
        }
        self.responses_ready.notify_all();
    }
}

/// The only response of a request that was cancelled while it waited.
fn cancelled(request_id: RequestId) -> Response {
    Response::Result(TokenResult {
        request_id,
        sequence_index: 0,
        output_token_ids: Vec::new(),
        log_probs: None,
        prompt_log_probs: None,
        top_log_probs: None,
        cum_log_prob: None,
        finish_reason: Some(FinishReason::Cancelled),
        is_sequence_final: true,
        is_final: true,
    })
}
