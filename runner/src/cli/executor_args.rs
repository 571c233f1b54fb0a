//! What can be typed about the executor, in the programs that start one.

use clap::ValueEnum;

use crate::executor::{CapacitySchedulerPolicy, ExecutorConfig, KvCacheConfig, Limits};

/// How the executor runs, in the terms of TensorRT-LLM's `ExecutorConfig`.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Executor")]
pub(crate) struct ExecutorArgs {
    /// Worker threads [default: one for each core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,

    /// Tokens of prompt and output of a sequence at most; lowers the engine's limit
    #[arg(long, value_name = "N", value_parser = positive)]
    pub max_seq_len: Option<usize>,

    /// Sequences in one step at most; lowers the engine's limit
    #[arg(long, value_name = "N", value_parser = positive)]
    pub max_batch_size: Option<usize>,

    /// Tokens in one step at most; lowers the engine's limit
    #[arg(long, value_name = "N", value_parser = positive)]
    pub max_num_tokens: Option<usize>,

    /// Which requests run when the KV cache cannot hold all: `max_utilization` starts what fits now and may pause
    /// it later, `guaranteed_no_evict` only what fits to its end
    #[arg(long, value_name = "POLICY", value_enum, default_value_t = Policy::GuaranteedNoEvict)]
    pub capacity_scheduler_policy: Policy,

    /// Process long prompts over several steps, together with the tokens of other sequences [default: true]
    #[arg(long, value_name = "BOOL")]
    pub enable_chunked_context: Option<bool>,

    /// Tokens that the KV cache holds [default: as many as the limits can use and free memory allows]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub kv_cache_tokens: Option<usize>,

    /// Tokens of a block of the KV cache [default: 32]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub tokens_per_block: Option<usize>,

    /// Share KV-cache blocks between requests whose prompts begin alike [default: true]
    #[arg(long, value_name = "BOOL")]
    pub enable_block_reuse: Option<bool>,

    /// Requests that may wait [default: 65536]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub max_queue_size: Option<usize>,
}

/// [`CapacitySchedulerPolicy`], by TensorRT-LLM's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Policy {
    /// Start what fits now; pause the latest when blocks run out.
    MaxUtilization,
    /// Start only what fits to its end.
    GuaranteedNoEvict,
}

/// A limit that is above the engine's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("--{flag} {asked} is above the engine's {limit}: a run may only lower it; build the engine with a higher one")]
pub(crate) struct AboveLimit {
    flag: &'static str,
    asked: usize,
    limit: usize,
}

impl ExecutorArgs {
    /// The executor's configuration; what was not given is as in [`ExecutorConfig::default`].
    pub(crate) fn config(&self) -> ExecutorConfig {
        let default = ExecutorConfig::default();
        ExecutorConfig {
            threads: self.threads.map(usize::from),
            max_seq_len: self.max_seq_len,
            max_batch_size: self.max_batch_size,
            max_num_tokens: self.max_num_tokens,
            capacity_scheduler_policy: match self.capacity_scheduler_policy {
                Policy::MaxUtilization => CapacitySchedulerPolicy::MaxUtilization,
                Policy::GuaranteedNoEvict => CapacitySchedulerPolicy::GuaranteedNoEvict,
            },
            enable_chunked_context: self.enable_chunked_context.unwrap_or(default.enable_chunked_context),
            kv_cache: KvCacheConfig {
                max_tokens: self.kv_cache_tokens,
                tokens_per_block: self.tokens_per_block.unwrap_or(default.kv_cache.tokens_per_block),
                enable_block_reuse: self.enable_block_reuse.unwrap_or(default.kv_cache.enable_block_reuse),
                ..default.kv_cache
            },
            max_queue_size: self.max_queue_size.unwrap_or(default.max_queue_size),
            iter_stats_max_iterations: default.iter_stats_max_iterations,
        }
    }

    /// Compares what was asked for with what the engine was built for.
    pub(crate) fn check(&self, engine: Limits) -> Result<(), AboveLimit> {
        let limits = [
            ("max-seq-len", self.max_seq_len, engine.max_seq_len),
            ("max-batch-size", self.max_batch_size, engine.max_batch_size),
            ("max-num-tokens", self.max_num_tokens, engine.max_num_tokens),
        ];
        match limits.into_iter().find_map(|(flag, asked, limit)| Some((flag, asked.filter(|&n| n > limit)?, limit))) {
            Some((flag, asked, limit)) => Err(AboveLimit { flag, asked, limit }),
            None => Ok(()),
        }
    }
}

/// A number from 1.
fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Typed {
        #[command(flatten)]
        executor: ExecutorArgs,
    }

    fn typed(arguments: &str) -> ExecutorArgs {
        Typed::try_parse_from(["program"].into_iter().chain(arguments.split_whitespace())).unwrap().executor
    }

    #[test]
    fn what_is_not_given_is_the_default() {
        assert_eq!(typed("").config(), ExecutorConfig::default());
    }

    #[test]
    fn every_flag_reaches_its_field() {
        let config = typed(
            "--threads 2 --max-seq-len 3 --max-batch-size 4 --max-num-tokens 5 --max-queue-size 9
             --capacity-scheduler-policy max_utilization --enable-chunked-context false --kv-cache-tokens 64
             --tokens-per-block 8 --enable-block-reuse false",
        )
        .config();
        let expected = ExecutorConfig {
            threads: Some(2),
            max_seq_len: Some(3),
            max_batch_size: Some(4),
            max_num_tokens: Some(5),
            capacity_scheduler_policy: CapacitySchedulerPolicy::MaxUtilization,
            enable_chunked_context: false,
            kv_cache: KvCacheConfig {
                max_tokens: Some(64),
                tokens_per_block: 8,
                enable_block_reuse: false,
                ..KvCacheConfig::default()
            },
            max_queue_size: 9,
            ..ExecutorConfig::default()
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn limits_may_be_lowered_only() {
        let engine = Limits { max_seq_len: 100, max_batch_size: 8, max_num_tokens: 64 };
        assert_eq!(typed("--max-seq-len 100 --max-batch-size 1 --max-num-tokens 64").check(engine), Ok(()));
        let error = typed("--max-batch-size 9").check(engine).unwrap_err().to_string();
        assert!(error.contains("--max-batch-size 9") && error.contains("engine's 8"), "{error}");
    }
}
