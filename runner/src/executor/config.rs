//! An executor's configuration, in the terms of TensorRT-LLM's `ExecutorConfig`.

use serde::Deserialize;

use super::TensorRtLlmConfig;

/// Settings of an executor; the defaults are TensorRT-LLM's where it has them. Read from TOML, the names are those of the
/// fields.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExecutorConfig {
    /// Worker threads of the CPU executor; `None` for one per core that the process may use.
    pub threads: Option<usize>,
    /// Longest sequence, prompt and output together; lowers the engine's limit.
    pub max_seq_len: Option<usize>,
    /// Sequences in one iteration; lowers the engine's limit.
    pub max_batch_size: Option<usize>,
    /// Tokens in one iteration; lowers the engine's limit.
    pub max_num_tokens: Option<usize>,
    /// Which requests run when the KV cache cannot hold all.
    pub capacity_scheduler_policy: CapacitySchedulerPolicy,
    /// Whether a prompt may be processed over several iterations; without, it must fit into `max_num_tokens`.
    pub enable_chunked_context: bool,
    /// The KV cache.
    pub kv_cache: KvCacheConfig,
    /// Requests that may wait; further ones are refused.
    pub max_queue_size: usize,
    /// Iterations whose statistics are kept until they are asked for; 0 for none.
    pub iter_stats_max_iterations: usize,
    /// What only TensorRT-LLM's executor can be told; the CPU executor does not look at it.
    pub tensorrt_llm: TensorRtLlmConfig,
}

/// Settings of the KV cache.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KvCacheConfig {
    /// Tokens that it holds; `None` for as many as [`KvCacheConfig::free_memory_fraction`] allows and the limits can use.
    pub max_tokens: Option<usize>,
    /// Share of free memory that it may take.
    pub free_memory_fraction: f64,
    /// Tokens of one block.
    pub tokens_per_block: usize,
    /// Whether blocks of equal prefixes are shared between requests.
    pub enable_block_reuse: bool,
}

/// Which requests run when the KV cache cannot hold all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CapacitySchedulerPolicy {
    /// As many as fit now; when blocks run out, the latest are paused and computed again later.
    MaxUtilization,
    /// Only what fits to its end: a request that has started is never paused.
    #[default]
    GuaranteedNoEvict,
}

impl Default for ExecutorConfig {
    fn default() -> Self {
        Self {
            threads: None,
            max_seq_len: None,
            max_batch_size: None,
            max_num_tokens: None,
            capacity_scheduler_policy: CapacitySchedulerPolicy::default(),
            enable_chunked_context: true,
            kv_cache: KvCacheConfig::default(),
            max_queue_size: 65_536,
            iter_stats_max_iterations: 1000,
            tensorrt_llm: TensorRtLlmConfig::default(),
        }
    }
}

impl Default for KvCacheConfig {
    fn default() -> Self {
        Self { max_tokens: None, free_memory_fraction: 0.9, tokens_per_block: 32, enable_block_reuse: true }
    }
}
