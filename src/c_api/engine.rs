//! Engines: opening, describing, shutting down, closing.

use std::path::Path;

use engine_format::EngineDir;
use runner::cpu_model::CpuModelError;
use runner::engine::{Engine, OpenError, Running};
use runner::executor::tensorrt_llm::{self, TensorRtLlmExecutor};
use runner::executor::{
    CapacitySchedulerPolicy, ExecutorConfig, KvCacheConfig, KvCacheDtype, Shutdown, TensorRtLlmConfig,
};
use runner::request_builder::RequestBuilder;
use runner::session::Session;
use text::chat::ChatTemplate;

use super::entry::{check_may_wait, entry, entry_in_forks};
use super::fork;
use super::handles::{Kind, Table};
use super::log;
use super::options::{self, Options};
use super::pointers::{Out, optional_text, text};
use super::status::{
    Failure, TRTLLM_STATUS_BUSY, TRTLLM_STATUS_INVALID_ARGUMENT, TRTLLM_STATUS_INVALID_FILES, TRTLLM_STATUS_SYSTEM,
    TRTLLM_STATUS_UNAVAILABLE, TRTLLM_STATUS_UNSUPPORTED, trtllm_status,
};
use super::strings::{CBool, new_token_ids, trtllm_str, trtllm_token_ids};
use super::version::{TRTLLM_EXECUTOR_CPU, TRTLLM_EXECUTOR_TENSORRT_LLM, trtllm_executor_kind};

/// An engine that runs: its executor, its tokenizer, and the thread that brings its responses. Made by
/// `trtllm_open_engine`, ended by `trtllm_close_engine`.
pub struct trtllm_engine(());

pub(crate) static ENGINES: Table<OpenEngine, trtllm_engine> = Table::new(Kind::Engine);

/// What a handle stands for.
pub(crate) struct OpenEngine {
    /// `None` where a Rust program brought an executor of its own.
    engine: Option<Engine>,
    pub(crate) session: Session,
}

/// Gives a session to C: a handle of an engine without a directory, that is, without end ids and chat template.
///
/// # Errors
/// There are too many handles, or no memory, as a sentence.
pub fn adopt(session: Session) -> Result<*mut trtllm_engine, String> {
    let adopted = fork::watch().and_then(|()| ENGINES.insert(OpenEngine { engine: None, session }));
    adopted.map_err(|failure| failure.message)
}

/// Which requests run when the KV cache cannot hold all.
pub type trtllm_capacity_scheduler_policy = u32;

/// Only what fits to its end: a request that has started is never paused.
pub const TRTLLM_GUARANTEED_NO_EVICT: trtllm_capacity_scheduler_policy = 0;
/// As many as fit now; when the KV cache is full, the latest are paused and computed again later.
pub const TRTLLM_MAX_UTILIZATION: trtllm_capacity_scheduler_policy = 1;

/// How an engine is run. Fill it with `trtllm_init_engine_config` and change what you need. A number that is 0 leaves the
/// choice to the library unless its comment says otherwise.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct trtllm_engine_config {
    /// `sizeof(trtllm_engine_config)`.
    pub struct_size: usize,
    /// Worker threads of the CPU executor; 0 for one per physical core that the process may use. Default: 0.
    pub threads: usize,
    /// Tokens of the longest sequence, prompt and output together; lowers the engine's limit. Default: 0.
    pub max_seq_len: usize,
    /// Sequences in one iteration; lowers the engine's limit. Default: 0.
    pub max_batch_size: usize,
    /// Tokens in one iteration; lowers the engine's limit. Default: 0.
    pub max_num_tokens: usize,
    /// Tokens that the KV cache holds, rounded up to whole blocks; 0 for as many as `kv_cache_free_memory_fraction` allows and
    /// the limits can use. Default: 0.
    pub kv_cache_max_tokens: usize,
    /// Share of free memory that the KV cache may take, above 0 and at most 1. Default: 0.9.
    pub kv_cache_free_memory_fraction: f64,
    /// Tokens of one block of the KV cache, from 1 to 1024. Default: 32.
    pub tokens_per_block: usize,
    /// Requests that may wait; further ones are refused with `TRTLLM_STATUS_QUEUE_FULL`. Default: 65536.
    pub max_queue_size: usize,
    /// Iterations whose statistics are kept until they are taken; 0 for none. Default: 1000.
    pub iter_stats_max_iterations: usize,
    /// `TRTLLM_GUARANTEED_NO_EVICT` or `TRTLLM_MAX_UTILIZATION`. Default: `TRTLLM_GUARANTEED_NO_EVICT`.
    pub capacity_scheduler_policy: trtllm_capacity_scheduler_policy,
    /// Whether a prompt may be processed over several iterations; without, it must fit into `max_num_tokens`. Default: true.
    pub enable_chunked_context: CBool,
    /// Whether requests share the KV-cache blocks of equal prefixes. Default: true.
    pub enable_block_reuse: CBool,
    /// What only TensorRT-LLM's executor can be told: the content of the table `[tensorrt_llm]` of a configuration file
    /// (docs/configuration.md), as TOML, without that line; empty for its defaults. Names that do not exist are refused.
    /// Default: none.
    pub tensorrt_llm: trtllm_str,
    /// Bytes that the KV cache takes at most, on each rank; 0 for as many as `kv_cache_max_tokens` and
    /// `kv_cache_free_memory_fraction` allow. A host with several engines in one process should set it: an engine that is opened
    /// is promised the memory of its whole cache, and the next one gets its share of what is left. Default: 0.
    pub kv_cache_max_bytes: usize,
    /// What a CPU engine stores keys and values as: `bf16`, or `int8`, which takes about half the memory; empty for `bf16`.
    /// That of a TensorRT engine is built in: any but `bf16` is refused. Default: none.
    pub kv_cache_dtype: trtllm_str,
}

// SAFETY: `repr(C)`, begins with its size, and holds numbers, bytes and raw pointers only.
unsafe impl Options for trtllm_engine_config {
    const FIRST_SIZE: usize = 104;

    fn defaults() -> Self {
        let config = ExecutorConfig::default();
        Self {
            struct_size: size_of::<Self>(),
            threads: 0,
            max_seq_len: 0,
            max_batch_size: 0,
            max_num_tokens: 0,
            kv_cache_max_tokens: 0,
            kv_cache_free_memory_fraction: config.kv_cache.free_memory_fraction,
            tokens_per_block: config.kv_cache.tokens_per_block,
            max_queue_size: config.max_queue_size,
            iter_stats_max_iterations: config.iter_stats_max_iterations,
            capacity_scheduler_policy: TRTLLM_GUARANTEED_NO_EVICT,
            enable_chunked_context: config.enable_chunked_context.into(),
            enable_block_reuse: config.kv_cache.enable_block_reuse.into(),
            tensorrt_llm: trtllm_str::EMPTY,
            kv_cache_max_bytes: 0,
            kv_cache_dtype: trtllm_str::EMPTY,
        }
    }
}

impl trtllm_engine_config {
    /// # Safety
    /// `tensorrt_llm` and `kv_cache_dtype` can be read, as the header has it.
    unsafe fn to_config(self) -> Result<ExecutorConfig, Failure> {
        // SAFETY: as the caller promises.
        let own = unsafe { optional_text(self.tensorrt_llm, "tensorrt_llm") }?.unwrap_or_default();
        let tensorrt_llm = TensorRtLlmConfig::from_toml(own)
            .map_err(|problem| Failure::argument(format!("tensorrt_llm: {problem}")))?;
        // SAFETY: as the caller promises.
        let dtype = unsafe { optional_text(self.kv_cache_dtype, "kv_cache_dtype") }?.unwrap_or_default();
        let found = KvCacheDtype::ALL.into_iter().find(|known| known.name() == dtype);
        let Some(dtype) = found.or(dtype.is_empty().then(KvCacheDtype::default)) else {
            return Err(Failure::argument(format!("kv_cache_dtype must be bf16 or int8, not `{dtype}`")));
        };
        let chosen = |number: usize| (number > 0).then_some(number);
        let config = ExecutorConfig {
            threads: chosen(self.threads),
            max_seq_len: chosen(self.max_seq_len),
            max_batch_size: chosen(self.max_batch_size),
            max_num_tokens: chosen(self.max_num_tokens),
            capacity_scheduler_policy: match self.capacity_scheduler_policy {
                TRTLLM_GUARANTEED_NO_EVICT => CapacitySchedulerPolicy::GuaranteedNoEvict,
                TRTLLM_MAX_UTILIZATION => CapacitySchedulerPolicy::MaxUtilization,
                other => return Err(Failure::argument(format!("{other} is no trtllm_capacity_scheduler_policy"))),
            },
            enable_chunked_context: self.enable_chunked_context.get(),
            kv_cache: KvCacheConfig {
                max_tokens: chosen(self.kv_cache_max_tokens),
                max_bytes: chosen(self.kv_cache_max_bytes),
                free_memory_fraction: self.kv_cache_free_memory_fraction,
                tokens_per_block: self.tokens_per_block,
                enable_block_reuse: self.enable_block_reuse.get(),
                dtype,
            },
            max_queue_size: self.max_queue_size,
            iter_stats_max_iterations: self.iter_stats_max_iterations,
            tensorrt_llm,
        };
        config.validate().map_err(|error| {
            // The fields of the C struct are those of `ExecutorConfig`, but that it has no struct for the KV cache.
            let field = match error.field {
                "kv_cache.tokens_per_block" => "tokens_per_block".to_owned(),
                field => field.replace('.', "_"),
            };
            Failure::argument(format!("{field} must be {}, not {}", error.range, error.value))
        })?;
        Ok(config)
    }
}

/// What an engine is and what it takes.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct trtllm_engine_info {
    /// `sizeof(trtllm_engine_info)`: set it before the call.
    pub struct_size: usize,
    /// Tokens of the longest sequence, prompt and output together.
    pub max_seq_len: usize,
    /// Sequences in one iteration.
    pub max_batch_size: usize,
    /// Tokens in one iteration.
    pub max_num_tokens: usize,
    /// Tokens of the model's vocabulary: the length of its logits.
    pub vocab_size: usize,
    /// Tokens that the KV cache holds.
    pub kv_cache_tokens: usize,
    /// Bytes of the KV cache, when full.
    pub kv_cache_bytes: usize,
    /// Worker threads of the CPU executor.
    pub threads: usize,
    /// The instruction set of the CPU executor's kernels, for example `avx512`. Valid as long as the engine.
    pub instruction_set: trtllm_str,
    /// Which executor runs it.
    pub executor: trtllm_executor_kind,
    /// Whether it has a tokenizer: takes and gives text.
    pub has_tokenizer: CBool,
    /// Whether it has a chat template that can be used.
    pub has_chat_template: CBool,
    /// The model that it was built from, as whoever built it named it; empty where it is not known. Valid as long as the engine.
    pub model: trtllm_str,
    /// The type that the model computes in: `bfloat16`. Always valid.
    pub dtype: trtllm_str,
    /// The target that it was built for: `none` for the CPU, or a GPU's name. Valid as long as the engine.
    pub target: trtllm_str,
    /// Beams of one request.
    pub max_beam_width: usize,
    /// What a CPU engine's matrices are stored as: `bf16`, `int8` or `int4`; else empty. Always valid.
    pub weights: trtllm_str,
    /// What a CPU engine stores keys and values as: `bf16` or `int8`; else empty. Always valid.
    pub kv_cache_dtype: trtllm_str,
}

// SAFETY: `repr(C)`, begins with its size, and holds numbers, bytes and raw pointers only.
unsafe impl Options for trtllm_engine_info {
    const FIRST_SIZE: usize = 88;

    fn defaults() -> Self {
        Self {
            struct_size: size_of::<Self>(),
            max_seq_len: 0,
            max_batch_size: 0,
            max_num_tokens: 0,
            vocab_size: 0,
            kv_cache_tokens: 0,
            kv_cache_bytes: 0,
            threads: 0,
            instruction_set: trtllm_str::EMPTY,
            executor: TRTLLM_EXECUTOR_CPU,
            has_tokenizer: CBool::FALSE,
            has_chat_template: CBool::FALSE,
            model: trtllm_str::EMPTY,
            dtype: trtllm_str::EMPTY,
            target: trtllm_str::EMPTY,
            max_beam_width: 0,
            weights: trtllm_str::EMPTY,
            kv_cache_dtype: trtllm_str::EMPTY,
        }
    }
}

/// How `trtllm_shutdown_engine` treats requests that have not ended.
pub type trtllm_shutdown = u32;

/// Lets them run to their end.
pub const TRTLLM_SHUTDOWN_DRAIN: trtllm_shutdown = 0;
/// Ends them with `TRTLLM_FINISH_REASON_CANCELLED`.
pub const TRTLLM_SHUTDOWN_CANCEL: trtllm_shutdown = 1;

/// Writes the default configuration to `config`, a struct of `struct_size` bytes: `sizeof(trtllm_engine_config)`.
/// Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_init_engine_config(
    config: *mut trtllm_engine_config,
    struct_size: usize,
) -> trtllm_status {
    // SAFETY: as the caller promises.
    entry_in_forks(|| unsafe { options::write(config, struct_size, &trtllm_engine_config::defaults(), "config") })
}

/// Opens an engine directory, made by `trtllm_build_engine` or the program `build-engine`, and starts its executor. `config`
/// may be NULL: all defaults.
///
/// Errors: `TRTLLM_STATUS_INVALID_FILES` for an invalid directory, `TRTLLM_STATUS_UNAVAILABLE` for an engine
/// that this machine cannot run, `TRTLLM_STATUS_INVALID_ARGUMENT` for a configuration that the engine does not allow,
/// `TRTLLM_STATUS_BUSY` for a TensorRT engine while this process builds one, `TRTLLM_STATUS_SYSTEM`. Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_open_engine(
    path: trtllm_str,
    config: *const trtllm_engine_config,
    engine: *mut *mut trtllm_engine,
) -> trtllm_status {
    entry(|| {
        // SAFETY: as the caller promises, for the three arguments.
        let (path, out) = unsafe { (text(path, "path")?, Out::new(engine, "engine")?) };
        let config = match config.is_null() {
            true => trtllm_engine_config::defaults(),
            // SAFETY: as the caller promises.
            false => unsafe { options::read(config, "config") }?,
        };
        // SAFETY: as the caller promises.
        let mut config = unsafe { config.to_config() }?;
        if log::is_set() {
            config.tensorrt_llm.capture_log = tensorrt_llm::CaptureLog::OwnLines;
        }
        fork::watch()?;
        let dir = EngineDir::open(Path::new(path)).map_err(|error| cannot_open(&error.into()))?;
        let engine = Engine::start_with_text(dir, &config).map_err(|error| cannot_open(&error))?;
        let session = Session::start(engine.executor(), engine.tokenizer().cloned())
            .map_err(|error| Failure::new(TRTLLM_STATUS_SYSTEM, format!("cannot start a thread: {error}")))?;
        out.write(ENGINES.insert(OpenEngine { engine: Some(engine), session })?);
        Ok(())
    })
}

fn cannot_open(error: &OpenError) -> Failure {
    let status = match error {
        OpenError::Format(format) | OpenError::Cpu(CpuModelError::Format(format)) if format.is_out_of_memory() => {
            TRTLLM_STATUS_SYSTEM
        }
        OpenError::Cpu(CpuModelError::Format(_)) => TRTLLM_STATUS_INVALID_FILES,
        OpenError::Config(_) => TRTLLM_STATUS_INVALID_ARGUMENT,
        OpenError::Cpu(
            CpuModelError::Limit { .. } | CpuModelError::KvCacheTokens { .. } | CpuModelError::KvCacheBytes { .. },
        ) => TRTLLM_STATUS_INVALID_ARGUMENT,
        OpenError::Cpu(CpuModelError::Isa(_)) | OpenError::Target { .. } | OpenError::Gpu { .. } => {
            TRTLLM_STATUS_UNAVAILABLE
        }
        OpenError::TensorRtLlm(
            tensorrt_llm::OpenError::Limit { .. }
            | tensorrt_llm::OpenError::Setting { .. }
            | tensorrt_llm::OpenError::Conflict { .. }
            | tensorrt_llm::OpenError::KvCacheDtype { .. },
        ) => TRTLLM_STATUS_INVALID_ARGUMENT,
        OpenError::TensorRtLlm(tensorrt_llm::OpenError::Format(_)) => TRTLLM_STATUS_INVALID_FILES,
        OpenError::TensorRtLlm(tensorrt_llm::OpenError::Busy { .. }) => TRTLLM_STATUS_BUSY,
        OpenError::TensorRtLlm(_) => TRTLLM_STATUS_UNAVAILABLE,
        OpenError::Cpu(_) => TRTLLM_STATUS_SYSTEM,
        _ => TRTLLM_STATUS_INVALID_FILES,
    };
    let failure = Failure::from_error(status, error);
    let field = match error {
        OpenError::Cpu(CpuModelError::KvCacheTokens { .. }) => "kv_cache_max_tokens",
        OpenError::Cpu(CpuModelError::KvCacheBytes { .. }) => "kv_cache_max_bytes",
        OpenError::TensorRtLlm(tensorrt_llm::OpenError::KvCacheDtype { .. }) => "kv_cache_dtype",
        _ => return failure,
    };
    Failure::new(status, format!("{field}: {}", failure.message))
}

/// Describes an engine. Set `info->struct_size` before the call. Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_describe_engine(
    engine: *const trtllm_engine,
    info: *mut trtllm_engine_info,
) -> trtllm_status {
    entry(|| {
        let open = ENGINES.get(engine)?;
        // SAFETY: as the caller promises.
        let struct_size = unsafe { options::size_of_output(info, "info") }?;
        let executor = open.session.executor();
        let running = open.engine.as_ref().map(Engine::running);
        let facts = match running {
            Some(Running::Cpu(executor)) => Some(executor.facts()),
            _ => None,
        };
        let limits = executor.limits();
        let dir = open.engine.as_ref().map(Engine::dir);
        let manifest = dir.map(EngineDir::manifest);
        let value = trtllm_engine_info {
            max_seq_len: limits.max_seq_len,
            max_batch_size: limits.max_batch_size,
            max_num_tokens: limits.max_num_tokens,
            vocab_size: executor.vocab_size(),
            kv_cache_tokens: facts.map_or(0, |facts| facts.kv_cache_tokens),
            kv_cache_bytes: facts.map_or(0, |facts| facts.kv_cache_bytes),
            threads: facts.map_or(0, |facts| facts.threads),
            instruction_set: facts.map_or(trtllm_str::EMPTY, |facts| trtllm_str::of(facts.isa.name())),
            executor: match running {
                Some(Running::TensorRtLlm(_)) => TRTLLM_EXECUTOR_TENSORRT_LLM,
                _ => TRTLLM_EXECUTOR_CPU,
            },
            has_tokenizer: open.session.tokenizer().is_some().into(),
            has_chat_template: open.chat().is_ok().into(),
            model: manifest.map_or(trtllm_str::EMPTY, |manifest| trtllm_str::of(&manifest.model)),
            dtype: trtllm_str::of("bfloat16"),
            target: manifest.map_or(trtllm_str::EMPTY, |manifest| trtllm_str::of(&manifest.target)),
            max_beam_width: match dir.and_then(EngineDir::build_config) {
                Some(build) => build.max_beam_width,
                None => limits.max_batch_size.min(limits.max_num_tokens),
            },
            weights: facts.map_or(trtllm_str::EMPTY, |facts| trtllm_str::of(facts.weight_type.name())),
            kv_cache_dtype: facts.map_or(trtllm_str::EMPTY, |facts| trtllm_str::of(facts.kv_cache_dtype.name())),
            ..trtllm_engine_info::defaults()
        };
        // SAFETY: as the caller promises.
        unsafe { options::write(info, struct_size, &value, "info") }
    })
}

/// Writes the model's end ids, those that end a sequence unless a request has its own, to `ids` as a new list. Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_end_ids(
    engine: *const trtllm_engine,
    ids: *mut *mut trtllm_token_ids,
) -> trtllm_status {
    entry(|| {
        let open = ENGINES.get(engine)?;
        // SAFETY: as the caller promises.
        let out = unsafe { Out::new(ids, "ids") }?;
        out.write(new_token_ids(open.end_ids().to_vec())?);
        Ok(())
    })
}

/// Takes no more requests, ends those that there are, and returns when every one has ended and every callback has returned.
/// Responses that were not taken can still be taken. A second call waits for the first. Thread-safe; not to be called from a
/// callback (`TRTLLM_STATUS_WRONG_THREAD`).
#[unsafe(no_mangle)]
pub extern "C" fn trtllm_shutdown_engine(engine: *mut trtllm_engine, how: trtllm_shutdown) -> trtllm_status {
    entry(|| {
        let open = ENGINES.get(engine)?;
        let how = match how {
            TRTLLM_SHUTDOWN_DRAIN => Shutdown::Drain,
            TRTLLM_SHUTDOWN_CANCEL => Shutdown::Cancel,
            other => return Err(Failure::argument(format!("{other} is no trtllm_shutdown"))),
        };
        check_may_wait()?;
        open.session.shutdown(how);
        Ok(())
    })
}

/// Cancels what runs, waits until every request has ended and every callback has returned, and frees the engine. Until it
/// returns, the handle is that of an engine that was shut down: to callbacks that still run, and to other threads. Only a second
/// call is answered `TRTLLM_STATUS_INVALID_HANDLE` at once. Responses that were not taken are lost; a thread that waits for some
/// gets the last ones, or `TRTLLM_STATUS_SHUT_DOWN`. Response lists, strings and detokenizers that the host has stay valid.
/// Thread-safe; not to be called from a callback (`TRTLLM_STATUS_WRONG_THREAD`).
#[unsafe(no_mangle)]
pub extern "C" fn trtllm_close_engine(engine: *mut trtllm_engine) -> trtllm_status {
    entry(|| {
        ENGINES.get(engine)?;
        check_may_wait()?;
        ENGINES.retire(engine)?.session.shutdown(Shutdown::Cancel);
        ENGINES.remove(engine).map(drop)
    })
}

impl OpenEngine {
    /// The model's end ids.
    pub(crate) fn end_ids(&self) -> &[u32] {
        self.engine.as_ref().map_or(&[], Engine::end_ids)
    }

    /// What makes requests for the engine.
    pub(crate) fn request_builder(&self) -> RequestBuilder<'_> {
        RequestBuilder {
            executor: self.session.executor(),
            tokenizer: self.session.tokenizer(),
            engine: self.engine.as_ref(),
        }
    }

    /// TensorRT-LLM's executor.
    pub(crate) fn tensorrt_llm(&self) -> Result<&TensorRtLlmExecutor, Failure> {
        match self.engine.as_ref().map(Engine::running) {
            Some(Running::TensorRtLlm(executor)) => Ok(executor),
            _ => Err(Failure::new(TRTLLM_STATUS_UNSUPPORTED, "only TensorRT-LLM's executor has this")),
        }
    }

    /// The chat template.
    pub(crate) fn chat(&self) -> Result<&ChatTemplate, Failure> {
        let none = || Failure::new(TRTLLM_STATUS_UNSUPPORTED, "the engine has no chat template");
        let engine = self.engine.as_ref().ok_or_else(none)?;
        engine.chat().map_err(|error| Failure::from_error(TRTLLM_STATUS_UNSUPPORTED, &error))
    }

    /// The tokenizer.
    pub(crate) fn tokenizer(&self) -> Result<&text::tokenizer::Tokenizer, Failure> {
        let tokenizer = self.session.tokenizer().ok_or_else(|| {
            let message = "the engine has no tokenizer: give token ids, or build it from a model with `tokenizer.json`";
            Failure::new(TRTLLM_STATUS_UNSUPPORTED, message)
        })?;
        tokenizer.get().map_err(|error| Failure::from_error(TRTLLM_STATUS_UNSUPPORTED, &error))
    }
}
