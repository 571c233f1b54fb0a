//! The decoder on the CPU: weights mapped from the engine, a KV cache in blocks, one forward pass for any mixture of
//! context and generation tokens.

mod cached;
mod forward;
mod kv_cache;
mod weights;

use cpu_kernels::{IsaError, Kernels};
use engine_format::error::counted;
use engine_format::{EngineDir, FormatError, ModelConfig, WeightType};
use system::cores::cores;
use system::threads::in_default_floating_point_mode;
use system::{Pool, PoolError};

use crate::executor::LimitError;

pub use cached::CachedCpuModel;
pub use forward::ForwardPass;
pub use kv_cache::{KvCache, bytes_per_token};

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
    #[error(
        "a KV cache of {} holds no block of {}: give it {tokens_per_block} or more, or lower tokens_per_block",
        counted(*tokens, "token"),
        counted(*tokens_per_block, "token")
    )]
    KvCacheTokens {
        /// What was asked for.
        tokens: usize,
        /// Tokens of a block.
        tokens_per_block: usize,
    },
    /// A KV cache of less bytes than one block.
    #[error(
        "a KV cache of {bytes} bytes holds no block of {}, which takes {block} bytes: give it {block} or more, or lower tokens_per_block",
        counted(*tokens_per_block, "token")
    )]
    KvCacheBytes {
        /// What was asked for.
        bytes: usize,
        /// Tokens of a block.
        tokens_per_block: usize,
        /// Bytes of a block.
        block: usize,
    },
    /// Memory that is not to be had.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The threads could not be started.
    #[error(transparent)]
    Threads(#[from] PoolError),
    /// The owner thread could not be started.
    #[error("cannot start a thread beside {threads} workers: {source}")]
    Owner {
        /// Worker threads that run already.
        threads: usize,
        /// The cause.
        source: std::io::Error,
    },
}

/// Memory that is not to be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} takes {bytes} bytes, {reason}: give the KV cache fewer tokens or bytes, lower max_num_tokens, or let the process have more memory"
)]
pub struct MemoryError {
    /// What it is for.
    pub what: String,
    /// How much.
    pub bytes: u64,
    /// Why it is not to be had, as the middle of a sentence.
    pub reason: String,
}

impl MemoryError {
    /// Memory that the system has refused.
    pub(crate) fn refused(what: impl Into<String>, bytes: u64) -> Self {
        Self { what: what.into(), bytes, reason: "which the system refuses".to_owned() }
    }
}

/// A decoder whose weights are mapped; it holds no state of any sequence.
#[derive(Debug)]
pub struct CpuModel {
    config: ModelConfig,
    kernels: Kernels,
    pool: Pool,
    weights: ModelWeights,
    inverse_frequencies: Vec<f32>,
}

impl CpuModel {
    /// Opens a CPU engine with this many worker threads (`None`: one for each physical core that the process may use).
    ///
    /// # Errors
    /// [`CpuModelError`].
    pub fn open(engine: &EngineDir, threads: Option<usize>) -> Result<Self, CpuModelError> {
        let kernels = Kernels::detect()?;
        let weights = ModelWeights::open(engine)?;
        let pool = Pool::new("cpu", threads.unwrap_or_else(cores))?;
        let config = engine.config().clone();
        // Here the caller's thread computes.
        let inverse_frequencies = in_default_floating_point_mode(|| config.rope.inverse_frequencies(config.head_size));
        Ok(Self { config, kernels, pool, weights, inverse_frequencies })
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What its matrices are stored as.
    pub fn weight_type(&self) -> WeightType {
        self.weights.weight_type()
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
