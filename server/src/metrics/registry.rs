//! Counters and histograms.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use runner::executor::{Executor, FinishReason, InflightBatchingStats, IterationStats, KvCacheStats, Response};
use runner::session::Output;

use crate::error::CODES;

/// A number that grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to it.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Takes from it, where it counts what is there now.
    pub fn sub(&self, less: u64) {
        self.0.fetch_sub(less, Ordering::Relaxed);
    }

    /// What it is.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How often values were how large.
#[derive(Debug)]
pub struct Histogram {
    pub(super) bounds: &'static [f64],
    /// One for each bound, and one for what is larger.
    counts: Vec<AtomicU64>,
    /// In millionths.
    sum: AtomicU64,
}

impl Histogram {
    fn new(bounds: &'static [f64]) -> Self {
        let counts = (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect();
        Self { bounds, counts, sum: AtomicU64::new(0) }
    }

    /// Counts a value.
    pub fn observe(&self, value: f64) {
        let bucket = self.bounds.partition_point(|&bound| bound < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add((value * 1e6).round() as u64, Ordering::Relaxed);
    }

    /// Counts a time, in seconds.
    pub fn observe_time(&self, time: Duration) {
        self.observe(time.as_secs_f64());
    }

    /// For each bucket the values up to its bound, all of them last, and their sum.
    pub(super) fn cumulative(&self) -> (Vec<u64>, f64) {
        let mut total = 0;
        let counts = self.counts.iter().map(|count| {
            total += count.load(Ordering::Relaxed);
            total
        });
        (counts.collect(), self.sum.load(Ordering::Relaxed) as f64 / 1e6)
    }
}

// As in TensorRT-LLM's collector, so that dashboards made for it fit.
const LONG: &[f64] = &[
    0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0,
    1920.0, 7680.0,
];
const FIRST_TOKEN: &[f64] = &[
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 640.0, 2560.0,
];
const PER_TOKEN: &[f64] =
    &[0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0];
const PREFILL: &[f64] =
    &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0];
const TOKENS: &[f64] = &[
    1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0, 32768.0,
    65536.0, 131_072.0,
];
const SHORT: &[f64] = &[
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

/// The newest of the executor's statistics.
#[derive(Debug, Clone, Default)]
pub(super) struct Newest {
    pub(super) kv_cache: KvCacheStats,
    pub(super) batching: InflightBatchingStats,
    pub(super) iteration: Option<IterationStats>,
}

/// All that is counted.
#[derive(Debug)]
#[expect(missing_docs, reason = "named as the metrics are, whose help says what they mean")]
pub struct Metrics {
    pub prompt_tokens: Counter,
    pub generation_tokens: Counter,
    pub prompt_cached_tokens: Counter,
    pub e2e_request_latency: Histogram,
    pub time_to_first_token: Histogram,
    pub time_per_output_token: Histogram,
    pub request_queue_time: Histogram,
    pub request_prefill_time: Histogram,
    pub request_decode_time: Histogram,
    pub request_inference_time: Histogram,
    pub request_prompt_tokens: Histogram,
    pub request_generation_tokens: Histogram,
    pub iteration_latency: Histogram,
    pub http_request: Histogram,
    pub prepare_queue: Histogram,
    pub prepare_work: Histogram,
    pub guide: Histogram,
    pub router_lag: Histogram,
    pub coalesced_chunks: Counter,
    pub preparing: Counter,
    pub connections: Counter,
    pub sse_streams: Counter,
    cancelled: [Counter; CAUSES.len()],
    success: [Counter; 5],
    /// By code.
    errors: Mutex<BTreeMap<&'static str, u64>>,
    rejections: Mutex<BTreeMap<&'static str, u64>>,
    /// By route, method and status.
    http: Mutex<BTreeMap<(&'static str, &'static str, u16), u64>>,
    newest: Mutex<Newest>,
    /// When the executor was last seen to advance.
    advanced: Mutex<Instant>,
}

/// The reasons of `serve_admission_rejections_total`: too many connections, a key's limits, a full queue before the preparation, a
/// full server, a wait that was too long.
const REJECTIONS: [&str; 5] = ["connections", "key", "preparation", "queue", "wait"];

/// The reasons of `trtllm_request_success_total`, in the order of `success`.
pub(super) const REASONS: [&str; 5] = ["end_id", "stop_words", "length", "timed_out", "cancelled"];

fn place(reason: FinishReason) -> usize {
    match reason {
        FinishReason::EndId => 0,
        FinishReason::StopWords => 1,
        FinishReason::Length => 2,
        FinishReason::TimedOut => 3,
        _ => 4,
    }
}

/// What metrics and log call a reason.
pub fn reason(reason: FinishReason) -> &'static str {
    REASONS[place(reason)]
}

/// The causes of `serve_cancelled_total`, in the order of `cancelled`: the client has gone, the server ends, the request's time was
/// over, it waited too long, something of it failed.
pub(super) const CAUSES: [&str; 5] = ["client", "shutdown", "deadline", "queue", "failure"];

impl Default for Metrics {
    fn default() -> Self {
        Self {
            prompt_tokens: Counter::default(),
            generation_tokens: Counter::default(),
            prompt_cached_tokens: Counter::default(),
            e2e_request_latency: Histogram::new(LONG),
            time_to_first_token: Histogram::new(FIRST_TOKEN),
            time_per_output_token: Histogram::new(PER_TOKEN),
            request_queue_time: Histogram::new(LONG),
            request_prefill_time: Histogram::new(PREFILL),
            request_decode_time: Histogram::new(LONG),
            request_inference_time: Histogram::new(LONG),
            request_prompt_tokens: Histogram::new(TOKENS),
            request_generation_tokens: Histogram::new(TOKENS),
            iteration_latency: Histogram::new(SHORT),
            http_request: Histogram::new(SHORT),
            prepare_queue: Histogram::new(SHORT),
            prepare_work: Histogram::new(SHORT),
            guide: Histogram::new(SHORT),
            router_lag: Histogram::new(SHORT),
            coalesced_chunks: Counter::default(),
            preparing: Counter::default(),
            connections: Counter::default(),
            sse_streams: Counter::default(),
            cancelled: Default::default(),
            success: Default::default(),
            errors: Mutex::default(),
            rejections: Mutex::default(),
            http: Mutex::default(),
            newest: Mutex::default(),
            advanced: Mutex::new(Instant::now()),
        }
    }
}

fn add<K: Ord>(counts: &Mutex<BTreeMap<K, u64>>, key: K) {
    *counts.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default() += 1;
}

/// The counts, 0 for those of the known keys that were never counted.
fn copy<K: Ord + Copy>(counts: &Mutex<BTreeMap<K, u64>>, known: &[K]) -> BTreeMap<K, u64> {
    let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for key in known {
        counts.entry(*key).or_default();
    }
    counts
}

impl Metrics {
    /// Counts an output of a request that was submitted `prepared` after it arrived, and `elapsed` before now. What passed before a
    /// guide was compiled is not known to the executor, so the delivery of such outputs is not timed.
    pub fn count_output(&self, output: &Output, prepared: Duration, elapsed: Duration, is_guided: bool) {
        // An error is counted with the answer that it is told in.
        let Response::Result(result) = &output.response else { return };
        self.generation_tokens.add(result.output_token_ids.len() as u64);
        if let (Some(stats), Some(reason)) = (output.stats, result.finish_reason) {
            self.success[place(reason)].add(1);
            self.request_generation_tokens.observe(stats.output_tokens as f64);
            if result.is_final {
                self.prompt_tokens.add(stats.prompt_tokens as u64);
                self.request_prompt_tokens.observe(stats.prompt_tokens as f64);
                self.e2e_request_latency.observe_time(prepared + elapsed);
            }
            if let Some(metrics) = &result.perf_metrics {
                self.prompt_cached_tokens.add(metrics.cached_prompt_tokens);
                self.request_queue_time.observe_time(metrics.queue_time());
                if !metrics.last_token.is_zero() && !is_guided && result.is_final {
                    self.router_lag.observe_time(elapsed.saturating_sub(metrics.last_token));
                }
                if !metrics.first_token.is_zero() {
                    self.time_to_first_token.observe_time(prepared + metrics.first_token);
                    self.request_prefill_time.observe_time(metrics.context_time());
                    self.request_decode_time.observe_time(metrics.generation_time());
                    self.request_inference_time.observe_time(metrics.context_time() + metrics.generation_time());
                    if let Ok(gaps @ 1..) = u32::try_from(stats.output_tokens.saturating_sub(1)) {
                        self.time_per_output_token.observe_time(metrics.generation_time() / gaps);
                    }
                }
            }
        }
    }

    /// Counts an error by its code.
    pub fn count_error(&self, code: &'static str) {
        add(&self.errors, code);
    }

    /// Counts requests that were cancelled for a cause, which is one of the metric's.
    pub fn count_cancelled(&self, cause: &str, requests: usize) {
        if let Some(place) = CAUSES.iter().position(|known| *known == cause) {
            self.cancelled[place].add(requests as u64);
        }
    }

    /// Counts a request that was refused because too much was under way.
    pub fn count_rejection(&self, reason: &'static str) {
        add(&self.rejections, reason);
    }

    /// Counts an answer to `route`, which is a template and not what was asked for.
    pub fn count_http(&self, route: &'static str, method: &'static str, status: u16, took: Duration) {
        add(&self.http, (route, method, status));
        self.http_request.observe_time(took);
    }

    /// Takes the executor's statistics, of which there is one consumer.
    pub fn take_iterations(&self, executor: &dyn Executor) {
        let iterations = executor.iteration_stats();
        for iteration in &iterations {
            self.iteration_latency.observe_time(iteration.iter_latency);
        }
        if let Some(last) = iterations.last() {
            let newest =
                Newest { kv_cache: last.kv_cache, batching: last.inflight_batching, iteration: Some(last.clone()) };
            *self.newest.lock().unwrap_or_else(PoisonError::into_inner) = newest;
            self.advance();
        }
    }

    /// Tokens of a block, before the executor has said so.
    pub fn set_tokens_per_block(&self, tokens: usize) {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).kv_cache.tokens_per_block = tokens;
    }

    /// The executor has advanced, or has nothing to do.
    pub fn advance(&self) {
        *self.advanced.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// How long the executor has not been seen to advance.
    pub fn since_advance(&self) -> Duration {
        self.advanced.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    pub(super) fn newest(&self) -> Newest {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn success(&self) -> [u64; 5] {
        self.success.each_ref().map(Counter::get)
    }

    pub(super) fn cancelled(&self) -> [u64; CAUSES.len()] {
        self.cancelled.each_ref().map(Counter::get)
    }

    pub(super) fn errors(&self) -> BTreeMap<&'static str, u64> {
        copy(&self.errors, &CODES)
    }

    pub(super) fn rejections(&self) -> BTreeMap<&'static str, u64> {
        copy(&self.rejections, &REJECTIONS)
    }

    pub(super) fn http(&self) -> BTreeMap<(&'static str, &'static str, u16), u64> {
        copy(&self.http, &[])
    }
}
