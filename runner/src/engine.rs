//! An engine directory, opened to be run: its executor, and what turns text into requests.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use engine_format::engine_dir::TOKENIZER_FILE;
use engine_format::error::counted;
use engine_format::{EngineDir, FormatError, LoraAdapter};

use crate::cpu_model::CpuModelError;
use crate::doctor;
use crate::executor::tensorrt_llm::{self, GuideTokenizer, TensorRtLlmExecutor};
use crate::executor::{ConfigError, Executor, ExecutorConfig, LoraRequest, Shutdown, TokenId};
use crate::inflight::CpuExecutor;
use text::chat::{ChatError, ChatTemplate};
use text::end_ids::end_ids;
use text::tokenizer::{LazyTokenizer, TokenizerError};
use trtllm_sys::gpu::{GpuLibrary, GpuTokenizer};

/// Why an engine cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The engine directory is invalid.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A setting is outside its range.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The tokenizer, which the end ids or TensorRT-LLM's guides need, is invalid.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The CPU executor cannot be started.
    #[error(transparent)]
    Cpu(#[from] CpuModelError),
    /// TensorRT-LLM's executor cannot be started.
    #[error(transparent)]
    TensorRtLlm(#[from] tensorrt_llm::OpenError),
    /// The GPU is another.
    #[error("`{engine}` cannot run here: {obstacle}; build it again for the target `auto`")]
    Gpu {
        /// The engine directory.
        engine: String,
        /// What does not fit.
        obstacle: String,
    },
    /// This machine cannot run the engine.
    #[error(
        "`{engine}` was built for `{target}`, {obstacle}; `run-engine doctor` tells what is missing, and an engine for the target `none` runs on the CPU"
    )]
    Target {
        /// The engine directory.
        engine: String,
        /// The target that it was built for.
        target: String,
        /// What is in the way, as the end of a sentence.
        obstacle: String,
    },
}

/// An engine that runs.
#[derive(Debug)]
pub struct Engine {
    dir: EngineDir,
    running: Running,
    tokenizer: Option<LazyTokenizer>,
    end_ids: Vec<TokenId>,
    chat: OnceLock<ChatTemplate>,
    /// Adapters that were read, by their folders; an adapter's number is its place.
    adapters: Mutex<Vec<(PathBuf, Arc<LoraAdapter>)>>,
}

/// The executor of an engine, by its kind.
#[derive(Debug, Clone)]
pub enum Running {
    /// On this machine's processor.
    Cpu(Arc<CpuExecutor>),
    /// On GPUs.
    TensorRtLlm(Arc<TensorRtLlmExecutor>),
}

/// What runs, in a few words.
impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu(executor) => {
                let facts = executor.facts();
                let (kernels, threads, weights) = (facts.kernels(), facts.threads, facts.weight_type);
                let (cache, tokens, bytes) =
                    (facts.kv_cache_dtype.mention(), facts.kv_cache_tokens, facts.kv_cache_bytes);
                let (threads, tokens) = (counted(threads, "thread"), counted(tokens, "token"));
                write!(
                    f,
                    "the CPU executor: {weights} weights, {kernels}, {threads}, a KV cache{cache} of {tokens} ({bytes} bytes)"
                )
            }
            Self::TensorRtLlm(executor) => write!(f, "TensorRT-LLM {}", executor.facts().version),
        }
    }
}

impl Engine {
    /// Opens an engine directory and starts its executor. Tokenizer and chat template are read when they are first asked for.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(path: &Path, config: &ExecutorConfig) -> Result<Self, OpenError> {
        Self::start(EngineDir::open(path)?, config)
    }

    /// Starts the executor of an engine directory that was opened already.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn start(dir: EngineDir, config: &ExecutorConfig) -> Result<Self, OpenError> {
        let tokenizer = dir.has_file(TOKENIZER_FILE).then(|| LazyTokenizer::of(dir.path()));
        Self::start_sharing(dir, tokenizer, config)
    }

    /// [`start`](Self::start) for who will give or take text: the tokenizer is parsed beside the opening of the weights. What
    /// is wrong with it is told by its first use.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn start_with_text(dir: EngineDir, config: &ExecutorConfig) -> Result<Self, OpenError> {
        let tokenizer = dir.has_file(TOKENIZER_FILE).then(|| LazyTokenizer::of(dir.path()));
        std::thread::scope(|scope| {
            if let Some(tokenizer) = tokenizer.clone() {
                // Where no thread can be started, the first use parses it.
                let _ = system::threads::spawn_scoped(scope, "trtllm-text", move || tokenizer.get().is_ok());
            }
            Self::start_sharing(dir, tokenizer, config)
        })
    }

    fn start_sharing(
        dir: EngineDir,
        tokenizer: Option<LazyTokenizer>,
        config: &ExecutorConfig,
    ) -> Result<Self, OpenError> {
        config.validate()?;
        let end_ids = end_ids(&dir, tokenizer.as_ref())?;
        let running = run(&dir, config, tokenizer.as_ref(), &end_ids)?;
        tracing::info!("opened `{}` with {running}", dir.path().display());
        Ok(Self { dir, running, tokenizer, end_ids, chat: OnceLock::new(), adapters: Mutex::default() })
    }

    /// Shuts the executor down and starts another in its place.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn restart(&mut self, config: &ExecutorConfig) -> Result<(), OpenError> {
        self.executor().shutdown(Shutdown::Cancel);
        self.running = run(&self.dir, config, self.tokenizer.as_ref(), &self.end_ids)?;
        Ok(())
    }

    /// The executor.
    pub fn executor(&self) -> Arc<dyn Executor> {
        match &self.running {
            Running::Cpu(executor) => executor.clone(),
            Running::TensorRtLlm(executor) => executor.clone(),
        }
    }

    /// The executor, by its kind.
    pub fn running(&self) -> &Running {
        &self.running
    }

    /// The LoRA adapter in the folder `path`, which PEFT wrote (`docs/lora.md`); read once.
    ///
    /// # Errors
    /// It cannot be read, or does not fit the model.
    pub fn lora(&self, path: &Path) -> Result<LoraRequest, FormatError> {
        let mut adapters = self.adapters.lock().unwrap_or_else(PoisonError::into_inner);
        let place = match adapters.iter().position(|(known, _)| known == path) {
            Some(place) => place,
            None => {
                adapters.push((path.to_owned(), Arc::new(LoraAdapter::open(path, self.dir.config())?)));
                adapters.len() - 1
            }
        };
        Ok(LoraRequest { task_id: place as u64 + 1, adapter: Some(adapters[place].1.clone()) })
    }

    /// The directory.
    pub fn dir(&self) -> &EngineDir {
        &self.dir
    }

    /// The tokenizer; `None` where the engine has none.
    pub fn tokenizer(&self) -> Option<&LazyTokenizer> {
        self.tokenizer.as_ref()
    }

    /// The model's end ids, see [`mod@text::end_ids`].
    pub fn end_ids(&self) -> &[TokenId] {
        &self.end_ids
    }

    /// The chat template.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn chat(&self) -> Result<&ChatTemplate, ChatError> {
        if let Some(chat) = self.chat.get() {
            return Ok(chat);
        }
        let chat = ChatTemplate::open(self.dir.path())?;
        Ok(self.chat.get_or_init(|| chat))
    }
}

/// Starts the executor that an engine was built for.
fn run(
    dir: &EngineDir,
    config: &ExecutorConfig,
    tokenizer: Option<&LazyTokenizer>,
    end_ids: &[TokenId],
) -> Result<Running, OpenError> {
    if dir.build_config().is_none() {
        return Ok(Running::Cpu(Arc::new(CpuExecutor::open_sharing(dir, tokenizer.cloned(), config)?)));
    }
    let library = gpu_library(dir)?;
    if let Some(obstacle) = doctor::obstacle(dir) {
        return Err(OpenError::Gpu { engine: dir.path().display().to_string(), obstacle });
    }
    let tokenizer = tokenizer.filter(|_| config.tensorrt_llm.guided_decoding);
    let tokenizer = tokenizer.map(|tokenizer| guide_tokenizer(dir, tokenizer, end_ids)).transpose()?;
    let executor = TensorRtLlmExecutor::open(dir, config, tokenizer, &library)?;
    Ok(Running::TensorRtLlm(Arc::new(executor)))
}

/// TensorRT-LLM, for an engine that needs it.
fn gpu_library(dir: &EngineDir) -> Result<GpuLibrary, OpenError> {
    trtllm_sys::loader::open().map_err(|error| {
        let tried: Vec<_> = error.tried.iter().map(ToString::to_string).collect();
        OpenError::Target {
            engine: dir.path().display().to_string(),
            target: dir.manifest().target.clone(),
            obstacle: format!("but {error} ({})", tried.join("; ")),
        }
    })
}

fn guide_tokenizer(
    dir: &EngineDir,
    tokenizer: &LazyTokenizer,
    end_ids: &[TokenId],
) -> Result<GuideTokenizer, OpenError> {
    let text = tokenizer.clone();
    let tokenizer = tokenizer.get()?;
    let path = dir.path().join(TOKENIZER_FILE);
    let tokenizer_json = std::fs::read_to_string(&path).map_err(FormatError::io("read", &path))?;
    let size = dir.config().vocab_size;
    let token = |id: usize| TokenId::try_from(id).ok().and_then(|id| tokenizer.id_to_token(id)).unwrap_or_default();
    let vocabulary = (0..size).map(token).collect();
    Ok(GuideTokenizer { text, gpu: GpuTokenizer { tokenizer_json, vocabulary, stop_token_ids: end_ids.to_vec() } })
}

/// Whether an engine of this target can be run here and now, before time is spent on it.
///
/// # Errors
/// [`OpenError::Target`].
pub fn check_target(dir: &EngineDir) -> Result<(), OpenError> {
    if dir.build_config().is_some() { gpu_library(dir).map(drop) } else { Ok(()) }
}
