//! The executor contract over a CPU model: in-flight batching.
//!
//! One owner thread drives `schedule → forward → sample → respond`; everything else only puts requests into a queue and
//! takes responses out of one. In reading order:
//!
//! | module | what it holds |
//! | --- | --- |
//! | `queue` | what callers and the owner share |
//! | `owner` | the loop |
//! | `scheduler` | which tokens an iteration computes; pure |
//! | `kv_cache`, `prefix` | which block belongs to whom, and which hold a prefix; pure |
//! | `running`, `sampler`, `stop` | one sequence: how its tokens are chosen, and when it ends; pure |
//! | `beam` | beam search; pure |

mod beam;
mod kv_cache;
mod owner;
mod prefix;
mod queue;
mod running;
mod sampler;
mod scheduler;
#[cfg(test)]
mod scheduler_tests;
mod stop;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use engine_format::EngineDir;
use engine_format::weights_file::WEIGHTS_FILE;

use crate::cpu_model::{CachedCpuModel, CpuModel, CpuModelError};
use crate::executor::{
    EnqueueError, Executor, ExecutorConfig, GuidedDecodingParams, IterationStats, KvCacheConfig, Limits, Load, Request,
    RequestId, Response, Shutdown, TokenId,
};
use crate::model::Model;
use text::guide::{Guide, GuideFactory};
use text::tokenizer::Tokenizer;

use kv_cache::BlockManager;
use queue::Queue;
use scheduler::{Scheduler, SchedulerConfig, worst_case_blocks};

pub use sampler::{Mask, Sampler, best, top_log_probs};
pub use stop::is_stopped;

/// An executor that runs a CPU engine in this process.
#[derive(Debug)]
pub struct CpuExecutor {
    limits: Limits,
    facts: CpuExecutorFacts,
    enable_chunked_context: bool,
    /// Where guides find the tokenizer.
    engine: Option<PathBuf>,
    guides: OnceLock<Result<GuideFactory, String>>,
    num_blocks: usize,
    tokens_per_block: usize,
    queue: Arc<Queue>,
    owner: Mutex<Option<JoinHandle<()>>>,
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

/// What messages call this executor.
const NAME: &str = "the CPU executor";

/// A block larger than this would waste most of the cache on short sequences.
const MAX_TOKENS_PER_BLOCK: usize = 1024;

impl CpuExecutor {
    /// Opens a CPU engine and starts its owner thread.
    ///
    /// The KV cache holds as many tokens as the limits can use, or as much of that as the configuration and free memory
    /// allow; where that is less than the engine's longest sequence, the executor's `max_seq_len` is lower.
    ///
    /// # Errors
    /// [`CpuModelError`].
    pub fn open(engine: &EngineDir, config: &ExecutorConfig) -> Result<Self, CpuModelError> {
        let limits = lowered(engine.manifest().limits, config)?;
        check_blocks(&config.kv_cache)?;
        let model = CpuModel::open(engine, config.threads)?;
        let weights = engine.manifest().files.get(WEIGHTS_FILE).map_or(0, |record| record.bytes);
        let num_blocks = num_blocks(&config.kv_cache, limits, model.config().kv_bytes_per_token(), weights);
        let threads = model.pool().current_num_threads();
        let model = CachedCpuModel::new(model, num_blocks, config.kv_cache.tokens_per_block);
        Self::start(model, threads, limits, Some(engine.path().to_owned()), config)
    }

    /// Starts an owner thread over a model whose KV cache exists; the settings of the cache's size are not looked at.
    /// `limits` are the model's, which the configuration and the size of the cache may lower. Guides, which need a
    /// tokenizer, are refused.
    ///
    /// # Errors
    /// [`CpuModelError`].
    pub fn with_model(
        model: impl Model + 'static,
        limits: Limits,
        config: &ExecutorConfig,
    ) -> Result<Self, CpuModelError> {
        let threads = model.pool().current_num_threads();
        Self::start(model, threads, lowered(limits, config)?, None, config)
    }

    fn start(
        model: impl Model + 'static,
        threads: usize,
        mut limits: Limits,
        engine: Option<PathBuf>,
        config: &ExecutorConfig,
    ) -> Result<Self, CpuModelError> {
        let (num_blocks, tokens_per_block) = (model.num_blocks(), model.tokens_per_block());
        let kv_cache_tokens = num_blocks * tokens_per_block;
        limits.max_seq_len = limits.max_seq_len.min(kv_cache_tokens);
        let facts = CpuExecutorFacts {
            isa: model.kernels().isa(),
            threads,
            kv_cache_tokens,
            kv_cache_bytes: num_blocks * model.bytes_per_block(),
            vocab_size: model.vocab_size(),
        };
        let scheduler_config = SchedulerConfig {
            max_batch_size: limits.max_batch_size,
            max_num_tokens: limits.max_num_tokens,
            policy: config.capacity_scheduler_policy,
            enable_chunked_context: config.enable_chunked_context,
        };
        let scheduler = Scheduler::new(scheduler_config, BlockManager::new(num_blocks, tokens_per_block));
        let queue = Arc::new(Queue::new(config, scheduler.blocks().stats()));
        let (owner_queue, reuse) = (queue.clone(), config.kv_cache.enable_block_reuse);
        let owner = std::thread::Builder::new()
            .name("cpu-executor".into())
            .spawn(move || owner::run(&owner_queue, model, scheduler, reuse))
            .map_err(|source| CpuModelError::Owner { threads, source })?;
        let enable_chunked_context = config.enable_chunked_context;
        let (guides, owner) = (OnceLock::new(), Mutex::new(Some(owner)));
        Ok(Self { limits, facts, enable_chunked_context, engine, guides, num_blocks, tokens_per_block, queue, owner })
    }

    /// Compiles a guide. The first one reads the engine's tokenizer, which nothing else here needs.
    fn guide(&self, params: &GuidedDecodingParams, end_ids: &[TokenId]) -> Result<Guide, EnqueueError> {
        let Some(engine) = &self.engine else {
            let feature = "guides over a model without a tokenizer".to_owned();
            return Err(EnqueueError::Unsupported { executor: NAME, feature });
        };
        let factory = self.guides.get_or_init(|| {
            let tokenizer = Tokenizer::open(engine).map_err(|error| engine_format::error::with_causes(&error))?;
            GuideFactory::new(&tokenizer, self.facts.vocab_size)
                .map_err(|error| engine_format::error::with_causes(&error))
        });
        match factory {
            Ok(factory) => Ok(factory.compile(params, end_ids)?),
            Err(problem) => Err(EnqueueError::Guide { kind: params.kind(), problem: problem.clone() }),
        }
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
        let spec = request.spec();
        let unknown =
            [("LoRA adapters", spec.lora.is_some()), ("KV-cache retention", spec.kv_cache_retention.is_some())];
        if let Some((feature, _)) = unknown.into_iter().find(|&(_, asked)| asked) {
            return Err(EnqueueError::Unsupported { executor: NAME, feature: feature.to_owned() });
        }
        let prompt_len = spec.input_token_ids.len();
        if !self.enable_chunked_context && prompt_len > self.limits.max_num_tokens {
            let max_num_tokens = self.limits.max_num_tokens;
            return Err(EnqueueError::PromptTooLong { prompt: prompt_len, max_num_tokens });
        }
        let max_cached = prompt_len + spec.max_tokens - 1;
        let needed = worst_case_blocks(self.tokens_per_block, prompt_len, max_cached, spec.sampling.beam_width);
        if needed > self.num_blocks {
            return Err(EnqueueError::KvCacheTooSmall { needed, max_num_blocks: self.num_blocks });
        }
        let guide = spec.guided_decoding.as_ref().map(|params| self.guide(params, &spec.end_ids)).transpose()?;
        self.queue.enqueue(request, guide)
    }

    fn await_responses(&self, timeout: Option<Duration>) -> Vec<Response> {
        self.queue.await_responses(timeout)
    }

    fn cancel(&self, request: RequestId) {
        self.queue.cancel(request);
    }

    fn cancel_sequence(&self, request: RequestId, sequence_index: usize) {
        self.queue.cancel_sequence(request, sequence_index);
    }

    fn load(&self) -> Load {
        self.queue.load()
    }

    fn iteration_stats(&self) -> Vec<IterationStats> {
        self.queue.take_stats()
    }

    fn shutdown(&self, how: Shutdown) {
        self.queue.close(how);
        // The lock is held while joining, so that a second caller waits too.
        let mut owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(owner) = owner.take() {
            // A panic of the owner has already ended its requests with an error each.
            let _ = owner.join();
        }
    }

    fn cancel_all(&self) {
        self.queue.close(Shutdown::Cancel);
    }
}

impl Drop for CpuExecutor {
    fn drop(&mut self) {
        self.shutdown(Shutdown::Cancel);
    }
}

/// The engine's limits, lowered as the configuration asks.
fn lowered(engine: Limits, config: &ExecutorConfig) -> Result<Limits, CpuModelError> {
    let lower = |name, asked: Option<usize>, limit| match asked {
        Some(asked) if asked == 0 || asked > limit => Err(CpuModelError::Limit { name, asked, limit }),
        asked => Ok(asked.unwrap_or(limit)),
    };
    Ok(Limits {
        max_seq_len: lower("max_seq_len", config.max_seq_len, engine.max_seq_len)?,
        max_batch_size: lower("max_batch_size", config.max_batch_size, engine.max_batch_size)?,
        max_num_tokens: lower("max_num_tokens", config.max_num_tokens, engine.max_num_tokens)?,
    })
}

/// Whether the settings leave at least one block, of a size that makes sense.
fn check_blocks(config: &KvCacheConfig) -> Result<(), CpuModelError> {
    let tokens_per_block = config.tokens_per_block;
    if tokens_per_block == 0 || tokens_per_block > MAX_TOKENS_PER_BLOCK {
        let (name, limit) = ("tokens_per_block", MAX_TOKENS_PER_BLOCK);
        return Err(CpuModelError::Limit { name, asked: tokens_per_block, limit });
    }
    match config.max_tokens.filter(|&tokens| tokens < tokens_per_block) {
        Some(tokens) => Err(CpuModelError::KvCacheTokens { tokens, tokens_per_block }),
        None => Ok(()),
    }
}

/// Blocks of the KV cache: what the configuration or the limits ask for, at most what fits into free memory beside
/// `weights` bytes of weights, at least one.
fn num_blocks(config: &KvCacheConfig, limits: Limits, bytes_per_token: usize, weights: u64) -> usize {
    let tokens_per_block = config.tokens_per_block;
    let affordable = free_memory().map_or(usize::MAX, |free| {
        affordable(free, weights, config.free_memory_fraction) / bytes_per_token / tokens_per_block
    });
    let wanted = match config.max_tokens {
        Some(tokens) => tokens.div_ceil(tokens_per_block),
        None => limits.max_seq_len.div_ceil(tokens_per_block).saturating_mul(limits.max_batch_size),
    };
    wanted.min(affordable).max(1)
}

/// Bytes that the cache may take: a share of what is free once the weights, which are mapped, are in memory. Where they
/// fill it, an eighth is taken all the same, at the price of reading weights again.
fn affordable(free: u64, weights: u64, fraction: f64) -> usize {
    (free.saturating_sub(weights).max(free / 8) as f64 * fraction) as usize
}

/// Bytes that the system can give without swapping: `MemAvailable` of `/proc/meminfo`; `None` where there is none.
fn free_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
