//! The executor contract over a CPU model.
//!
//! One owner thread drives `schedule → forward → sample → respond`; everything else only puts requests into a queue and
//! takes responses out of one. In this version the owner runs one request at a time, in the order of their arrival.

mod owner;
mod queue;
mod sampler;
mod stop;

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use engine_format::EngineDir;

use crate::cpu_model::{CpuModel, CpuModelError, KvCache, TOKENS_PER_BLOCK};
use crate::executor::{
    EnqueueError, Executor, ExecutorConfig, IterationStats, Limits, Request, RequestId, Response, Shutdown,
};

use queue::Queue;

pub use sampler::{Sampler, best, top_log_probs};
pub use stop::is_stopped;

/// An executor that runs a CPU engine in this process.
#[derive(Debug)]
pub struct CpuExecutor {
    limits: Limits,
    facts: CpuExecutorFacts,
    queue: Arc<Queue>,
    owner: std::sync::Mutex<Option<JoinHandle<()>>>,
}

/// What a CPU executor found out about itself.
#[derive(Debug, Clone)]
pub struct CpuExecutorFacts {
    /// The instruction set of its kernels.
    pub isa: cpu_kernels::Isa,
    /// Its worker threads.
    pub threads: usize,
    /// Tokens that its KV cache holds.
    pub kv_cache_tokens: usize,
    /// Bytes of its KV cache, when full.
    pub kv_cache_bytes: usize,
    /// Size of the model's vocabulary.
    pub vocab_size: usize,
}

/// Share of free memory that the KV cache may take; TensorRT-LLM's default `free_gpu_memory_fraction`.
const FREE_MEMORY_FRACTION: f64 = 0.9;

impl CpuExecutor {
    /// Opens a CPU engine and starts its owner thread.
    ///
    /// The KV cache holds the engine's longest sequence, or as much of it as fits into free memory; the executor's
    /// `max_seq_len` is then lower than the engine's.
    ///
    /// # Errors
    /// [`CpuModelError`].
    pub fn open(engine: &EngineDir, config: &ExecutorConfig) -> Result<Self, CpuModelError> {
        let model = CpuModel::open(engine, config.threads)?;
        let mut limits = engine.manifest().limits;
        let bytes_per_token = model.config().kv_bytes_per_token();
        let affordable = free_memory()
            .map(|bytes| (bytes as f64 * FREE_MEMORY_FRACTION) as usize / bytes_per_token)
            .map(|tokens| tokens / TOKENS_PER_BLOCK * TOKENS_PER_BLOCK)
            .unwrap_or(usize::MAX);
        let wanted = config.kv_cache.max_tokens.unwrap_or(limits.max_seq_len).min(limits.max_seq_len);
        limits.max_seq_len = wanted.min(affordable.max(TOKENS_PER_BLOCK));
        let cache = KvCache::new(model.config(), limits.max_seq_len);
        let kv_cache_tokens = cache.num_blocks() * TOKENS_PER_BLOCK;
        let facts = CpuExecutorFacts {
            isa: model.isa(),
            threads: model.threads(),
            kv_cache_tokens,
            kv_cache_bytes: kv_cache_tokens * bytes_per_token,
            vocab_size: model.config().vocab_size,
        };
        let queue = Arc::new(Queue::new(config));
        let (owner_queue, threads) = (queue.clone(), model.threads());
        let owner = std::thread::Builder::new()
            .name("cpu-executor".into())
            .spawn(move || owner::run(&owner_queue, &model, cache, limits))
            .map_err(|source| CpuModelError::Owner { threads, source })?;
        Ok(Self { limits, facts, queue, owner: std::sync::Mutex::new(Some(owner)) })
    }

    /// Takes no more requests and ends those that there are; unlike [`Executor::shutdown`], does not wait for their end.
    pub fn cancel_all(&self) {
        self.queue.close(Shutdown::Cancel);
    }

    /// What the executor found out about itself.
    pub fn facts(&self) -> &CpuExecutorFacts {
        &self.facts
    }
}

impl Executor for CpuExecutor {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn vocab_size(&self) -> usize {
        self.facts.vocab_size
    }

    fn enqueue(&self, request: Request) -> Result<RequestId, EnqueueError> {
        self.queue.enqueue(request)
    }

    fn await_responses(&self, timeout: Option<Duration>) -> Vec<Response> {
        self.queue.await_responses(timeout)
    }

    fn cancel(&self, request: RequestId) {
        self.queue.cancel(request);
    }

    fn iteration_stats(&self) -> Vec<IterationStats> {
        self.queue.take_stats()
    }

    fn shutdown(&self, how: Shutdown) {
        self.queue.close(how);
        let owner = self.owner.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if let Some(owner) = owner {
            // A panic of the owner has already ended its requests with an error each.
            let _ = owner.join();
        }
    }
}

impl Drop for CpuExecutor {
    fn drop(&mut self) {
        self.shutdown(Shutdown::Cancel);
    }
}

/// Bytes that the system can give without swapping: `MemAvailable` of `/proc/meminfo`; `None` where there is none.
fn free_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
