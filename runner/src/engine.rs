//! An engine directory, opened to be run: its executor, and what turns text into requests.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use engine_format::engine_dir::TOKENIZER_FILE;
use engine_format::{EngineDir, FormatError};

use crate::chat::{ChatError, ChatTemplate};
use crate::cpu_model::CpuModelError;
use crate::end_ids::end_ids;
use crate::executor::{ExecutorConfig, TokenId};
use crate::inflight::CpuExecutor;
use crate::tokenizer::{Tokenizer, TokenizerError};

/// Why an engine cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The engine directory does not hold.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The tokenizer does not hold.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// The CPU executor cannot be started.
    #[error(transparent)]
    Cpu(#[from] CpuModelError),
    /// This machine or this version cannot run the engine.
    #[error("`{engine}` was built for `{target}`, {obstacle}; build it for the CPU with `build-engine --gpu none`")]
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
    executor: Arc<CpuExecutor>,
    tokenizer: Option<Arc<Tokenizer>>,
    end_ids: Vec<TokenId>,
    chat: OnceLock<ChatTemplate>,
}

impl Engine {
    /// Opens an engine directory and starts its executor. The chat template is read when it is first asked for.
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
        check_target(&dir)?;
        let tokenizer = dir.has_file(TOKENIZER_FILE).then(|| Tokenizer::open(dir.path())).transpose()?;
        let end_ids = end_ids(&dir, tokenizer.as_ref())?;
        let executor = Arc::new(CpuExecutor::open(&dir, config)?);
        Ok(Self { dir, executor, tokenizer: tokenizer.map(Arc::new), end_ids, chat: OnceLock::new() })
    }

    /// The directory.
    pub fn dir(&self) -> &EngineDir {
        &self.dir
    }

    /// The executor.
    pub fn executor(&self) -> &Arc<CpuExecutor> {
        &self.executor
    }

    /// The tokenizer; `None` where the engine has none.
    pub fn tokenizer(&self) -> Option<&Arc<Tokenizer>> {
        self.tokenizer.as_ref()
    }

    /// The model's end ids, see [`mod@crate::end_ids`].
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

/// Whether an engine of this target can be run here and now.
///
/// # Errors
/// [`OpenError::Target`].
pub fn check_target(dir: &EngineDir) -> Result<(), OpenError> {
    let target = &dir.manifest().target;
    if target == "none" {
        return Ok(());
    }
    let missing = trtllm_sys::probe().missing();
    let obstacle = match missing.as_slice() {
        [] => "and this version runs CPU engines only".to_owned(),
        missing => format!("but {}", missing.join("; ")),
    };
    Err(OpenError::Target { engine: dir.path().display().to_string(), target: target.clone(), obstacle })
}
