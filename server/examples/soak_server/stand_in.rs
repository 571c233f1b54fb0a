//! A stand-in for an executor: tokens that a script says, at a given pace or for nothing. It measures what is above an executor, and
//! nothing of any model.
//!
//! Tokens are made by the thread that takes them, at some 40 ns each.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use runner::executor::{
    EnqueueError, Executor, FinishReason, IterationStats, Limits, Load, PerfMetrics, Request, RequestId, Response,
    Shutdown, TokenId, TokenResult,
};

use super::script::Script;

pub struct StandInExecutor {
    script: Script,
    limits: Limits,
    vocab_size: usize,
    /// Between two tokens of a sequence.
    period: Duration,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    next_id: u64,
    running: Vec<Live>,
    queued: VecDeque<Live>,
    /// Of requests that were cancelled.
    ended: Vec<Response>,
    next_step: Instant,
    is_closed: bool,
}

struct Live {
    id: RequestId,
    last: TokenId,
    max_tokens: usize,
    streams: bool,
    given: usize,
    /// Sequences that have not ended.
    open: Vec<usize>,
    arrived: Instant,
    started: Duration,
}

impl StandInExecutor {
    pub fn new(script: Script, limits: Limits, vocab_size: usize, period: Duration) -> Self {
        let state = State {
            next_id: 0,
            running: Vec::new(),
            queued: VecDeque::new(),
            ended: Vec::new(),
            next_step: Instant::now(),
            is_closed: false,
        };
        Self { script, limits, vocab_size, period, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One token for each sequence that runs.
    fn step(&self, state: &mut State) -> Vec<Response> {
        let mut responses = Vec::with_capacity(state.running.len());
        for live in &mut state.running {
            live.given += 1;
            let is_last = live.given == live.max_tokens;
            if !live.streams && !is_last {
                continue;
            }
            for (index, &number) in live.open.iter().enumerate() {
                let from = if live.streams { live.given - 1 } else { 0 };
                let tokens = (from..live.given).map(|place| self.script.token(live.last, number, place));
                let is_final = is_last && index + 1 == live.open.len();
                let result = TokenResult::ended(live.id, number, FinishReason::Length, is_final);
                responses.push(Response::Result(TokenResult {
                    output_token_ids: tokens.collect(),
                    finish_reason: result.finish_reason.filter(|_| is_last),
                    is_sequence_final: is_last,
                    perf_metrics: is_final.then(|| live.metrics()),
                    ..result
                }));
            }
        }
        state.running.retain(|live| live.given < live.max_tokens);
        responses
    }
}

impl Live {
    fn metrics(&self) -> Box<PerfMetrics> {
        let (first_scheduled, last_token) = (self.started, self.arrived.elapsed());
        Box::new(PerfMetrics { first_scheduled, first_token: first_scheduled, last_token, ..PerfMetrics::default() })
    }
}

impl State {
    fn cancel(&mut self, is_meant: impl Fn(&Live) -> bool) {
        let running = self.running.extract_if(.., |live| is_meant(live));
        let mut gone: Vec<_> = running.collect();
        let (queued, left) = std::mem::take(&mut self.queued).into_iter().partition(|live| is_meant(live));
        self.queued = left;
        gone.extend(Vec::from(queued));
        for live in gone {
            let ended = |(index, &number): (usize, &usize)| {
                let is_final = index + 1 == live.open.len();
                Response::Result(TokenResult::ended(live.id, number, FinishReason::Cancelled, is_final))
            };
            self.ended.extend(live.open.iter().enumerate().map(ended));
        }
    }
}

impl Executor for StandInExecutor {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn enqueue(&self, request: Request) -> Result<RequestId, EnqueueError> {
        let spec = request.spec();
        let mut state = self.lock();
        if state.is_closed {
            return Err(EnqueueError::ShutDown);
        }
        let id = RequestId(state.next_id);
        state.next_id += 1;
        state.queued.push_back(Live {
            id,
            last: spec.input_token_ids.last().copied().unwrap_or_default(),
            max_tokens: spec.max_tokens.max(1),
            streams: spec.streaming,
            given: 0,
            open: (0..spec.sampling.num_return_sequences).collect(),
            arrived: Instant::now(),
            started: Duration::ZERO,
        });
        drop(state);
        self.changed.notify_all();
        Ok(id)
    }

    fn await_responses(&self, timeout: Option<Duration>) -> Vec<Response> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let mut state = self.lock();
        loop {
            if !state.ended.is_empty() {
                return std::mem::take(&mut state.ended);
            }
            let now = Instant::now();
            if state.is_closed || deadline.is_some_and(|deadline| now >= deadline) {
                return Vec::new();
            }
            let is_idle = state.running.is_empty();
            while state.running.len() < self.limits.max_batch_size
                && let Some(mut live) = state.queued.pop_front()
            {
                live.started = live.arrived.elapsed();
                state.running.push(live);
            }
            if is_idle {
                state.next_step = now + self.period;
            }
            let mut wake = deadline;
            if !state.running.is_empty() {
                if now >= state.next_step {
                    state.next_step = (state.next_step + self.period).max(now);
                    let responses = self.step(&mut state);
                    if !responses.is_empty() {
                        return responses;
                    }
                    continue;
                }
                wake = Some(wake.map_or(state.next_step, |wake| wake.min(state.next_step)));
            }
            state = match wake {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(wake) => self.changed.wait_timeout(state, wake - now).unwrap_or_else(PoisonError::into_inner).0,
            };
        }
    }

    fn cancel(&self, request: RequestId) {
        self.lock().cancel(|live| live.id == request);
        self.changed.notify_all();
    }

    /// One of several ends when its request does.
    fn cancel_sequence(&self, _request: RequestId, _sequence_index: usize) {}

    fn load(&self) -> Load {
        let state = self.lock();
        Load { num_queued_requests: state.queued.len(), num_active_requests: state.running.len(), ..Load::default() }
    }

    fn iteration_stats(&self) -> Vec<IterationStats> {
        Vec::new()
    }

    fn shutdown(&self, _how: Shutdown) {
        self.cancel_all();
    }

    fn cancel_all(&self) {
        let mut state = self.lock();
        state.cancel(|_| true);
        state.is_closed = true;
        drop(state);
        self.changed.notify_all();
    }
}
