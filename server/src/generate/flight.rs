//! Requests under way. Whoever drops a [`Flight`] cancels what has not ended.

use std::sync::Arc;
use std::time::Instant;

use runner::executor::{EnqueueError, FinishReason, RequestId, Response, TokenId};
use runner::session::{Destination, Output, Session, StopReason, Submission};

use crate::http::record::{Outcome, Record};
use crate::metrics::{self, Metrics};

use super::admission::Permit;
use super::cell::{Cell, Failure, Summary, Went};
use super::queue::Queue;

/// Requests that are ready to be submitted: those of one HTTP request, all of them or none.
#[derive(Debug)]
pub struct Prepared {
    /// One for each prompt.
    pub submissions: Vec<Submission>,
    /// Sequences of each.
    pub each: usize,
    /// Ordinary tokens that end a sequence, with their texts, which are no part of the output.
    pub cut: Vec<(TokenId, String)>,
    /// Room for all of it.
    pub permit: Permit,
    /// What the log will say of the HTTP request.
    pub record: Arc<Record>,
}

/// Starts requests.
#[derive(Debug, Clone)]
pub struct Generator {
    session: Arc<Session>,
    metrics: Arc<Metrics>,
    /// Where requests may not wait for ever.
    queue: Option<Arc<Queue>>,
}

impl Generator {
    /// Over a session, which may have other clients. Requests are noted in `queue`, if there is one, for somebody to look after.
    pub fn new(session: Arc<Session>, metrics: Arc<Metrics>, queue: Option<Arc<Queue>>) -> Self {
        Self { session, metrics, queue }
    }

    /// Submits requests. It may wait for a guide to be compiled, so it is not for an asynchronous thread.
    ///
    /// # Errors
    /// The executor does not take one of them: the others are cancelled.
    pub fn start(&self, prepared: Prepared) -> Result<Flight, EnqueueError> {
        let Prepared { submissions, each, cut, mut permit, record } = prepared;
        let arrived = record.arrived;
        let cell = Cell::new(submissions.len(), each);
        let cell_of_all = cell.clone();
        let cut: Arc<[_]> = cut.into();
        // It exists before the first request does, so that an early end cancels those that were submitted.
        let mut flight = Flight {
            cell: cell.clone(),
            ids: Vec::with_capacity(submissions.len()),
            session: self.session.clone(),
            metrics: self.metrics.clone(),
            record,
            prompt_tokens: submissions.iter().map(|submission| submission.request.spec().input_token_ids.len()).sum(),
            is_whole: false,
        };
        for (prompt, mut submission) in submissions.into_iter().enumerate() {
            let spec = submission.request.spec();
            let mut share = permit.split(each, spec.input_token_ids.len(), spec.max_tokens.saturating_mul(each));
            let (cell, cut, metrics) = (cell.clone(), cut.clone(), self.metrics.clone());
            let (streams, is_guided) = (spec.streaming, spec.guided_decoding.is_some());
            let submitted = Instant::now();
            let mut has_begun = false;
            submission.destination = Destination::Callback(Box::new(move |mut output: Output| {
                cut_end(&mut output, &cut);
                if !std::mem::replace(&mut has_begun, true) {
                    share.begin();
                }
                metrics.count_output(&output, submitted.duration_since(arrived), submitted.elapsed(), is_guided);
                if cell.append(prompt, output) && streams {
                    metrics.coalesced_chunks.add(1);
                }
                Ok(())
            }));
            if let Some(queue) = &self.queue {
                queue.note(&cell_of_all, prompt, submitted);
            }
            let id = self.session.submit(submission);
            if is_guided {
                // Compiled, or found among those that were.
                self.metrics.guide.observe_time(submitted.elapsed());
            }
            flight.ids.push(id?);
        }
        flight.is_whole = true;
        Ok(flight)
    }
}

/// Takes the text of an ordinary token that ended a sequence off its end.
fn cut_end(output: &mut Output, cut: &[(TokenId, String)]) {
    let Response::Result(result) = &output.response else { return };
    if result.finish_reason != Some(FinishReason::EndId) || cut.is_empty() {
        return;
    }
    let Some(StopReason::Tokens(tokens)) = output.stop_reason.as_deref() else { return };
    let ended = cut.iter().find(|(id, _)| tokens.last() == Some(id));
    if let Some(rest) = ended.and_then(|(_, text)| output.text.strip_suffix(text.as_str())) {
        output.text.truncate(rest.len());
    }
}

/// Requests under way.
#[derive(Debug)]
pub struct Flight {
    cell: Arc<Cell>,
    ids: Vec<RequestId>,
    session: Arc<Session>,
    metrics: Arc<Metrics>,
    record: Arc<Record>,
    prompt_tokens: usize,
    /// Whether all of it was submitted.
    is_whole: bool,
}

impl Flight {
    /// What the log will say of it.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// Where the outputs wait.
    pub fn cell(&self) -> &Cell {
        &self.cell
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let summary = self.cell.summary();
        if summary.went.iter().any(|went| !went.is_over) {
            // Those that have ended are unknown by now, which does no harm.
            for &id in &self.ids {
                self.session.cancel(id);
            }
        }
        if !self.is_whole {
            return;
        }
        let (cause, cancelled) = self.cancelled(&summary);
        if let Some(cause) = cause {
            self.metrics.count_cancelled(cause, cancelled);
        }
        let mut finish: Vec<_> = summary.reasons.iter().map(|&reason| metrics::reason(reason)).collect();
        finish.sort_unstable();
        finish.dedup();
        self.record.end(Outcome {
            finish: finish.join(","),
            prompt_tokens: self.prompt_tokens,
            generated_tokens: summary.tokens,
            queue: summary.went.iter().map(|went| went.metrics.queue_time()).max().unwrap_or_default(),
            first_token: summary.first_token,
            cancelled_by: cause,
        });
    }
}

impl Flight {
    /// What ended the flight early, if anything did, and how many of its requests.
    fn cancelled(&self, summary: &Summary) -> (Option<&'static str>, usize) {
        let open = summary.went.iter().filter(|went| !went.is_over).count();
        let ended = |reason| summary.reasons.contains(&reason);
        let cause = match &summary.failure {
            Some(Failure::Refused(_)) => "queue",
            Some(Failure::Executor(_)) => "failure",
            None if ended(FinishReason::Cancelled) => "shutdown",
            None if ended(FinishReason::TimedOut) => "deadline",
            None if open == 0 => return (None, 0),
            None if self.record.has_failed() => "failure",
            None => "client",
        };
        let is_of = |went: &&Went| !went.is_over || went.was_cut;
        (Some(cause), summary.went.iter().filter(is_of).count())
    }
}
