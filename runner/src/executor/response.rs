//! What comes out of an executor.

use std::fmt;
use std::time::Duration;

use super::TokenId;

/// Identifies a request within one executor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// Why a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// One of the request's end ids was generated; it is the last token.
    EndId,
    /// A stop word was generated.
    StopWords,
    /// The request's `max_tokens`, or the engine's `max_seq_len`, was reached.
    Length,
    /// The request's allotted time was over.
    TimedOut,
    /// The request was cancelled.
    Cancelled,
    /// A reason that TensorRT-LLM gave and this version does not know, by its number.
    Unknown(i32),
}

impl FinishReason {
    /// The name, as programs print it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EndId => "end_id",
            Self::StopWords => "stop_words",
            Self::Length => "length",
            Self::TimedOut => "timed_out",
            Self::Cancelled => "cancelled",
            Self::Unknown(_) => "unknown",
        }
    }
}

impl fmt::Display for FinishReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One response: new tokens of one sequence, or the error that ended the request.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every response is a result, and a box would cost each an allocation"
)]
#[derive(Debug, Clone, PartialEq)]
pub enum Response {
    /// New tokens.
    Result(TokenResult),
    /// The request failed; this is its final response.
    Error {
        /// The request.
        request_id: RequestId,
        /// Why, as a sentence.
        message: String,
    },
}

impl Response {
    /// The request that the response belongs to.
    pub const fn request_id(&self) -> RequestId {
        match self {
            Self::Result(result) => result.request_id,
            Self::Error { request_id, .. } => *request_id,
        }
    }

    /// Whether no further response of the request will come.
    pub const fn is_final(&self) -> bool {
        match self {
            Self::Result(result) => result.is_final,
            Self::Error { .. } => true,
        }
    }
}

/// New tokens of one sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenResult {
    /// The request.
    pub request_id: RequestId,
    /// Which of the request's sequences, from 0.
    pub sequence_index: usize,
    /// Tokens since the sequence's last response; may be none in a final one. An end id is among them.
    pub output_token_ids: Vec<TokenId>,
    /// When asked for: the natural log-probability of each of these tokens, of the raw logits.
    pub log_probs: Option<Vec<f32>>,
    /// When asked for: the most probable tokens at the position of each of these tokens, best first.
    pub top_log_probs: Option<Vec<Vec<TokenLogProb>>>,
    /// When log-probabilities are asked for, in the final response: the sum over the sequence.
    pub cum_log_prob: Option<f32>,
    /// When asked for: the raw logits that each of these tokens was chosen from.
    pub generation_logits: Option<Logits>,
    /// When asked for, in the first response: the log-probability of each prompt token after the first.
    pub prompt_log_probs: Option<Vec<f32>>,
    /// When asked for, in the first response: the most probable tokens at the position of each prompt token after the first.
    pub prompt_top_log_probs: Option<Vec<Vec<TokenLogProb>>>,
    /// When asked for, in the first response: the rank of each prompt token after the first, from 1 for the most probable.
    pub prompt_ranks: Option<Vec<usize>>,
    /// When asked for, once, in the first response of a request whose prompt was computed: the raw logits of what follows each token
    /// of the prompt.
    pub context_logits: Option<Logits>,
    /// When asked for, in the request's final response.
    pub perf_metrics: Option<Box<PerfMetrics>>,
    /// Set in the sequence's last response.
    pub finish_reason: Option<FinishReason>,
    /// Whether the sequence has ended.
    pub is_sequence_final: bool,
    /// Whether the request has ended.
    pub is_final: bool,
}

impl TokenResult {
    /// The final response of a sequence without further tokens.
    pub fn ended(request_id: RequestId, sequence_index: usize, finish_reason: FinishReason, is_final: bool) -> Self {
        Self {
            request_id,
            sequence_index,
            output_token_ids: Vec::new(),
            log_probs: None,
            top_log_probs: None,
            cum_log_prob: None,
            generation_logits: None,
            prompt_log_probs: None,
            prompt_top_log_probs: None,
            prompt_ranks: None,
            context_logits: None,
            perf_metrics: None,
            finish_reason: Some(finish_reason),
            is_sequence_final: true,
            is_final,
        }
    }
}

/// How a request went, in the terms of TensorRT-LLM's `RequestPerfMetrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PerfMetrics {
    /// From arrival until first scheduled; zero where it never was.
    pub first_scheduled: Duration,
    /// From arrival to the first token, of whichever sequence; zero where there is none.
    pub first_token: Duration,
    /// From arrival to the last token; zero where there is none.
    pub last_token: Duration,
    /// The iterations, from the first to the last, that worked on it.
    pub iterations: (u64, u64),
    /// KV-cache blocks that were computed, in the sum over sequences.
    pub new_blocks: u64,
    /// KV-cache blocks that were there already. A sequence that shares the prompt of another of its request counts too.
    pub reused_blocks: u64,
    /// KV-cache blocks that were looked for and not found.
    pub missed_blocks: u64,
    /// Tokens of the prompt that were in the KV cache when the request started. From TensorRT-LLM, which counts blocks, it is
    /// the tokens of the reused ones, at most the prompt; zero while it has not told the size of a block.
    pub cached_prompt_tokens: u64,
    /// Tokens that speculative decoding drafted.
    pub draft_tokens: u64,
    /// Of those, accepted.
    pub accepted_draft_tokens: u64,
}

impl PerfMetrics {
    /// How long the request waited.
    pub fn queue_time(&self) -> Duration {
        self.first_scheduled
    }

    /// From the first scheduling to the first token: how long the prompt took. Zero where there is no token.
    pub fn context_time(&self) -> Duration {
        self.first_token.saturating_sub(self.first_scheduled)
    }

    /// From the first token to the last.
    pub fn generation_time(&self) -> Duration {
        self.last_token.saturating_sub(self.first_token)
    }
}

/// Rows of raw logits, one after the other; a row has a number for each token of the vocabulary.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Logits {
    /// Numbers of a row; 0 where there is no row.
    pub vocab_size: usize,
    /// `[rows, vocab_size]`.
    pub values: Vec<f32>,
}

impl Logits {
    /// How many rows there are.
    pub fn rows(&self) -> usize {
        self.values.len().checked_div(self.vocab_size).unwrap_or(0)
    }

    /// Adds rows of `vocab_size` numbers, with room for `more` after them.
    ///
    /// # Errors
    /// There is no memory for them, as a sentence.
    pub(crate) fn push(&mut self, values: &[f32], vocab_size: usize, more: usize) -> Result<(), String> {
        let numbers = values.len().saturating_add(more.saturating_mul(vocab_size));
        self.values.try_reserve(numbers).map_err(|_| {
            let bytes = numbers.saturating_mul(size_of::<f32>());
            format!("there is no memory for the logits that the request asks for: {bytes} bytes")
        })?;
        self.vocab_size = vocab_size;
        self.values.extend_from_slice(values);
        Ok(())
    }

    /// Adds the rows that came `later`.
    pub(crate) fn append(&mut self, later: Self) {
        self.vocab_size = self.vocab_size.max(later.vocab_size);
        self.values.extend(later.values);
    }

    /// Keeps the first `rows`.
    pub(crate) fn truncate(&mut self, rows: usize) {
        self.values.truncate(rows * self.vocab_size);
    }
}

/// A token and its natural log-probability.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenLogProb {
    /// The token.
    pub token_id: TokenId,
    /// Its log-probability under the raw logits.
    pub log_prob: f32,
}
