//! The executor contract, modelled on TensorRT-LLM's `tensorrt_llm::executor` and in its terms.
//!
//! Requests go in with [`Executor::enqueue`], responses come out of [`Executor::await_responses`]. What holds for every
//! executor:
//!
//! - every accepted request ends in exactly one response with `is_final`, and each of its sequences in one with
//!   `is_sequence_final`, whatever happens: cancellation, an error, a shutdown;
//! - the tokens of a sequence arrive in order, none lost and none twice;
//! - an impossible request is refused before it is queued, with an error that names the limit;
//! - waiting does not spin;
//! - shutting down, or dropping the executor, ends every request first.

mod config;
mod guides;
mod logits_post_processor;
mod request;
mod response;
mod sampling_config;
mod stats;
pub mod tensorrt_llm;
mod tensorrt_llm_config;

use std::time::Duration;

use engine_format::error::counted;

pub use config::{
    CapacitySchedulerPolicy, ConfigError, ExecutorConfig, KvCacheConfig, KvCacheDtype, LimitError, MAX_THREADS,
    MAX_TOKENS_PER_BLOCK,
};
pub(crate) use guides::Guides;
pub use logits_post_processor::{LogitsContext, LogitsPostProcessor};
pub use request::{
    KvCacheRetentionConfig, LoraRequest, OutputConfig, Request, RequestError, RequestSpec, TokenRangeRetention,
};
pub use response::{FinishReason, Logits, PerfMetrics, RequestId, Response, TokenLogProb, TokenResult};
pub use sampling_config::{EarlyStopping, SamplingConfig};
pub use stats::{InflightBatchingStats, IterationStats, KvCacheStats, Load};
pub use tensorrt_llm_config::TensorRtLlmConfig;

pub use engine_format::manifest::Limits;
pub use text::{GuidedDecodingParams, TokenId};

/// Why an executor did not take a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnqueueError {
    /// The queue is full.
    #[error("the queue is full: max_queue_size is {max_queue_size}")]
    QueueFull {
        /// The limit.
        max_queue_size: usize,
    },
    /// This executor cannot do what the request asks for.
    #[error("{executor} does not know {feature}")]
    Unsupported {
        /// The executor.
        executor: &'static str,
        /// The field of [`RequestSpec`], or of what is in it, that asks for it, where one alone does.
        field: Option<&'static str>,
        /// What was asked for.
        feature: String,
    },
    /// A guide that cannot be compiled.
    #[error("the {kind} cannot be used: {problem}")]
    Guide {
        /// [`GuidedDecodingParams::kind`].
        kind: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Without chunked context a prompt must fit into one iteration.
    #[error(
        "the prompt has {}, but without chunked context an iteration takes {max_num_tokens} (max_num_tokens): set enable_chunked_context to true, or raise max_num_tokens", counted(*prompt, "token")
    )]
    PromptTooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// The limit.
        max_num_tokens: usize,
    },
    /// The request alone is larger than the KV cache.
    #[error(
        "the request may need {needed} KV-cache blocks, but there are {max_num_blocks}: ask for fewer tokens or beams, or give more KV-cache tokens"
    )]
    KvCacheTooSmall {
        /// Blocks that the request's prompt, output and beams may fill.
        needed: usize,
        /// Blocks in all.
        max_num_blocks: usize,
    },
    /// The logits that the request asks for do not fit into memory.
    #[error(
        "the logits that the request asks for may take {bytes} bytes, but {free} are free: ask for fewer tokens, or for log-probabilities"
    )]
    Logits {
        /// Of the prompt, and of every token that may be generated.
        bytes: usize,
        /// What the system can give.
        free: u64,
    },
    /// The executor found something wrong with the request that nobody else did.
    #[error("{executor} does not take the request: {problem}")]
    Refused {
        /// The executor.
        executor: &'static str,
        /// What it said.
        problem: String,
    },
    /// The executor failed, and takes no more requests.
    #[error("{executor} has failed: {problem}")]
    Failed {
        /// The executor.
        executor: &'static str,
        /// How.
        problem: String,
    },
    /// The executor does not answer, and takes no requests until it does.
    #[error("{executor} takes no requests until it answers again: {problem}")]
    Stalled {
        /// The executor.
        executor: &'static str,
        /// Since when.
        problem: String,
    },
    /// The executor was shut down.
    #[error("the executor has been shut down")]
    ShutDown,
}

/// Refuses logits that do not fit into the memory that is free now. Each request is looked at by itself.
pub(crate) fn check_logits(spec: &RequestSpec, vocab_size: usize) -> Result<(), EnqueueError> {
    let bytes = spec.logits_bytes(vocab_size);
    if bytes == 0 {
        return Ok(());
    }
    let machine = system::Machine::here();
    let free = [machine.touchable(), machine.mappable()].into_iter().flatten().map(|available| available.bytes).min();
    match free {
        Some(free) if free < bytes as u64 => Err(EnqueueError::Logits { bytes, free }),
        _ => Ok(()),
    }
}

/// What [`Executor::shutdown`] does with requests that have not ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Let them run to their end.
    Drain,
    /// End them with [`FinishReason::Cancelled`].
    Cancel,
}

/// What runs requests. All methods may be called from any thread.
pub trait Executor: Send + Sync {
    /// What a request may ask for.
    fn limits(&self) -> Limits;

    /// The model's vocabulary, in tokens.
    fn vocab_size(&self) -> usize;

    /// Queues a request.
    ///
    /// # Errors
    /// [`EnqueueError`]; the request was then not taken and no response will come.
    fn enqueue(&self, request: Request) -> Result<RequestId, EnqueueError>;

    /// Waits until responses are ready and takes all of them, in order. Empty after `timeout` (none: wait without
    /// limit), or when the executor is shut down and every response has been taken.
    fn await_responses(&self, timeout: Option<Duration>) -> Vec<Response>;

    /// Ends a request early. It still ends with a final response: [`FinishReason::Cancelled`], unless it was over
    /// already. An unknown id is ignored.
    fn cancel(&self, request: RequestId);

    /// Ends one sequence of a request early, as [`Executor::cancel`] ends all; the others go on. The beams of a beam search end
    /// together, when all of them have been cancelled. A sequence that is unknown or has ended is ignored.
    fn cancel_sequence(&self, request: RequestId, sequence_index: usize);

    /// How busy the executor is now. Cheap: it waits for no iteration.
    fn load(&self) -> Load;

    /// Statistics of the iterations since the last call, oldest first; the executor keeps the newest
    /// [`ExecutorConfig::iter_stats_max_iterations`].
    fn iteration_stats(&self) -> Vec<IterationStats>;

    /// Takes no more requests, ends those that there are, and returns when all have ended. Their responses can still be
    /// taken.
    fn shutdown(&self, how: Shutdown);

    /// As [`Executor::shutdown`] with [`Shutdown::Cancel`], but does not wait.
    fn cancel_all(&self);
}
