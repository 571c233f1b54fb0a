//! An engine that a program runs: described in a line, shut down at the end.

use std::sync::Arc;

use args::exit::say;
use runner::engine::{Engine, Running};
use runner::executor::{Executor, ExecutorConfig, Shutdown};
use runner::inflight::KvCacheBound;

use crate::format::{counted, short_count};

/// Shuts an executor down at the end of a run, whichever way that comes. The signal handler holds the executor too, so dropping ours
/// would not; ranks that are processes of their own end with it only.
pub(crate) struct Closing(pub(crate) Arc<dyn Executor>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.shutdown(Shutdown::Cancel);
    }
}

/// What runs, in a line.
pub(crate) fn describe(engine: &Engine, config: &ExecutorConfig) {
    let (dir, limits) = (engine.dir(), engine.executor().limits());
    let parameters = short_count(dir.config().parameters() as f64);
    let what = match engine.running() {
        Running::Cpu(executor) => {
            let facts = executor.facts();
            let (tokens, bytes) = (facts.kv_cache_tokens, indicatif::HumanBytes(facts.kv_cache_bytes as u64));
            format!(
                "{} weights; CPU ({}, {}); KV cache{} of {} (up to {bytes}, taken as it fills)",
                facts.weight_type,
                facts.kernels(),
                counted(facts.threads, "thread"),
                facts.kv_cache_dtype.mention(),
                counted(tokens, "token")
            )
        }
        Running::TensorRtLlm(executor) => {
            let facts = executor.facts();
            let ranks = match facts.world_size {
                1 => String::new(),
                size => format!(", {size} ranks"),
            };
            format!(
                "TensorRT-LLM {}{ranks}; max_batch_size {}, max_seq_len {}",
                facts.version, limits.max_batch_size, limits.max_seq_len
            )
        }
    };
    say(format_args!(
        "{}: {}, {parameters} parameters; {what}",
        dir.path().display(),
        dir.config().architecture.name()
    ));
    if engine.end_ids().is_empty() {
        say(format_args!("warning: {}", text::end_ids::why_none(dir)));
    }
    let engine_limit = dir.manifest().limits.max_seq_len;
    let asked = config.max_seq_len.unwrap_or(engine_limit);
    let max_seq_len = limits.max_seq_len;
    if max_seq_len < asked {
        let bound = match engine.running() {
            Running::Cpu(executor) => Some(&executor.facts().kv_cache_bound),
            Running::TensorRtLlm(_) => None,
        };
        let cause = match bound {
            Some(KvCacheBound::MaxTokens) => "kv_cache.max_tokens (--kv-cache-tokens)".to_owned(),
            Some(KvCacheBound::MaxBytes) => "kv_cache.max_bytes (--kv-cache-bytes)".to_owned(),
            Some(KvCacheBound::Memory(limit)) => format!("free memory ({limit})"),
            _ => "the KV cache".to_owned(),
        };
        say(format_args!(
            "warning: {cause} allows sequences of {} only, the engine {engine_limit}",
            counted(max_seq_len, "token")
        ));
    }
}
