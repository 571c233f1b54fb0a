//! Figures of a run against a server: what it answered, and what not.

use std::time::Duration;

use serde::Serialize;

use super::super::load::Load;
use super::super::percentiles::Percentiles;
use super::super::report::{RunReport, Seen};
use super::super::requests::Asked;
use super::super::timings::{Served, timed};
use super::drive::Sent;
use super::problem::{Kind, Problem};

/// The server and how it was asked.
#[derive(Debug, Serialize)]
pub(in super::super) struct EndpointFacts {
    pub url: String,
    pub model: String,
    /// Routes below the URL.
    pub routes: Vec<&'static str>,
    /// What prompts were sent as: `token ids`, `text`, `messages`, or several of them.
    pub prompts: String,
    /// How tokens were counted: `usage of each chunk`, or `usage at the end`.
    pub token_counts: &'static str,
    /// Whether the server took `ignore_eos`, `cache_salt` and `continuous_usage_stats`.
    pub extensions: bool,
    /// Where times were taken.
    pub measured_at: &'static str,
    /// The client's processor.
    pub client: Option<String>,
}

/// Figures that a client has of a server. Rates and latencies are those of answered requests.
#[derive(Debug, Serialize)]
pub(in super::super) struct EndpointFigures {
    pub answered: usize,
    /// Answered with fewer tokens than asked for.
    pub ended_early: usize,
    /// Answered 429, 503 or 529: no room.
    pub refused: usize,
    /// Anything else.
    pub failed: usize,
    /// What refusals said.
    pub retry_after: Option<Percentiles>,
    /// Of answered requests, as the server counts them.
    pub prompt_tokens: usize,
    pub output_tokens: usize,
    /// Prompt tokens that the server found in its cache, where it tells.
    pub cached_prompt_tokens: Option<usize>,
    /// Why requests were not answered, the most frequent first.
    pub problems: Vec<ProblemCount>,
}

/// A reason, and how many requests had it.
#[derive(Debug, Serialize)]
pub(in super::super) struct ProblemCount {
    pub count: usize,
    pub status: Option<u16>,
    pub message: String,
}

/// The figures of a run under `load`.
pub(super) fn summarize(load: Load, asked: &[Asked], sent: Vec<Sent>) -> RunReport {
    let mut served = Vec::new();
    let (mut ended_early, mut cached) = (0, None);
    let mut problems: Vec<Problem> = Vec::new();
    for (request, Sent { arrival, outcome }) in asked.iter().zip(sent) {
        match outcome {
            Ok(answer) => {
                ended_early += usize::from(answer.token_times.len() < request.options.max_new_tokens.unwrap_or(0));
                cached = answer.cached_tokens.map(|tokens| tokens + cached.unwrap_or(0)).or(cached);
                let (prompt_tokens, token_times) = (answer.prompt_tokens, answer.token_times);
                served.push(Served { arrival, prompt_tokens, token_times });
            }
            Err(problem) => problems.push(problem),
        }
    }
    let refused = problems.iter().filter(|problem| problem.is_refusal()).count();
    let figures = EndpointFigures {
        answered: served.len(),
        ended_early,
        refused,
        failed: problems.len() - refused,
        retry_after: Percentiles::of(problems.iter().filter_map(|problem| problem.retry_after).collect()),
        prompt_tokens: served.iter().map(|request| request.prompt_tokens).sum(),
        output_tokens: served.iter().map(|request| request.token_times.len()).sum(),
        cached_prompt_tokens: cached,
        problems: counted(problems),
    };
    let elapsed = served.iter().filter_map(|request| request.token_times.last()).max().copied();
    timed(load, &served, elapsed.unwrap_or(Duration::ZERO), Seen::Endpoint(figures))
}

fn counted(problems: Vec<Problem>) -> Vec<ProblemCount> {
    let mut counts: Vec<ProblemCount> = Vec::new();
    for Problem { kind, message, .. } in problems {
        match counts.iter_mut().find(|known| known.message == message) {
            Some(known) => known.count += 1,
            None => {
                let status = if let Kind::Status(status) = kind { Some(status) } else { None };
                counts.push(ProblemCount { count: 1, status, message });
            }
        }
    }
    counts.sort_by_key(|problem| std::cmp::Reverse(problem.count));
    counts
}
