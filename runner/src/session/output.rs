//! What a session gives out: an executor's response as text too.

use std::time::Duration;

use crate::executor::{RequestId, Response, TokenResult};

/// What an executor's response says, as text too.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// The response. Where a stop string ended the sequence, tokens after the one that completed it are cut off, and the
    /// finish reason is `stop_words`.
    pub response: Response,
    /// The text that is new and certain: whole characters, without special tokens and what a stop string cuts off.
    pub text: String,
    /// With the last output of a sequence.
    pub stats: Option<SequenceStats>,
    /// The submission's.
    pub tag: u64,
}

/// How one sequence went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SequenceStats {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens generated.
    pub output_tokens: usize,
    /// From submission to the first token; `None` when there was none.
    pub time_to_first_token: Option<Duration>,
    /// From the first token to the last.
    pub generation_time: Duration,
}

impl Output {
    /// The error that ends a request.
    pub(super) fn error(request_id: RequestId, message: String, tag: u64) -> Self {
        Self { response: Response::Error { request_id, message }, text: String::new(), stats: None, tag }
    }

    /// The sequence that the output belongs to; `None` for an error, which is of all.
    pub fn sequence(&self) -> Option<(RequestId, usize)> {
        match &self.response {
            Response::Result(result) => Some((result.request_id, result.sequence_index)),
            Response::Error { .. } => None,
        }
    }

    /// Adds what came `later` for the same sequence, so that the two read as one output.
    pub fn append(&mut self, later: Self) {
        debug_assert_eq!(self.sequence(), later.sequence());
        match (&mut self.response, later.response) {
            (Response::Result(result), Response::Result(more)) => append_result(result, more),
            (response, error @ Response::Error { .. }) => *response = error,
            (Response::Error { .. }, Response::Result(_)) => {}
        }
        self.text.push_str(&later.text);
        self.stats = later.stats.or(self.stats);
    }
}

fn append_result(result: &mut TokenResult, more: TokenResult) {
    fn extend<T>(list: &mut Option<Vec<T>>, more: Option<Vec<T>>) {
        match (list.as_mut(), more) {
            (Some(list), Some(more)) => list.extend(more),
            (None, more) => *list = more,
            (Some(_), None) => {}
        }
    }
    result.output_token_ids.extend(more.output_token_ids);
    extend(&mut result.log_probs, more.log_probs);
    extend(&mut result.top_log_probs, more.top_log_probs);
    result.cum_log_prob = more.cum_log_prob.or(result.cum_log_prob);
    match (result.generation_logits.as_mut(), more.generation_logits) {
        (Some(logits), Some(more)) => logits.append(more),
        (None, more) => result.generation_logits = more,
        (Some(_), None) => {}
    }
    result.prompt_log_probs = result.prompt_log_probs.take().or(more.prompt_log_probs);
    result.prompt_top_log_probs = result.prompt_top_log_probs.take().or(more.prompt_top_log_probs);
    result.context_logits = result.context_logits.take().or(more.context_logits);
    result.perf_metrics = more.perf_metrics.or(result.perf_metrics.take());
    result.finish_reason = more.finish_reason.or(result.finish_reason);
    result.is_sequence_final |= more.is_sequence_final;
    result.is_final |= more.is_final;
}
