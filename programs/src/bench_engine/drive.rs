//! Puts an executor under a load and writes down what happens when.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use engine_format::error::counted;
use runner::executor::{
    EnqueueError, Executor, FinishReason, IterationStats, KvCacheStats, Request, RequestId, Response, Shutdown,
};
use text::detokenizer::Detokenizer;
use text::tokenizer::Tokenizer;

use super::load::Pace;
use super::timings::Served;

/// What a run was like.
#[derive(Debug, Clone, Default)]
pub(super) struct Run {
    /// The KV cache's counters before the run.
    pub before: KvCacheStats,
    /// Every request, in order of arrival.
    pub served: Vec<Served>,
    /// Every iteration, with the time of its end.
    pub iterations: Vec<(Duration, IterationStats)>,
    /// Time that the client spent on turning ids into text.
    pub detokenization: Duration,
    /// From the start to the last token.
    pub elapsed: Duration,
}

/// Why a run has no result.
#[derive(Debug, thiserror::Error)]
pub(super) enum DriveError {
    /// The executor refused a request.
    #[error(transparent)]
    Enqueue(#[from] EnqueueError),
    /// A request failed.
    #[error("request {index} failed: {message}")]
    Failed {
        /// Number of the request, from 0.
        index: usize,
        /// The executor's reason.
        message: String,
    },
    /// A request ended otherwise than by its length.
    #[error("request {index} ended with `{reason}` after {tokens} of {}", counted(*max_tokens, "token"))]
    Ended {
        /// Number of the request, from 0.
        index: usize,
        /// How it ended.
        reason: &'static str,
        /// What it had.
        tokens: usize,
        /// What it should have had.
        max_tokens: usize,
    },
    /// No more responses come.
    #[error("the executor ended before all requests had")]
    ExecutorGone,
}

struct Running<'a> {
    index: usize,
    request: &'a Request,
    detokenizer: Option<Detokenizer>,
    served: Served,
}

/// How long after its responses an iteration's statistics may come.
const STATISTICS_DELAY: Duration = Duration::from_millis(20);

/// Serves one request to its end, of which nothing is kept: weights and buffers are in memory then.
///
/// # Errors
/// [`DriveError`].
pub(super) fn warm_up(executor: &dyn Executor, request: Request) -> Result<(), DriveError> {
    executor.enqueue(request)?;
    loop {
        let responses = executor.await_responses(None);
        match responses.last() {
            None => return Err(DriveError::ExecutorGone),
            Some(Response::Error { message, .. }) => {
                return Err(DriveError::Failed { index: 0, message: message.clone() });
            }
            Some(response) if response.is_final() => break,
            Some(_) => {}
        }
    }
    std::thread::sleep(STATISTICS_DELAY);
    Ok(())
}

/// Serves `requests` and shuts the executor down, so that the statistics are complete. `on_served` is called once for
/// each request.
///
/// # Errors
/// [`DriveError`]: a run in which a request was not served as asked is not a measurement.
pub(super) fn drive(
    executor: &dyn Executor,
    tokenizer: Option<&Tokenizer>,
    requests: &[Request],
    pace: &Pace,
    mut on_served: impl FnMut(),
) -> Result<Run, DriveError> {
    let before = executor.iteration_stats().last().map(|stats| stats.kv_cache).unwrap_or_default();
    let mut run = Run { before, ..Run::default() };
    let began = Instant::now();
    let mut running: HashMap<RequestId, Running<'_>> = HashMap::new();
    let mut served: Vec<Option<Served>> = vec![None; requests.len()];
    let (mut next, mut left) = (0, requests.len());
    while left > 0 {
        let mut wait = None;
        while let Some(request) = requests.get(next) {
            let now = began.elapsed();
            let arrival = match pace {
                Pace::Concurrency(width) if running.len() >= *width => break,
                Pace::Concurrency(_) => now,
                Pace::Arrivals(times) if times[next] > now => {
                    wait = Some(times[next] - now);
                    break;
                }
                Pace::Arrivals(times) => times[next],
            };
            match executor.enqueue(request.clone()) {
                Ok(id) => {
                    let prompt = &request.spec().input_token_ids;
                    let served = Served { arrival, prompt_tokens: prompt.len(), token_times: Vec::new() };
                    running.insert(id, Running { index: next, request, detokenizer: None, served });
                }
                Err(EnqueueError::QueueFull { .. }) if !running.is_empty() => break,
                Err(error) => return Err(error.into()),
            }
            next += 1;
        }
        let responses = executor.await_responses(wait);
        let now = began.elapsed();
        run.note(now, executor.iteration_stats());
        if responses.is_empty() && wait.is_none() {
            return Err(DriveError::ExecutorGone);
        }
        for response in responses {
            let Some(sequence) = running.get_mut(&response.request_id()) else { continue };
            let result = match response {
                Response::Error { message, .. } => return Err(DriveError::Failed { index: sequence.index, message }),
                Response::Result(result) => result,
            };
            sequence.served.token_times.resize(sequence.served.token_times.len() + result.output_token_ids.len(), now);
            if let Some(tokenizer) = tokenizer {
                let began = Instant::now();
                let prompt = &sequence.request.spec().input_token_ids;
                let detokenizer =
                    sequence.detokenizer.get_or_insert_with(|| Detokenizer::after_prompt(tokenizer, prompt, true));
                for &id in &result.output_token_ids {
                    std::hint::black_box(detokenizer.push(id));
                }
                run.detokenization += began.elapsed();
            }
            if result.is_final
                && let Some(done) = running.remove(&result.request_id)
            {
                done.check(result.finish_reason)?;
                served[done.index] = Some(done.served);
                left -= 1;
                on_served();
            }
        }
        run.elapsed = now;
    }
    executor.shutdown(Shutdown::Drain);
    run.note(began.elapsed(), executor.iteration_stats());
    run.served = served.into_iter().flatten().collect();
    Ok(run)
}

impl Running<'_> {
    fn check(&self, reason: Option<FinishReason>) -> Result<(), DriveError> {
        let (tokens, max_tokens) = (self.served.token_times.len(), self.request.spec().max_tokens);
        if reason == Some(FinishReason::Length) && tokens == max_tokens {
            return Ok(());
        }
        let reason = reason.map_or("no reason", FinishReason::name);
        Err(DriveError::Ended { index: self.index, reason, tokens, max_tokens })
    }
}

impl Run {
    /// Adds iterations that were over at `now`; each ended when its successor began.
    fn note(&mut self, now: Duration, iterations: Vec<IterationStats>) {
        let first = self.iterations.len();
        let mut end = now;
        for stats in iterations.into_iter().rev() {
            let latency = stats.iter_latency;
            self.iterations.push((end, stats));
            end = end.saturating_sub(latency);
        }
        self.iterations[first..].reverse();
    }
}
