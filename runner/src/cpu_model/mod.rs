//! The decoder on the CPU: weights mapped from the engine, a KV cache in blocks, one forward pass for any mixture of
//! context and generation tokens.

mod cached;
mod forward;
mod kv_cache;
mod weights;

use cpu_kernels::{IsaError, Kernels};
use engine_format::{EngineDir, FormatError, ModelConfig};

use crate::executor::LimitError;

pub use cached::CachedCpuModel;
pub use forward::ForwardPass;
pub use kv_cache::KvCache;

pub use crate::model::StepSequence;

use weights::ModelWeights;

/// Why a CPU model could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CpuModelError {
    /// The engine directory does not hold.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The instruction set asked for is not available.
    #[error(transparent)]
    Isa(#[from] IsaError),
    /// A limit of the configuration that the engine does not allow.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// A KV cache of less than one block.
    #[error("a KV cache of {tokens} tokens holds no block of {tokens_per_block} tokens: give it more tokens")]
    KvCacheTokens {
        /// What was asked for.
        tokens: usize,
        /// Tokens of a block.
        tokens_per_block: usize,
    },
    /// The threads could not be started.
    #[error("cannot start {threads} worker threads: {source}")]
    Threads {
        /// Threads asked for.
        threads: usize,
        /// The cause.
        source: rayon::ThreadPoolBuildError,
    },
    /// The owner thread could not be started.
    #[error("cannot start a thread beside {threads} workers: {source}")]
    Owner {
        /// Worker threads that run already.
        threads: usize,
        /// The cause.
        source: std::io::Error,
    },
}

/// A decoder whose weights are mapped; it holds no state of any sequence.
#[derive(Debug)]
pub struct CpuModel {
    config: ModelConfig,
    kernels: Kernels,
    pool: rayon::ThreadPool,
    weights: ModelWeights,
    inverse_frequencies: Vec<f32>,
}

impl CpuModel {
    /// Opens a CPU engine with this many worker threads (`None`: one for each core that the process may use).
    ///
    /// # Errors
    /// [`CpuModelError`].
    pub fn open(engine: &EngineDir, threads: Option<usize>) -> Result<Self, CpuModelError> {
        let kernels = Kernels::detect()?;
        let weights = ModelWeights::open(engine)?;
        let threads = threads.or_else(|| std::thread::available_parallelism().ok().map(Into::into)).unwrap_or(1);
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("cpu-model-{index}"))
            .build()
            .map_err(|source| CpuModelError::Threads { threads, source })?;
        let config = engine.config().clone();
        let inverse_frequencies = config.rope.inverse_frequencies(config.head_size);
        Ok(Self { config, kernels, pool, weights, inverse_frequencies })
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The kernels in use.
    pub fn kernels(&self) -> Kernels {
        self.kernels
    }

    /// The model's worker threads.
    pub fn pool(&self) -> &rayon::ThreadPool {
        &self.pool
    }
}
