//! What callers and the owner thread share: requests on their way in, responses on their way out.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::executor::{
    EnqueueError, ExecutorConfig, FinishReason, IterationStats, KvCacheStats, Load, Request, RequestId, Response,
    Shutdown, TokenResult,
};

use text::guide::Guide;

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
    arrived: VecDeque<Arrival>,
    /// Requests that the owner has and that have not ended.
    live: HashSet<RequestId>,
    cancelled: HashMap<RequestId, Cancellation>,
    /// Requests that the owner has and that wait there.
    waiting: usize,
    kv_cache: KvCacheStats,
    last_iteration: Duration,
    responses: VecDeque<Response>,
    stats: VecDeque<IterationStats>,
    closed: bool,
    owner_gone: bool,
}

/// A request on its way to the owner.
#[derive(Debug)]
pub(super) struct Arrival {
    pub id: RequestId,
    pub request: Request,
    pub guide: Option<Guide>,
    pub since: Instant,
}

/// What has happened since the owner last looked.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub arrived: VecDeque<Arrival>,
    pub cancelled: HashMap<RequestId, Cancellation>,
}

/// What of a request is to end.
#[derive(Debug)]
pub(super) enum Cancellation {
    /// All of it.
    Request,
    /// Sequences, by their index.
    Sequences(BTreeSet<usize>),
}

impl Queue {
    /// An empty queue; `kv_cache` is the state of the cache before the first request.
    pub(super) fn new(config: &ExecutorConfig, kv_cache: KvCacheStats) -> Self {
        Self {
            state: Mutex::new(State { kv_cache, ..State::default() }),
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

    pub(super) fn enqueue(&self, request: Request, guide: Option<Guide>) -> Result<RequestId, EnqueueError> {
        let mut state = self.lock();
        if state.closed {
            return Err(EnqueueError::ShutDown);
        }
        if state.owner_gone {
            let problem = "its owner thread ended unexpectedly".to_owned();
            return Err(EnqueueError::Failed { executor: "the CPU executor", problem });
        }
        if state.arrived.len() + state.waiting >= self.max_queue_size {
            return Err(EnqueueError::QueueFull { max_queue_size: self.max_queue_size });
        }
        let id = RequestId(state.next_id);
        state.next_id += 1;
        state.arrived.push_back(Arrival { id, request, guide, since: Instant::now() });
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
        if let Some(position) = state.arrived.iter().position(|arrival| arrival.id == id) {
            let arrival = state.arrived.remove(position);
            state.responses.extend(arrival.iter().flat_map(cancelled));
            self.responses_ready.notify_all();
        } else if state.live.contains(&id) {
            state.cancelled.insert(id, Cancellation::Request);
            self.work_arrived.notify_one();
        }
    }

    pub(super) fn cancel_sequence(&self, id: RequestId, sequence_index: usize) {
        let mut state = self.lock();
        // One that has not been taken is left to the owner too: it alone knows sequences.
        if !state.live.contains(&id) && !state.arrived.iter().any(|arrival| arrival.id == id) {
            return;
        }
        let cancellation = state.cancelled.entry(id).or_insert_with(|| Cancellation::Sequences(BTreeSet::new()));
        if let Cancellation::Sequences(indices) = cancellation {
            indices.insert(sequence_index);
        }
        self.work_arrived.notify_one();
    }

    pub(super) fn load(&self) -> Load {
        let state = self.lock();
        Load {
            num_queued_requests: state.arrived.len() + state.waiting,
            num_active_requests: state.live.len() - state.waiting,
            used_num_blocks: state.kv_cache.used_num_blocks,
            free_num_blocks: state.kv_cache.free_num_blocks,
            max_num_blocks: state.kv_cache.max_num_blocks,
            last_iteration: state.last_iteration,
        }
    }

    pub(super) fn close(&self, how: Shutdown) {
        let mut state = self.lock();
        state.closed = true;
        if how == Shutdown::Cancel {
            let arrived = std::mem::take(&mut state.arrived);
            state.responses.extend(arrived.iter().flat_map(cancelled));
            let live: Vec<_> = state.live.iter().map(|&id| (id, Cancellation::Request)).collect();
            state.cancelled.extend(live);
        }
        self.work_arrived.notify_all();
        self.responses_ready.notify_all();
    }

    pub(super) fn take_stats(&self) -> Vec<IterationStats> {
        self.lock().stats.drain(..).collect()
    }

    /// The owner's: what has happened; where the owner is `idle`, waits until something has. `None` when the queue is
    /// closed and nothing is left to do.
    pub(super) fn look(&self, idle: bool) -> Option<Inbox> {
        let mut state = self.lock();
        while idle && state.arrived.is_empty() {
            if state.closed {
                return None;
            }
            state = self.work_arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let arrived = std::mem::take(&mut state.arrived);
        state.waiting += arrived.len();
        state.live.extend(arrived.iter().map(|arrival| arrival.id));
        Some(Inbox { arrived, cancelled: std::mem::take(&mut state.cancelled) })
    }

    /// The owner's: delivers the responses of an iteration; `waiting` requests wait still, and `kv_cache` is the cache now.
    pub(super) fn deliver(
        &self,
        responses: &mut Vec<Response>,
        waiting: usize,
        kv_cache: KvCacheStats,
        stats: Option<IterationStats>,
    ) {
        let mut state = self.lock();
        for response in responses.iter().filter(|response| response.is_final()) {
            state.live.remove(&response.request_id());
            state.cancelled.remove(&response.request_id());
        }
        state.waiting = waiting;
        state.kv_cache = kv_cache;
        if let Some(stats) = &stats {
            state.last_iteration = stats.iter_latency;
        }
        if let Some(stats) = stats.filter(|_| self.max_stats > 0) {
            if state.stats.len() == self.max_stats {
                state.stats.pop_front();
            }
            state.stats.push_back(stats);
        }
        if !responses.is_empty() {
            state.responses.extend(responses.drain(..));
            self.responses_ready.notify_all();
        }
    }

    /// The owner's last act, also when it panics: nobody is left waiting.
    pub(super) fn owner_is_gone(&self) {
        if std::thread::panicking() {
            tracing::error!("the CPU executor's owner thread ended unexpectedly");
        }
        let mut state = self.lock();
        state.owner_gone = true;
        let arrived: Vec<_> = state.arrived.drain(..).map(|arrival| arrival.id).collect();
        let live: Vec<_> = state.live.drain().collect();
        state.waiting = 0;
        for request_id in live.into_iter().chain(arrived) {
            let message = "the executor's owner thread ended unexpectedly".to_owned();
            state.responses.push_back(Response::Error { request_id, message });
        }
        self.responses_ready.notify_all();
    }
}

/// The responses of a request that was cancelled while it waited: one for each sequence.
fn cancelled(arrival: &Arrival) -> impl Iterator<Item = Response> {
    let spec = arrival.request.spec();
    let (request_id, sequences) = (arrival.id, spec.sampling.num_return_sequences);
    let wants_metrics = spec.output.return_perf_metrics;
    (0..sequences).map(move |sequence_index| {
        let is_final = sequence_index + 1 == sequences;
        let mut result = TokenResult::ended(request_id, sequence_index, FinishReason::Cancelled, is_final);
        result.perf_metrics = (is_final && wants_metrics).then(Box::default);
        Response::Result(result)
    })
}
