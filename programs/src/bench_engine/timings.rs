//! Figures of what was served, whoever served it: rates, and latencies from a request's arrival.

use std::time::Duration;

use super::load::{Arrivals, Load};
use super::percentiles::Percentiles;
use super::report::{RunReport, Seen};

/// A request that was served. Times are from the start of the run.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Served {
    /// When it arrived: for arrival times, when it was due, so that a late client does not flatter the result.
    pub arrival: Duration,
    /// Tokens of its prompt.
    pub prompt_tokens: usize,
    /// When each of its tokens was received.
    pub token_times: Vec<Duration>,
}

/// The figures of a run under `load` that took `elapsed`, with what else was seen of it.
pub(super) fn timed(load: Load, served: &[Served], elapsed: Duration, seen: Seen) -> RunReport {
    let latencies = Latencies::of(served);
    let seconds = elapsed.as_secs_f64();
    let output_tokens: usize = served.iter().map(|request| request.token_times.len()).sum();
    let prompt_tokens: usize = served.iter().map(|request| request.prompt_tokens).sum();
    let rate = |count: usize| ratio(count as f64, seconds).unwrap_or(0.0);
    let (arrivals, open_rate, concurrency) = match load {
        Load::AllAtOnce => (Some("all"), None, None),
        Load::Concurrency(width) => (None, None, Some(width)),
        Load::Rate(arrivals, rate) => (Some(name(arrivals)), Some(rate), None),
    };
    RunReport {
        load: load.label(),
        arrivals,
        rate: open_rate,
        concurrency,
        seconds,
        requests_per_second: rate(served.len()),
        output_tokens_per_second: rate(output_tokens),
        total_tokens_per_second: rate(prompt_tokens + output_tokens),
        time_to_first_token: Percentiles::of(latencies.first_token),
        time_per_output_token: Percentiles::of(latencies.per_token),
        inter_token_latency: Percentiles::of(latencies.between_tokens),
        request_latency: Percentiles::of(latencies.request),
        seen,
    }
}

/// Samples in seconds.
#[derive(Default)]
struct Latencies {
    first_token: Vec<f64>,
    per_token: Vec<f64>,
    between_tokens: Vec<f64>,
    request: Vec<f64>,
}

impl Latencies {
    fn of(served: &[Served]) -> Self {
        let mut all = Self::default();
        for request in served {
            let (Some(first), Some(last)) = (request.token_times.first(), request.token_times.last()) else { continue };
            let since = |time: &Duration| time.saturating_sub(request.arrival).as_secs_f64();
            all.first_token.push(since(first));
            all.request.push(since(last));
            let later = request.token_times.len() - 1;
            all.per_token.extend(ratio(last.saturating_sub(*first).as_secs_f64(), later as f64));
            all.between_tokens.extend(request.token_times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()));
        }
        all
    }
}

const fn name(arrivals: Arrivals) -> &'static str {
    match arrivals {
        Arrivals::All => "all",
        Arrivals::Fixed => "fixed",
        Arrivals::Uniform => "uniform",
        Arrivals::Poisson => "poisson",
    }
}

/// A part of a whole; of nothing there is none.
pub(super) fn ratio(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}
