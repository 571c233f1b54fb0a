//! An executor's configuration.

/// Settings of an executor; the defaults are TensorRT-LLM's where it has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecutorConfig {
    /// Worker threads of the CPU executor; `None` for one per core that the process may use.
    pub threads: Option<usize>,
    /// Tokens of the KV cache; `None` for as many as the engine's longest sequence and free memory allow.
    pub kv_cache_tokens: Option<usize>,
    /// Requests that may wait; further ones are refused.
    pub max_queue_size: usize,
    /// Iterations whose statistics are kept until they are asked for.
    pub iter_stats_max_iterations: usize,
}

impl Default for ExecutorConfig {
    fn default() -> Self {
        Self { threads: None, kv_cache_tokens: None, max_queue_size: 65_536, iter_stats_max_iterations: 1000 }
    }
}
