//! TensorRT-LLM's statistics in the terms of the contract.

use std::time::Duration;

use trtllm_sys::gpu::GpuIterationStats;

use crate::executor::{InflightBatchingStats, IterationStats, KvCacheStats};

pub(super) fn to_stats(stats: &GpuIterationStats) -> IterationStats {
    let latency = |milliseconds: f64| Duration::try_from_secs_f64(milliseconds / 1e3).unwrap_or_default();
    let size = |count: i32| usize::try_from(count).unwrap_or(0);
    let sum = |count: i32| u64::try_from(count).unwrap_or(0);
    IterationStats {
        iter: stats.iter,
        iter_latency: latency(stats.iter_latency_ms),
        // TensorRT-LLM does not tell them apart.
        model_latency: latency(stats.iter_latency_ms),
        new_active_requests_queue_latency: latency(stats.new_active_requests_queue_latency_ms),
        num_new_active_requests: size(stats.num_new_active_requests),
        num_active_requests: size(stats.num_active_requests),
        num_queued_requests: size(stats.num_queued_requests),
        num_completed_requests: size(stats.num_completed_requests),
        kv_cache: KvCacheStats {
            max_num_blocks: size(stats.kv_max_num_blocks),
            free_num_blocks: size(stats.kv_free_num_blocks),
            used_num_blocks: size(stats.kv_used_num_blocks),
            tokens_per_block: size(stats.kv_tokens_per_block),
            alloc_total_blocks: sum(stats.kv_alloc_total_blocks),
            alloc_new_blocks: sum(stats.kv_alloc_new_blocks),
            reused_blocks: sum(stats.kv_reused_blocks),
            missed_blocks: sum(stats.kv_missed_blocks),
        },
        inflight_batching: InflightBatchingStats {
            num_scheduled_requests: size(stats.num_scheduled_requests),
            num_context_requests: size(stats.num_context_requests),
            num_gen_requests: size(stats.num_gen_requests),
            num_paused_requests: size(stats.num_paused_requests),
            num_ctx_tokens: size(stats.num_ctx_tokens),
        },
    }
}
