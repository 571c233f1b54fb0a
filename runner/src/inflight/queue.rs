//! What callers and the owner thread share: requests on their way in, responses on their way out.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::executor::{
    EnqueueError, ExecutorConfig, FinishReason, IterationStats, KvCacheStats, Load, Request, RequestId, RequestSpec,
    Response, Shutdown, TokenResult,
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
    /// Requests that the owner has not looked at, in their order.
    arrived: BTreeMap<RequestId, Arrival>,
    /// Those of them that have an allotted time, by its end.
    deadlines: BTreeSet<(Instant, RequestId)>,
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
    pub deadline: Option<Instant>,
}

/// What has happened since the owner last looked.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub arrived: Vec<Arrival>,
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

    /// Whether a request would be taken now: asked before work is done for one.
    pub(super) fn check_open(&self) -> Result<(), EnqueueError> {
        self.check(&self.lock())
    }

    fn check(&self, state: &State) -> Result<(), EnqueueError> {
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
        Ok(())
    }

    pub(super) fn enqueue(&self, request: Request, guide: Option<Guide>) -> Result<RequestId, EnqueueError> {
        let mut state = self.lock();
        self.check(&state)?;
        let id = RequestId(state.next_id);
        state.next_id += 1;
        let since = Instant::now();
        let deadline = request.spec().allotted_time.and_then(|time| since.checked_add(time));
        state.deadlines.extend(deadline.map(|deadline| (deadline, id)));
        state.arrived.insert(id, Arrival { id, request, guide, since, deadline });
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
        if state.end_arrived(id, FinishReason::Cancelled) {
            self.responses_ready.notify_all();
        } else if state.live.contains(&id) {
            state.cancelled.insert(id, Cancellation::Request);
            self.work_arrived.notify_one();
        }
    }

    pub(super) fn cancel_sequence(&self, id: RequestId, sequence_index: usize) {
        let mut state = self.lock();
        // One that has not been taken is left to the owner too: it alone knows sequences.
        if !state.live.contains(&id) && !state.arrived.contains_key(&id) {
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
            while let Some((&id, _)) = state.arrived.first_key_value() {
                state.end_arrived(id, FinishReason::Cancelled);
            }
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
        state.deadlines.clear();
        let arrived: Vec<_> = std::mem::take(&mut state.arrived).into_values().collect();
        state.waiting += arrived.len();
        state.live.extend(arrived.iter().map(|arrival| arrival.id));
        Some(Inbox { arrived, cancelled: std::mem::take(&mut state.cancelled) })
    }

    /// The owner's, during an iteration: what of the requests that it has is to end. Those that it has not looked at end here
    /// when their time is over.
    pub(super) fn hear(&self, now: Instant) -> HashMap<RequestId, Cancellation> {
        let mut state = self.lock();
        while let Some(&(_, id)) = state.deadlines.first().filter(|(deadline, _)| *deadline <= now) {
            state.end_arrived(id, FinishReason::TimedOut);
            self.responses_ready.notify_all();
        }
        let cancelled = std::mem::take(&mut state.cancelled);
        let (heard, later) = cancelled.into_iter().partition(|(id, _)| state.live.contains(id));
        state.cancelled = later;
        heard
    }

    /// The owner's: notes the iteration that just ended, and that `kv_cache` is the cache now.
    pub(super) fn note(&self, kv_cache: KvCacheStats, stats: Option<IterationStats>) {
        let mut state = self.lock();
        state.kv_cache = kv_cache;
        let Some(stats) = stats else { return };
        state.last_iteration = stats.iter_latency;
        if self.max_stats > 0 {
            if state.stats.len() == self.max_stats {
                state.stats.pop_front();
            }
            state.stats.push_back(stats);
        }
    }

    /// The owner's: delivers responses; `waiting` requests wait still.
    pub(super) fn deliver(&self, responses: &mut Vec<Response>, waiting: usize) {
        let mut state = self.lock();
        for response in responses.iter().filter(|response| response.is_final()) {
            state.live.remove(&response.request_id());
            state.cancelled.remove(&response.request_id());
        }
        state.waiting = waiting;
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
        let arrived = std::mem::take(&mut state.arrived).into_keys();
        let live: Vec<_> = state.live.drain().collect();
        state.waiting = 0;
        for request_id in live.into_iter().chain(arrived) {
            let message = "the executor's owner thread ended unexpectedly".to_owned();
            state.responses.push_back(Response::Error { request_id, message });
        }
        self.responses_ready.notify_all();
    }
}

impl State {
    /// Ends a request that the owner has not looked at, with a response for each of its sequences; whether there is one.
    fn end_arrived(&mut self, id: RequestId, reason: FinishReason) -> bool {
        let Some(Arrival { request, deadline, .. }) = self.arrived.remove(&id) else { return false };
        if let Some(deadline) = deadline {
            self.deadlines.remove(&(deadline, id));
        }
        self.cancelled.remove(&id);
        self.responses.extend(ended(id, request.spec(), reason));
        true
    }
}

/// The responses to a request for which nothing was computed: one for each sequence.
pub(super) fn ended(id: RequestId, spec: &RequestSpec, reason: FinishReason) -> impl Iterator<Item = Response> {
    let sequences = spec.sampling.num_return_sequences;
    let wants_metrics = spec.output.return_perf_metrics;
    (0..sequences).map(move |sequence_index| {
        let is_final = sequence_index + 1 == sequences;
        let mut result = TokenResult::ended(id, sequence_index, reason, is_final);
        result.perf_metrics = (is_final && wants_metrics).then(Box::default);
        Response::Result(result)
    })
}
