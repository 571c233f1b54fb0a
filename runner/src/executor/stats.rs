//! Statistics of an executor's iterations, in the terms of TensorRT-LLM's `IterationStats`.

use std::time::Duration;

/// One iteration (one forward pass).
#[derive(Debug, Clone, PartialEq)]
pub struct IterationStats {
    /// Number of the iteration, from 0.
    pub iter: u64,
    /// Wall time of the iteration, from taking requests in to delivering responses.
    pub iter_latency: Duration,
    /// The part of it that the model took; the rest is scheduling, sampling and delivery.
    pub model_latency: Duration,
    /// Time that the requests which became active waited in the queue, in sum.
    pub new_active_requests_queue_latency: Duration,
    /// Requests that became active.
    pub num_new_active_requests: usize,
    /// Requests being worked on.
    pub num_active_requests: usize,
    /// Requests that wait.
    pub num_queued_requests: usize,
    /// Requests that ended.
    pub num_completed_requests: usize,
    /// The KV cache after the iteration.
    pub kv_cache: KvCacheStats,
    /// What was batched.
    pub inflight_batching: InflightBatchingStats,
}

/// How busy an executor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Load {
    /// Requests that wait.
    pub num_queued_requests: usize,
    /// Requests being worked on.
    pub num_active_requests: usize,
    /// KV-cache blocks that sequences hold.
    pub used_num_blocks: usize,
    /// KV-cache blocks that no sequence holds, those kept for reuse among them.
    pub free_num_blocks: usize,
    /// KV-cache blocks in all.
    pub max_num_blocks: usize,
    /// Wall time of the last iteration; zero before the first.
    pub last_iteration: Duration,
}

/// The state of the KV cache; counters are sums since the executor's start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct KvCacheStats {
    /// Blocks in all.
    pub max_num_blocks: usize,
    /// Blocks that no sequence holds, those kept for reuse among them.
    pub free_num_blocks: usize,
    /// Blocks that sequences hold.
    pub used_num_blocks: usize,
    /// Tokens of one block.
    pub tokens_per_block: usize,
    /// Blocks handed to sequences, new and reused.
    pub alloc_total_blocks: u64,
    /// Blocks handed to sequences to be filled.
    pub alloc_new_blocks: u64,
    /// Blocks handed to sequences already filled.
    pub reused_blocks: u64,
    /// Full blocks of prompts that were looked for and not found.
    pub missed_blocks: u64,
}

impl KvCacheStats {
    /// Share of the looked-for prompt blocks that were found.
    pub fn cache_hit_rate(&self) -> f64 {
        let sought = self.reused_blocks + self.missed_blocks;
        if sought == 0 { 0.0 } else { self.reused_blocks as f64 / sought as f64 }
    }
}

/// What one iteration batched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InflightBatchingStats {
    /// Sequences in the iteration.
    pub num_scheduled_requests: usize,
    /// Sequences in their context phase.
    pub num_context_requests: usize,
    /// Sequences in their generation phase.
    pub num_gen_requests: usize,
    /// Sequences that were paused to make room.
    pub num_paused_requests: usize,
    /// Prompt tokens processed.
    pub num_ctx_tokens: usize,
}
