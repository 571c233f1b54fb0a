//! What callers and the routing thread share, and that thread: it alone awaits TensorRT-LLM's responses.

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use trtllm_sys::gpu::{GpuError, GpuExecutor, GpuResponse, Responses};

use super::outbox::Outbox;
use crate::executor::{IterationStats, Load, RequestId, Response, Shutdown};

use super::route::Route;
use super::scoring::{Held, Scores, Scoring};
use super::stats::to_stats;
use super::watchdog::{alive, watch};

/// How long one wait for responses takes at most, in milliseconds: how soon a stall or a deadline is noticed. Responses end it
/// early, and nothing waits while there are no requests.
const AWAIT_MS: u64 = 200;

/// The executor and its requests.
pub(super) struct Shared {
    pub(super) gpu: GpuExecutor,
    pub(super) outbox: Outbox<Response>,
    /// Held from the making of responses to their delivery, so that nothing of a sequence comes after its end. Taken before
    /// `state`, which whoever enqueues needs and which is not held while delivering.
    delivery: Mutex<()>,
    state: Mutex<State>,
    stats: Mutex<Stats>,
    /// A request came, or the end.
    changed: Condvar,
    max_stats: usize,
    pub(super) stall_timeout: Duration,
    pub(super) shutdown_timeout: Duration,
}

/// Under one lock, which is held while a request is handed over, so that its first response finds its route.
pub(super) struct State {
    pub(super) routes: HashMap<u64, Route>,
    /// Since when no more requests are taken, and what happens to those that there are.
    pub(super) closing: Option<(Shutdown, Instant)>,
    /// Why no more requests can be taken.
    pub(super) failed: Option<String>,
    /// When TensorRT-LLM last gave a sign of life, or got its first request.
    pub(super) heard: Instant,
    /// The last iteration that is known.
    iter: Option<u64>,
    /// Why no requests are taken until it gives a sign of life again.
    pub(super) stalled: Option<String>,
}

/// Statistics that were taken from TensorRT-LLM, which gives each once.
#[derive(Default)]
struct Stats {
    untold: VecDeque<IterationStats>,
    latest: Option<IterationStats>,
}

impl Shared {
    pub(super) fn new(gpu: GpuExecutor, max_stats: usize, stall_timeout: Duration, shutdown_timeout: Duration) -> Self {
        let (routes, heard) = (HashMap::new(), Instant::now());
        let state = State { routes, closing: None, failed: None, heard, iter: None, stalled: None };
        let (state, changed) = (Mutex::new(state), Condvar::new());
        let (outbox, stats) = (Outbox::default(), Mutex::default());
        let delivery = Mutex::default();
        Self { gpu, outbox, delivery, state, stats, changed, max_stats, stall_timeout, shutdown_timeout }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn delivery(&self) -> MutexGuard<'_, ()> {
        self.delivery.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// After a request was added.
    pub(super) fn wake(&self) {
        self.changed.notify_all();
    }

    /// Asks for a request's end.
    pub(super) fn cancel(&self, id: u64) {
        self.change(id, Route::cancel);
    }

    /// Ends a sequence for its client, and asks for the request's end with the last one.
    pub(super) fn cancel_sequence(&self, id: u64, index: usize) {
        self.change(id, |route, id, responses| route.cancel_sequence(id, index, responses));
    }

    /// Lets `change` at a request; where it says so, TensorRT-LLM is asked for the request's end.
    fn change(&self, id: u64, change: impl FnOnce(&mut Route, RequestId, &mut Vec<Response>) -> bool) {
        let mut responses = Vec::new();
        let _delivery = self.delivery();
        let mut state = self.lock();
        let may_cancel = state.routes.get_mut(&id).is_some_and(|route| change(route, RequestId(id), &mut responses));
        drop(state);
        self.outbox.put(&mut responses);
        if may_cancel {
            self.ask_for_end(id);
        }
    }

    pub(super) fn ask_for_end(&self, id: u64) {
        if let Err(error) = self.gpu.cancel(id) {
            tracing::warn!("request {id} cannot be cancelled and runs on: {error}");
        }
    }

    /// Takes no more requests; with [`Shutdown::Cancel`] asks for the end of all.
    pub(super) fn close(&self, how: Shutdown) {
        let mut state = self.lock();
        if !matches!(state.closing, Some((Shutdown::Cancel, _))) && (state.closing.is_none() || how == Shutdown::Cancel)
        {
            state.closing = Some((how, Instant::now()));
        }
        let ids: Vec<_> = state.routes.keys().copied().filter(|_| how == Shutdown::Cancel).collect();
        drop(state);
        self.wake();
        ids.into_iter().for_each(|id| self.cancel(id));
    }

    /// The statistics of iterations since the last call.
    pub(super) fn take_stats(&self) -> Vec<IterationStats> {
        let mut stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        if let Err(error) = self.fetch(&mut stats) {
            tracing::warn!("no statistics: {error}");
        }
        stats.untold.drain(..).collect()
    }

    /// The last iteration that statistics tell of; `None` where none do.
    fn latest_iteration(&self) -> Option<u64> {
        let mut stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        // Without statistics responses are the only sign of life.
        let _ = self.fetch(&mut stats);
        stats.latest.as_ref().map(|latest| latest.iter)
    }

    /// The size of a KV-cache block; 0 while TensorRT-LLM's statistics have not told it.
    fn tokens_per_block(&self) -> usize {
        let mut stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        if stats.latest.is_none() {
            // Without statistics it stays unknown.
            let _ = self.fetch(&mut stats);
        }
        stats.latest.as_ref().map_or(0, |latest| latest.kv_cache.tokens_per_block)
    }

    /// How busy TensorRT-LLM is: requests as they are here, the rest from its latest statistics.
    pub(super) fn load(&self) -> Load {
        let outstanding = self.lock().routes.len();
        let mut stats = self.stats.lock().unwrap_or_else(PoisonError::into_inner);
        // Without new ones the load is that of the latest.
        let _ = self.fetch(&mut stats);
        let Some(latest) = &stats.latest else {
            return Load { num_active_requests: outstanding, ..Load::default() };
        };
        let kv_cache = latest.kv_cache;
        // The latest iteration may have ended the last request, and no later one tells that its blocks are free.
        let used_num_blocks = if outstanding == 0 { 0 } else { kv_cache.used_num_blocks };
        let num_queued_requests = latest.num_queued_requests.min(outstanding);
        Load {
            num_queued_requests,
            num_active_requests: outstanding - num_queued_requests,
            used_num_blocks,
            free_num_blocks: kv_cache.max_num_blocks.saturating_sub(used_num_blocks),
            max_num_blocks: kv_cache.max_num_blocks,
            last_iteration: latest.iter_latency,
        }
    }

    /// Takes what statistics TensorRT-LLM has; waits for no iteration.
    fn fetch(&self, stats: &mut Stats) -> Result<(), GpuError> {
        stats.untold.extend(self.gpu.iteration_stats()?.iter().map(to_stats));
        if let Some(latest) = stats.untold.back() {
            stats.latest = Some(latest.clone());
        }
        let surplus = stats.untold.len().saturating_sub(self.max_stats);
        stats.untold.drain(..surplus);
        Ok(())
    }

    /// Ends every request with an error, for good.
    pub(super) fn fail(&self, state: &mut State, message: &str, responses: &mut Vec<Response>) {
        tracing::error!("{message}");
        for (id, mut route) in state.routes.drain() {
            route.fail(RequestId(id), message.to_owned(), responses);
        }
        state.failed = Some(message.to_owned());
    }
}

/// Routes responses until the executor was shut down and every request has ended; then closes it.
pub(super) fn run(shared: &Shared) {
    /// Closes the outbox, also when this thread panics.
    struct ClosesOutbox<'a>(&'a Outbox<Response>);
    impl Drop for ClosesOutbox<'_> {
        fn drop(&mut self) {
            self.0.close();
        }
    }
    let closes_outbox = ClosesOutbox(&shared.outbox);
    std::thread::scope(|scope| serve(shared, &Scoring::start(scope, shared)));
    let has_failed = shared.lock().failed.is_some();
    drop(closes_outbox);
    if has_failed {
        // Closing would wait for requests that may never end.
        tracing::warn!("TensorRT-LLM's executor is left running: it failed before");
    } else if let Err(error) = shared.gpu.close() {
        tracing::warn!("TensorRT-LLM's executor did not end in order: {error}");
    }
}

fn serve(shared: &Shared, scoring: &Scoring<'_>) {
    loop {
        let mut state = shared.lock();
        while state.routes.is_empty() && state.closing.is_none() {
            state = shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.routes.is_empty() {
            return;
        }
        drop(state);
        let awaited = shared.gpu.await_responses(AWAIT_MS);
        let iter = if matches!(awaited, Ok(None)) { shared.latest_iteration() } else { None };
        let (mut responses, mut unwanted, mut held) = (Vec::new(), Vec::new(), Held::default());
        let delivery = shared.delivery();
        let mut state = shared.lock();
        if matches!(awaited, Ok(Some(_))) || iter.is_some() && iter != state.iter {
            unwanted = alive(&mut state);
        }
        state.iter = iter.or(state.iter);
        match &awaited {
            Ok(Some(batch)) => unwanted.extend(route(shared, &mut state, batch, &mut held, &mut responses)),
            Ok(None) => {}
            Err(error) => {
                shared.fail(&mut state, &format!("responses cannot be awaited: {error}"), &mut responses);
            }
        }
        watch(shared, &mut state, &mut responses);
        drop(state);
        shared.outbox.put(&mut responses);
        drop(delivery);
        unwanted.into_iter().for_each(|id| shared.ask_for_end(id));
        if let Ok(Some(batch)) = awaited {
            scoring.send(batch, held);
        }
    }
}

/// Routes a batch, but for what has to be scored or waits behind that, which goes to `held`. Tells the requests that are over for
/// their clients, while TensorRT-LLM still works on them.
fn route(
    shared: &Shared,
    state: &mut State,
    batch: &Responses,
    held: &mut Held,
    responses: &mut Vec<Response>,
) -> Vec<u64> {
    let mut unwanted = Vec::new();
    for (place, response) in batch.iter().enumerate() {
        let lane = state.routes.get_mut(&response.request_id).and_then(|route| route.holds(&response.result));
        if let Some(lane) = lane {
            held.put(lane, place);
        } else if route_one(shared, state, &response, Ok(Scores::default()), responses) {
            unwanted.push(response.request_id);
        }
    }
    unwanted
}

/// Routes one response, with what was scored of it; whether its request is over for its client while TensorRT-LLM works on.
pub(super) fn route_one(
    shared: &Shared,
    state: &mut State,
    response: &GpuResponse<'_>,
    scores: Result<Scores, String>,
    responses: &mut Vec<Response>,
) -> bool {
    let Some(route) = state.routes.get_mut(&response.request_id) else { return false };
    let id = RequestId(response.request_id);
    let was_over = route.is_over;
    let is_done = match &response.result {
        Ok(result) => route.take(id, result, scores, || shared.tokens_per_block(), responses),
        Err(failure) => {
            route.fail(id, format!("TensorRT-LLM: {}", failure.message), responses);
            failure.is_final
        }
    };
    let is_unwanted = route.is_over && !was_over && route.may_cancel();
    if is_done {
        state.routes.remove(&response.request_id);
    }
    is_unwanted && !is_done
}
