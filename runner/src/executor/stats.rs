//! Statistics of an executor's iterations.

use std::time::Duration;

/// One iteration (one forward pass), in the terms of TensorRT-LLM's `IterationStats`.
#[derive(Debug, Clone, PartialEq)]
pub struct IterationStats {
    /// Number of the iteration, from 0.
    pub iter: u64,
    /// Wall time of the iteration.
    pub iter_latency: Duration,
    /// Requests being worked on.
    pub num_active_requests: usize,
    /// Requests that wait.
    pub num_queued_requests: usize,
    /// Sequences in their context phase in this iteration.
    pub num_context_requests: usize,
    /// Sequences in their generation phase.
    pub num_gen_requests: usize,
    /// Prompt tokens processed.
    pub num_ctx_tokens: usize,
    /// KV-cache blocks in use.
    pub used_num_blocks: usize,
    /// KV-cache blocks in all.
    pub max_num_blocks: usize,
}
