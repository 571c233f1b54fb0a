//! What a session gives out: an executor's response as text too.

use std::time::Duration;

use crate::executor::{RequestId, Response, TokenId, TokenResult};

/// What an executor's response says, as text too.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// The response. Where a stop string ended the sequence, tokens after the one that completed it are cut off, and the
    /// finish reason is `stop_words`.
    pub response: Response,
    /// The text that is new and certain: whole characters, without special tokens and what a stop string cuts off, unless these
    /// were asked for.
    pub text: String,
    /// With the last output of a sequence: what ended it, where that is a stop string, an end id or a stop word.
    pub stop_reason: Option<Box<StopReason>>,
    /// The sequence: the response's, or of an error, which ends all, the first that had not ended.
    pub sequence_index: usize,
    /// With the last output of a sequence.
    pub stats: Option<SequenceStats>,
    /// The submission's.
    pub tag: u64,
}

/// What ended a sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StopReason {
    /// A stop string.
    Text(String),
    /// An end id, or the tokens of a stop word.
    Tokens(Vec<TokenId>),
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
    /// A response that has no text yet.
    pub(super) fn new(response: Response, tag: u64) -> Self {
        let sequence_index = match &response {
            Response::Result(result) => result.sequence_index,
            Response::Error { .. } => 0,
        };
        Self { response, text: String::new(), stop_reason: None, sequence_index, stats: None, tag }
    }

    /// The error that ends a request, of whose sequences `sequence_index` is the first that had not ended.
    pub(super) fn error(request_id: RequestId, sequence_index: usize, message: String, tag: u64) -> Self {
        Self { sequence_index, ..Self::new(Response::Error { request_id, message }, tag) }
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
        self.stop_reason = later.stop_reason.or(self.stop_reason.take());
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
    result.prompt_ranks = result.prompt_ranks.take().or(more.prompt_ranks);
    result.context_logits = result.context_logits.take().or(more.context_logits);
    result.perf_metrics = more.perf_metrics.or(result.perf_metrics.take());
    result.finish_reason = more.finish_reason.or(result.finish_reason);
    result.is_sequence_final |= more.is_sequence_final;
    result.is_final |= more.is_final;
}
