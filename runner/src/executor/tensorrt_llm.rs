//! TensorRT-LLM's C++ executor behind the contract.
//!
//! One thread awaits its responses and routes them to their requests; it sleeps when there are none. What differs from the CPU
//! executor, because TensorRT-LLM does: log-probabilities are those of its sampler, so temperature and penalties may have a
//! part in them, unless the most probable tokens are asked for too, which are made here of the engine's logits; a sequence's draws do not
//! depend on its position alone; a cancelled request may first compute its prompt.
//!
//! What it cannot do, or would ignore in the decoding mode that it runs in, is refused by name.

mod capabilities;
mod conflicts;
mod error;
mod logits;
mod outbox;
mod owner;
mod prompt;
mod request;
mod route;
mod scoring;
mod settings;
mod stats;
mod token_scores;
mod watchdog;
mod workers;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use engine_format::EngineDir;
use text::tokenizer::LazyTokenizer;
use trtllm_sys::gpu::{
    GpuError, GpuExecutor, GpuLibrary, GpuTokenizer, LogLine, Setting, SettingValue, Severity, same_release,
};

use outbox::Taken;

use super::{
    EnqueueError, Executor, ExecutorConfig, GuidedDecodingParams, Guides, IterationStats, Limits, Load, Request,
    RequestId, Response, Shutdown, TokenId, check_logits,
};

pub use super::tensorrt_llm_config::{
    CaptureLog, CommunicationMode, ContextChunkingPolicy, Decoding, DecodingMode, DynamicBatch, Eagle,
    ExtendedRuntimePerfKnob, KvCache, Lookahead, Parallel, PeftCache, Scheduler, TensorRtLlmConfig,
};

use capabilities::Capabilities;
use owner::{Shared, State};
use route::Route;
use settings::settings;
use workers::WorkerDir;

pub use error::OpenError;
pub use workers::is_one_of_several;

/// What messages call this executor.
const NAME: &str = "the TensorRT-LLM executor";

/// What is known of an engine that TensorRT-LLM runs.
#[derive(Debug, Clone)]
pub struct TensorRtLlmFacts {
    /// The release that is loaded.
    pub version: String,
    /// The shim.
    pub library: PathBuf,
    /// Ranks of the engine.
    pub world_size: usize,
    /// Who started them; `None` for an engine of one rank, in this process.
    pub communication_mode: Option<CommunicationMode>,
    /// Whether this process takes requests, rather than serving one that does.
    pub is_leader: bool,
}

/// A model's tokenizer, for guides: they are compiled here first, so that one which is wrong ends its own request only, and then by
/// TensorRT-LLM.
#[derive(Debug, Clone)]
pub struct GuideTokenizer {
    /// As guides are compiled here.
    pub text: LazyTokenizer,
    /// As TensorRT-LLM takes it.
    pub gpu: GpuTokenizer,
}

/// TensorRT-LLM's executor, running an engine.
pub struct TensorRtLlmExecutor {
    limits: Limits,
    able: Capabilities,
    guides: Guides,
    facts: TensorRtLlmFacts,
    /// Why there are no events of the KV cache.
    no_events: Option<&'static str>,
    max_outstanding: usize,
    max_queue_size: usize,
    shared: Arc<Shared>,
    owner: Mutex<Option<JoinHandle<()>>>,
    _workers: Option<WorkerDir>,
}

impl fmt::Debug for TensorRtLlmExecutor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TensorRtLlmExecutor").field("facts", &self.facts).finish_non_exhaustive()
    }
}

impl TensorRtLlmExecutor {
    /// Opens a TensorRT engine through `library`. Guides can be asked for where there is a `tokenizer`.
    ///
    /// Under `mpirun` or Slurm every rank does this; all but the leader then only serve: see [`TensorRtLlmFacts::is_leader`] and
    /// [`TensorRtLlmExecutor::serve`].
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(
        engine: &EngineDir,
        config: &ExecutorConfig,
        tokenizer: Option<GuideTokenizer>,
        library: &GpuLibrary,
    ) -> Result<Self, OpenError> {
        let path = || engine.path().to_owned();
        let build = engine.build_config().ok_or_else(|| OpenError::NotTensorRt { path: path() })?;
        engine.check_ranks()?;
        if !build.version.is_empty() && !same_release(&build.version, library.version()) {
            let (engine, loaded) = (build.version.clone(), library.version().to_owned());
            return Err(OpenError::Version { path: path(), engine, loaded });
        }
        let limits = config.lowered(engine.manifest().limits)?;
        let own = &config.tensorrt_llm;
        let max_beam_width = own.max_beam_width.map_or(build.max_beam_width, |width| width as usize);
        conflicts::check(engine, build, config, limits, max_beam_width)?;
        let tokenizer = tokenizer.filter(|_| own.guided_decoding);
        let guides_off = match (&tokenizer, own.guided_decoding) {
            (Some(_), _) => None,
            (None, true) => Some("the engine has no tokenizer".to_owned()),
            (None, false) => Some("guided_decoding is off".to_owned()),
        };
        let (text, tokenizer) = tokenizer.map(|tokenizer| (tokenizer.text, tokenizer.gpu)).unzip();
        let mut able = Capabilities::new(engine.config().vocab_size, limits, build, config, guides_off);
        match own.capture_log {
            CaptureLog::Nothing => {}
            CaptureLog::OwnLines => library.offer_log(|line| {
                let somebody_listens = tracing::enabled!(target: "tensorrt_llm", tracing::Level::ERROR);
                if somebody_listens {
                    log(line);
                }
                somebody_listens
            }),
            CaptureLog::Everything => library.capture_log(log),
        }
        let mode = workers::mode(&own.parallel, build.world_size);
        let kv_bytes_per_token = build.mapping.kv_bytes_per_token(engine.config());
        let mut settings = settings(limits, config, able.max_beam_width, mode, kv_bytes_per_token);
        let gathers = SettingValue::Bool(able.gather_generation_logits);
        settings.push(Setting { name: "gather_generation_logits".into(), value: gathers });
        let opened = if mode == Some(CommunicationMode::Orchestrator) && own.parallel.spawn_processes != Some(false) {
            let workers = WorkerDir::new(library, own.parallel.worker_executable_path.as_deref())?;
            let script = SettingValue::Text(workers.script().display().to_string());
            settings.push(Setting { name: "parallel.worker_executable_path".into(), value: script });
            let timeout = Duration::from_secs(own.start_up_timeout);
            let (gpu, workers) = workers::open(library, engine.path(), settings, tokenizer, workers, timeout)?;
            (gpu, Some(workers))
        } else {
            let (gpu, problem) = open_with_guides_if_possible(library, engine, &settings, tokenizer.as_ref())
                .map_err(|error| cannot_open(engine, library, error))?;
            able.guides_off = problem.or(able.guides_off);
            (gpu, None)
        };
        let (gpu, workers) = opened;
        let facts = TensorRtLlmFacts {
            version: library.version().to_owned(),
            library: library.path().to_owned(),
            world_size: build.world_size,
            communication_mode: mode,
            is_leader: gpu.can_enqueue(),
        };
        let timeout = Duration::from_secs;
        let shared = Arc::new(Shared::new(
            gpu,
            config.iter_stats_max_iterations,
            timeout(own.stall_timeout),
            timeout(own.shutdown_timeout),
        ));
        let owner_shared = shared.clone();
        let owner = system::threads::spawn("trtllm-gpu", move || owner::run(&owner_shared))
            .map_err(|source| OpenError::Thread { source })?;
        Ok(Self {
            limits,
            guides: Guides::new(NAME, able.vocab_size, text),
            able,
            facts,
            no_events: conflicts::no_events(config, mode),
            max_outstanding: limits.max_batch_size.saturating_add(config.max_queue_size),
            max_queue_size: config.max_queue_size,
            shared,
            owner: Mutex::new(Some(owner)),
            _workers: workers,
        })
    }

    /// What is known of it.
    pub fn facts(&self) -> &TensorRtLlmFacts {
        &self.facts
    }

    /// On a rank that is not the leader: serves until the leader has ended.
    pub fn serve(&self) {
        self.shutdown(Shutdown::Drain);
    }

    /// Statistics of each request in each iteration since the last call, as TensorRT-LLM's JSON, one object a line; none
    /// without [`TensorRtLlmConfig::request_stats_max_iterations`].
    ///
    /// # Errors
    /// What TensorRT-LLM says.
    pub fn request_stats(&self) -> Result<String, GpuError> {
        self.shared.gpu.request_stats()
    }

    /// Events of the KV cache since the last call, one JSON object a line; waits at most `timeout` for one.
    ///
    /// # Errors
    /// What TensorRT-LLM says; [`GpuError::Unavailable`] without [`KvCache::event_buffer_max_size`], and from an orchestrator.
    pub fn kv_cache_events(&self, timeout: Duration) -> Result<String, GpuError> {
        if let Some(problem) = self.no_events {
            return Err(GpuError::Unavailable { problem: problem.to_owned() });
        }
        self.shared.gpu.kv_cache_events(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX))
    }
}

impl TensorRtLlmExecutor {
    /// Whether a request would be taken now.
    fn check_open(&self, state: &State) -> Result<(), EnqueueError> {
        if let Some(problem) = &state.failed {
            return Err(EnqueueError::Failed { executor: NAME, problem: problem.clone() });
        }
        if state.closing.is_some() {
            return Err(EnqueueError::ShutDown);
        }
        if let Some(problem) = &state.stalled {
            return Err(EnqueueError::Stalled { executor: NAME, problem: problem.clone() });
        }
        if state.routes.len() >= self.max_outstanding { Err(self.full()) } else { Ok(()) }
    }

    fn full(&self) -> EnqueueError {
        EnqueueError::QueueFull { max_queue_size: self.max_queue_size }
    }

    /// Compiles a guide as the CPU executor does, and gives it as TensorRT-LLM takes it. XGrammar compiles it in the middle of a batch,
    /// and a guide that it refuses there would end every request.
    fn guide(&self, params: &GuidedDecodingParams, end_ids: &[TokenId]) -> Result<GuidedDecodingParams, EnqueueError> {
        let taken = params.for_xgrammar().map_err(|error| self.guides.refusal(error));
        // What llguidance says is better said, where both refuse it.
        if !matches!(taken, Err(EnqueueError::Unsupported { .. })) {
            self.guides.compile(params, end_ids)?;
        }
        taken
    }
}

/// Brings a line of TensorRT-LLM's log to whoever listens.
fn log(line: LogLine<'_>) {
    match line.severity {
        Severity::Error => tracing::error!(target: "tensorrt_llm", "{}", line.text),
        Severity::Warning => tracing::warn!(target: "tensorrt_llm", "{}", line.text),
        Severity::Info => tracing::info!(target: "tensorrt_llm", "{}", line.text),
        Severity::Debug => tracing::debug!(target: "tensorrt_llm", "{}", line.text),
    }
}

/// Opens an engine. XGrammar does not understand every tokenizer, and the engine does not open then: it is opened again without guides,
/// and the reason is given.
fn open_with_guides_if_possible(
    library: &GpuLibrary,
    engine: &EngineDir,
    settings: &[Setting],
    tokenizer: Option<&GpuTokenizer>,
) -> Result<(GpuExecutor, Option<String>), GpuError> {
    let open = |tokenizer| GpuExecutor::open(library, engine.path(), settings, tokenizer);
    match (open(tokenizer), tokenizer) {
        (Err(GpuError::Exception { message }), Some(_)) => {
            // Where this fails too, the tokenizer is not to blame.
            let gpu = open(None)?;
            let problem = format!("TensorRT-LLM opens the engine only without guides: {message}");
            tracing::warn!("requests cannot ask for structured output: {problem}");
            Ok((gpu, Some(problem)))
        }
        (opened, _) => opened.map(|gpu| (gpu, None)),
    }
}

fn cannot_open(engine: &EngineDir, library: &GpuLibrary, error: GpuError) -> OpenError {
    match error {
        GpuError::Unsupported { feature } => {
            OpenError::Setting { version: library.version().to_owned(), setting: feature }
        }
        GpuError::Busy { message } => OpenError::Busy { path: engine.path().to_owned(), problem: message },
        source => OpenError::Open { path: engine.path().to_owned(), source },
    }
}

/// Salts of requests whose prompts must be computed whole; below them nothing is shared.
static SALTS: AtomicU64 = AtomicU64::new(0x7472_746c_6c6d_0000);

impl Executor for TensorRtLlmExecutor {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn vocab_size(&self) -> usize {
        self.able.vocab_size
    }

    fn enqueue(&self, request: Request) -> Result<RequestId, EnqueueError> {
        if !self.facts.is_leader {
            return Err(EnqueueError::Refused { executor: NAME, problem: "this rank is not the leader".to_owned() });
        }
        let spec = request.spec();
        let prepared = request::prepare(spec, &self.able)?;
        check_logits(spec, self.able.vocab_size)?;
        // Of a prompt whose beginning was cached only the rest's logits come back.
        let bypass = spec.output.needs_context_logits() && self.able.enable_block_reuse;
        let salt = bypass.then(|| SALTS.fetch_add(1, Ordering::Relaxed));
        // Before a guide is compiled, and again when it has been.
        self.check_open(&self.shared.lock())?;
        let guide = spec.guided_decoding.as_ref().map(|params| self.guide(params, &spec.end_ids)).transpose()?;
        let prepared = prepared.guided(guide);
        let gpu_request = request::to_gpu(spec, &prepared, salt);
        let mut state = self.shared.lock();
        self.check_open(&state)?;
        let id = self.shared.gpu.enqueue(&gpu_request).map_err(|error| match error {
            GpuError::Unsupported { feature } => {
                let known = ["cache_salt_id", "prompt_ignore_length"].into_iter().find(|&field| field == feature);
                EnqueueError::Unsupported { executor: NAME, field: known, feature }
            }
            // The one refusal that is no fault of the request; TensorRT-LLM tells it by its text only.
            GpuError::Exception { message } if message.to_lowercase().contains("queue size") => self.full(),
            error => EnqueueError::Refused { executor: NAME, problem: error.to_string() },
        })?;
        if state.routes.is_empty() {
            state.heard = Instant::now();
        }
        state.routes.insert(id, Route::new(spec, self.able.vocab_size, self.able.cancels_scored_streams));
        drop(state);
        self.shared.wake();
        Ok(RequestId(id))
    }

    fn await_responses(&self, timeout: Option<Duration>) -> Vec<Response> {
        match self.shared.outbox.take(timeout) {
            Taken::Items(responses) => responses,
            Taken::TimedOut | Taken::Closed => Vec::new(),
        }
    }

    fn cancel(&self, request: RequestId) {
        self.shared.cancel(request.0);
    }

    /// TensorRT-LLM cannot end one sequence alone. It is over for its client at once, and what TensorRT-LLM still computes of
    /// it is dropped; when every sequence is over, the request is cancelled. The beams of a search, and their end, are
    /// TensorRT-LLM's: they are cancelled when all have been.
    fn cancel_sequence(&self, request: RequestId, sequence_index: usize) {
        self.shared.cancel_sequence(request.0, sequence_index);
    }

    /// Requests are counted here, active ones with those that TensorRT-LLM still runs though their client has cancelled them.
    /// How many of them wait, the blocks and the last iteration are those of TensorRT-LLM's latest statistics: zero before
    /// its first iteration, and always where [`ExecutorConfig::iter_stats_max_iterations`] is 0.
    fn load(&self) -> Load {
        self.shared.load()
    }

    fn iteration_stats(&self) -> Vec<IterationStats> {
        self.shared.take_stats()
    }

    fn shutdown(&self, how: Shutdown) {
        self.shared.close(how);
        // The lock is held while joining, so that a second caller waits too.
        let mut owner = self.owner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(owner) = owner.take() {
            // A panic has been reported by the panic hook.
            let _ = owner.join();
        }
    }

    fn cancel_all(&self) {
        self.shared.close(Shutdown::Cancel);
    }
}

impl Drop for TensorRtLlmExecutor {
    fn drop(&mut self) {
        self.shutdown(Shutdown::Cancel);
    }
}
