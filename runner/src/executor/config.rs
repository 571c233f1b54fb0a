//! An executor's configuration, in the terms of TensorRT-LLM's `ExecutorConfig`.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Limits;
use super::tensorrt_llm_config::TensorRtLlmConfig;

/// Tokens of one KV-cache block at most: a larger one would waste most of the cache on short sequences.
pub const MAX_TOKENS_PER_BLOCK: usize = 1024;

/// Settings of an executor; the defaults are TensorRT-LLM's where it has them. Read from TOML, the names are those of the
/// fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExecutorConfig {
    /// Worker threads of the CPU executor; `None` for one per physical core that the process may use.
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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KvCacheConfig {
    /// Tokens that it holds; `None` for as many as [`KvCacheConfig::free_memory_fraction`] allows and the limits can use.
    pub max_tokens: Option<usize>,
    /// Bytes that it takes at most, on each rank; `None` for as many as the other settings allow.
    pub max_bytes: Option<usize>,
    /// Share of free memory that it may take.
    pub free_memory_fraction: f64,
    /// Tokens of one block.
    pub tokens_per_block: usize,
    /// Whether blocks of equal prefixes are shared between requests.
    pub enable_block_reuse: bool,
    /// What the CPU executor stores keys and values as. That of a TensorRT engine is built in.
    pub dtype: KvCacheDtype,
}

/// What keys and values are stored as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KvCacheDtype {
    /// bfloat16.
    #[default]
    Bf16,
    /// Eight bits, with a scale for each 32 elements of a token: about half the bytes.
    Int8,
}

impl KvCacheDtype {
    /// All of them.
    pub const ALL: [KvCacheDtype; 2] = [KvCacheDtype::Bf16, KvCacheDtype::Int8];

    /// The name that settings know it by.
    pub const fn name(self) -> &'static str {
        match self {
            KvCacheDtype::Bf16 => "bf16",
            KvCacheDtype::Int8 => "int8",
        }
    }

    /// What follows `KV cache` in a sentence: nothing for the default.
    pub const fn mention(self) -> &'static str {
        match self {
            KvCacheDtype::Bf16 => "",
            KvCacheDtype::Int8 => " in int8",
        }
    }
}

impl fmt::Display for KvCacheDtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Which requests run when the KV cache cannot hold all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CapacitySchedulerPolicy {
    /// As many as fit now; when blocks run out, the latest are paused and computed again later.
    MaxUtilization,
    /// Only what fits to its end: a request that has started is never paused.
    #[default]
    GuaranteedNoEvict,
}

pub use system::pool::MAX_THREADS;

/// A setting outside its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} must be {range}, not {value}")]
pub struct ConfigError {
    /// The setting, by its path in [`ExecutorConfig`], for example `kv_cache.max_tokens`.
    pub field: &'static str,
    /// What is accepted.
    pub range: &'static str,
    /// What was given.
    pub value: String,
}

impl ExecutorConfig {
    /// Checks every setting that has a range of its own, whatever the engine; an engine's limits are checked when it starts.
    ///
    /// # Errors
    /// The first setting that is outside its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let numbers = [
            ("threads", self.threads, MAX_THREADS, "from 1 to 1024"),
            ("max_seq_len", self.max_seq_len, usize::MAX, "at least 1"),
            ("max_batch_size", self.max_batch_size, usize::MAX, "at least 1"),
            ("max_num_tokens", self.max_num_tokens, usize::MAX, "at least 1"),
            ("max_queue_size", Some(self.max_queue_size), usize::MAX, "at least 1"),
            ("kv_cache.max_tokens", self.kv_cache.max_tokens, usize::MAX, "at least 1"),
            ("kv_cache.max_bytes", self.kv_cache.max_bytes, usize::MAX, "at least 1"),
            ("kv_cache.tokens_per_block", Some(self.kv_cache.tokens_per_block), MAX_TOKENS_PER_BLOCK, "from 1 to 1024"),
        ];
        for (field, number, max, range) in numbers {
            if let Some(value) = number.filter(|&number| number == 0 || number > max) {
                return Err(ConfigError { field, range, value: value.to_string() });
            }
        }
        let fraction = self.kv_cache.free_memory_fraction;
        if fraction > 0.0 && fraction <= 1.0 {
            return Ok(());
        }
        let (field, range) = ("kv_cache.free_memory_fraction", "above 0 and at most 1");
        Err(ConfigError { field, range, value: fraction.to_string() })
    }
}

/// A limit above what it can be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} must be from 1 to {limit}, not {asked}")]
pub struct LimitError {
    /// The limit, by its name in [`ExecutorConfig`].
    pub name: &'static str,
    /// What was asked for.
    pub asked: usize,
    /// The most: the engine's, where it is a limit of engines.
    pub limit: usize,
}

impl ExecutorConfig {
    /// The limits of an engine, lowered as the configuration asks.
    ///
    /// # Errors
    /// A limit above the engine's.
    pub fn lowered(&self, engine: Limits) -> Result<Limits, LimitError> {
        let lower = |name, asked: Option<usize>, limit| match asked {
            Some(asked) if asked == 0 || asked > limit => Err(LimitError { name, asked, limit }),
            asked => Ok(asked.unwrap_or(limit)),
        };
        Ok(Limits {
            max_seq_len: lower("max_seq_len", self.max_seq_len, engine.max_seq_len)?,
            max_batch_size: lower("max_batch_size", self.max_batch_size, engine.max_batch_size)?,
            max_num_tokens: lower("max_num_tokens", self.max_num_tokens, engine.max_num_tokens)?,
        })
    }
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
        Self {
            max_tokens: None,
            max_bytes: None,
            free_memory_fraction: 0.9,
            tokens_per_block: 32,
            enable_block_reuse: true,
            dtype: KvCacheDtype::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_outside_their_range_are_named() {
        let check = |text: &str, expected: &str| {
            let config: ExecutorConfig = toml::from_str(text).unwrap();
            assert_eq!(config.validate().unwrap_err().to_string(), expected);
        };
        check("threads = 0", "threads must be from 1 to 1024, not 0");
        check("threads = 1025", "threads must be from 1 to 1024, not 1025");
        check("max_seq_len = 0", "max_seq_len must be at least 1, not 0");
        check("max_batch_size = 0", "max_batch_size must be at least 1, not 0");
        check("max_num_tokens = 0", "max_num_tokens must be at least 1, not 0");
        check("max_queue_size = 0", "max_queue_size must be at least 1, not 0");
        check("kv_cache.max_tokens = 0", "kv_cache.max_tokens must be at least 1, not 0");
        check("kv_cache.max_bytes = 0", "kv_cache.max_bytes must be at least 1, not 0");
        check("kv_cache.tokens_per_block = 0", "kv_cache.tokens_per_block must be from 1 to 1024, not 0");
        for dtype in KvCacheDtype::ALL {
            let config: ExecutorConfig = toml::from_str(&format!("kv_cache.dtype = '{dtype}'")).unwrap();
            assert_eq!(config.kv_cache.dtype, dtype);
        }
        let error = toml::from_str::<ExecutorConfig>("kv_cache.dtype = 'int4'").unwrap_err().to_string();
        assert!(error.contains("`int4`") && error.contains("`bf16` or `int8`"), "{error}");
        for fraction in ["5.0", "-1.0", "nan", "0.0"] {
            let config: ExecutorConfig =
                toml::from_str(&format!("kv_cache.free_memory_fraction = {fraction}")).unwrap();
            let error = config.validate().unwrap_err().to_string();
            assert!(error.starts_with("kv_cache.free_memory_fraction must be above 0 and at most 1, not "), "{error}");
        }
        assert_eq!(ExecutorConfig::default().validate(), Ok(()));
    }
}
