//! The executor contract over a model on this machine: in-flight batching.
//!
//! One owner thread drives `schedule → forward → sample → respond`; everything else only puts requests into a queue and
//! takes responses out of one. In reading order:
//!
//! | module | what it holds |
//! | --- | --- |
//! | `queue` | what callers and the owner share |
//! | `owner` | the loop, and in `owner::iteration` one turn of it |
//! | `scheduler` | which tokens an iteration computes; pure |
//! | `kv_cache`, `prefix` | which block belongs to whom, and which hold a prefix; pure |
//! | `pace` | how long passes take; pure |
//! | `prompt_scores` | what the model makes of a prompt |
//! | `running`, `sampler`, `stop` | one sequence: how its tokens are chosen, and when it ends; pure |
//! | `beam` | beam search; pure |
//! | `sizes`, `memory` | how large the KV cache is, and the memory of its blocks |

mod beam;
mod kv_cache;
mod memory;
mod owner;
mod pace;
mod prefix;
mod prompt_scores;
mod queue;
mod running;
mod sampler;
mod scheduler;
#[cfg(test)]
mod scheduler_tests;
mod sizes;
mod stop;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use engine_format::weights_file::WEIGHTS_FILE;
use engine_format::{EngineDir, WeightType};

use crate::cpu_model::{CachedCpuModel, CpuModel, CpuModelError, ForwardPass, bytes_per_token};
use crate::executor::{
    EnqueueError, Executor, ExecutorConfig, Guides, IterationStats, KvCacheDtype, Limits, Load, Request, RequestId,
    Response, Shutdown, check_logits,
};
use crate::model::Model;
use system::Machine;
use text::tokenizer::LazyTokenizer;

use kv_cache::BlockManager;
use memory::CacheMemory;
use owner::{most_logits_rows, room_for_logits};
use queue::Queue;
use scheduler::{Demand, Scheduler, SchedulerConfig, Size};
use sizes::{cache_size, check_blocks};

pub use sizes::KvCacheBound;

pub(crate) use prompt_scores::PromptScores;
pub(crate) use sampler::top_log_probs;

/// What benchmarks measure by itself; no part of the interface.
#[doc(hidden)]
pub mod internals {
    pub use super::sampler::{Mask, Sampler, best, top_log_probs};
}

/// An executor that runs a CPU engine in this process.
#[derive(Debug)]
pub struct CpuExecutor {
    limits: Limits,
    facts: CpuExecutorFacts,
    enable_chunked_context: bool,
    guides: Guides,
    num_blocks: usize,
    demand: Demand,
    queue: Arc<Queue>,
    owner: Mutex<Option<JoinHandle<()>>>,
}

/// What a CPU executor found out about itself.
#[derive(Debug, Clone)]
pub struct CpuExecutorFacts {
    /// The instruction set of its kernels.
    pub isa: cpu_kernels::Isa,
    /// The instructions that multiply the codes of weights in `int8` and `int4`, see [`cpu_kernels::Kernels::code_instructions`];
    /// `None` where no weights are codes.
    pub code_instructions: Option<&'static str>,
    /// What the model's matrices are stored as.
    pub weight_type: WeightType,
    /// Its worker threads.
    pub threads: usize,
    /// Tokens that its KV cache holds.
    pub kv_cache_tokens: usize,
    /// Bytes of its KV cache, when full.
    pub kv_cache_bytes: usize,
    /// What its KV cache stores keys and values as.
    pub kv_cache_dtype: KvCacheDtype,
    /// What bounds it.
    pub kv_cache_bound: KvCacheBound,
    /// Size of the model's vocabulary.
    pub vocab_size: usize,
}

impl CpuExecutorFacts {
    /// Its kernels in a few words: `avx512`, or `avx512, codes by AVX-512 VNNI` where weights are codes.
    pub fn kernels(&self) -> String {
        let codes =
            self.code_instructions.map_or_else(String::new, |instructions| format!(", codes by {instructions}"));
        format!("{}{codes}", self.isa)
    }
}

/// What messages call this executor.
const NAME: &str = "the CPU executor";

impl CpuExecutor {
    /// Opens a CPU engine and starts its owner thread.
    ///
    /// The KV cache holds as many tokens as the limits can use, or as much of that as the configuration and free memory
    /// allow; where the engine's longest sequence needs more than that, the executor's `max_seq_len` is lower. Of a model with a
    /// sliding window, a sequence needs no more than its window and the tokens of an iteration.
    ///
    /// # Errors
    /// [`CpuModelError`].
    pub fn open(engine: &EngineDir, config: &ExecutorConfig) -> Result<Self, CpuModelError> {
        Self::open_sharing(engine, Some(LazyTokenizer::of(engine.path())), config)
    }

    /// [`open`](Self::open) with a tokenizer that others use too; guides are refused without one.
    ///
    /// # Errors
    /// [`CpuModelError`].
    pub fn open_sharing(
        engine: &EngineDir,
        tokenizer: Option<LazyTokenizer>,
        config: &ExecutorConfig,
    ) -> Result<Self, CpuModelError> {
        Self::open_on(Machine::here(), engine, tokenizer, config)
    }

    /// [`open_sharing`](Self::open_sharing) on a machine that says how much memory there is: for tests.
    #[doc(hidden)]
    pub fn open_on(
        machine: Machine,
        engine: &EngineDir,
        tokenizer: Option<LazyTokenizer>,
        config: &ExecutorConfig,
    ) -> Result<Self, CpuModelError> {
        let limits = config.lowered(engine.manifest().limits)?;
        let cache = &config.kv_cache;
        let bytes_per_token = bytes_per_token(engine.config(), cache.dtype);
        check_blocks(cache, bytes_per_token)?;
        let model = CpuModel::open(engine, config.threads)?;
        let weights = engine.manifest().files.get(WEIGHTS_FILE).map_or(0, |record| record.bytes);
        let weight_type = model.weight_type();
        let code_instructions = (weight_type != WeightType::Bf16).then(|| model.kernels().code_instructions());
        let pass = ForwardPass::with_room(model.config(), limits.max_num_tokens, most_logits_rows(limits))?;
        let demand = Demand {
            tokens_per_block: cache.tokens_per_block,
            max_num_tokens: limits.max_num_tokens,
            sliding_window: model.config().sliding_window,
        };
        let most = demand.most(Size::of(limits.max_seq_len)).saturating_mul(limits.max_batch_size);
        let size = cache_size(&machine, cache, most, bytes_per_token, weights.saturating_add(pass.bytes()))?;
        let threads = model.pool().current_num_threads();
        let model = CachedCpuModel::new(model, pass, cache.dtype, size.num_blocks, cache.tokens_per_block)?;
        let mut blocks = BlockManager::new(size.num_blocks, cache.tokens_per_block);
        let bytes_per_block = model.bytes_per_block() as u64;
        if cache.max_tokens.is_none() && cache.max_bytes.is_none() {
            // Nobody has said how much memory prefixes are worth that might be used again.
            blocks.keep_unused_prefixes_within((weights / bytes_per_block) as usize);
        }
        let memory = CacheMemory::new(machine, size.promise, weights, bytes_per_block);
        let mut executor = Self::start(model, threads, limits, tokenizer, config, blocks, Some((memory, size.bound)))?;
        executor.facts.weight_type = weight_type;
        executor.facts.code_instructions = code_instructions;
        executor.facts.kv_cache_dtype = cache.dtype;
        Ok(executor)
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
        let blocks = BlockManager::new(model.num_blocks(), model.tokens_per_block());
        Self::start(model, threads, config.lowered(limits)?, None, config, blocks, None)
    }

    fn start(
        model: impl Model + 'static,
        threads: usize,
        mut limits: Limits,
        tokenizer: Option<LazyTokenizer>,
        config: &ExecutorConfig,
        blocks: BlockManager,
        memory: Option<(CacheMemory, KvCacheBound)>,
    ) -> Result<Self, CpuModelError> {
        let (num_blocks, tokens_per_block) = (model.num_blocks(), model.tokens_per_block());
        let kv_cache_tokens = num_blocks * tokens_per_block;
        let facts = CpuExecutorFacts {
            isa: model.kernels().isa(),
            code_instructions: None,
            weight_type: WeightType::Bf16,
            threads,
            kv_cache_tokens,
            kv_cache_bytes: num_blocks * model.bytes_per_block(),
            kv_cache_dtype: KvCacheDtype::Bf16,
            kv_cache_bound: memory.as_ref().map_or(KvCacheBound::Limits, |(_, bound)| bound.clone()),
            vocab_size: model.vocab_size(),
        };
        let scheduler_config = SchedulerConfig {
            max_batch_size: limits.max_batch_size,
            max_num_tokens: limits.max_num_tokens,
            policy: config.capacity_scheduler_policy,
            enable_chunked_context: config.enable_chunked_context,
            sliding_window: model.sliding_window(),
        };
        let logits = room_for_logits(limits, model.vocab_size())?;
        let memory = memory.map(|(memory, _)| memory);
        let scheduler = Scheduler::new(scheduler_config, blocks);
        let demand = scheduler.demand();
        if demand.most(Size::of(limits.max_seq_len)) > num_blocks {
            limits.max_seq_len = kv_cache_tokens;
        }
        let queue = Arc::new(Queue::new(config, scheduler.blocks().stats()));
        let (owner_queue, reuse) = (queue.clone(), config.kv_cache.enable_block_reuse);
        let run = move || owner::run(&owner_queue, model, scheduler, memory, logits, reuse);
        let owner = system::threads::spawn("trtllm-executor", run)
            .map_err(|source| CpuModelError::Owner { threads, source })?;
        let enable_chunked_context = config.enable_chunked_context;
        let guides = Guides::new(NAME, facts.vocab_size, tokenizer);
        let owner = Mutex::new(Some(owner));
        Ok(Self { limits, facts, enable_chunked_context, guides, num_blocks, demand, queue, owner })
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
        let unknown = [
            ("lora", "LoRA adapters", spec.lora.is_some()),
            ("kv_cache_retention", "KV-cache retention", spec.kv_cache_retention.is_some()),
        ];
        if let Some((field, feature, _)) = unknown.into_iter().find(|&(.., asked)| asked) {
            let (field, feature) = (Some(field), feature.to_owned());
            return Err(EnqueueError::Unsupported { executor: NAME, field, feature });
        }
        let prompt_len = spec.input_token_ids.len();
        if !self.enable_chunked_context && prompt_len > self.limits.max_num_tokens {
            let max_num_tokens = self.limits.max_num_tokens;
            return Err(EnqueueError::PromptTooLong { prompt: prompt_len, max_num_tokens });
        }
        let max_cached = prompt_len + spec.max_tokens.max(1) - 1;
        let needed = self.demand.most(Size { prompt_len, max_cached, beam_width: spec.sampling.beam_width });
        if needed > self.num_blocks {
            return Err(EnqueueError::KvCacheTooSmall { needed, max_num_blocks: self.num_blocks });
        }
        // Before a guide is compiled, and again when it has been.
        self.queue.check_open()?;
        let guide = spec.guided_decoding.as_ref().filter(|_| spec.max_tokens > 0);
        let guide = guide.map(|params| self.guides.compile(params, &spec.end_ids)).transpose()?;
        check_logits(request.spec(), self.facts.vocab_size)?;
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
