//! The crate's error type.

use std::path::PathBuf;

use engine_format::FormatError;

use crate::non_finite::NonFiniteWeights;

/// Shorthand for this crate's results.
pub type Result<T, E = BuildError> = std::result::Result<T, E>;

/// Why nothing was built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The source or the output breaks its format, or the system refused an operation on a file.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The tokenizer is one that a run would refuse.
    #[error(transparent)]
    Tokenizer(#[from] text::tokenizer::TokenizerError),
    /// A TensorRT network that does not work out.
    #[error(transparent)]
    Network(#[from] crate::network::NetworkError),
    /// TensorRT did not build a rank's engine.
    #[error("TensorRT cannot build rank{rank}.engine")]
    TensorRt {
        /// The rank.
        rank: usize,
        /// What it said.
        source: trtllm_sys::gpu::GpuError,
    },
    /// This process has an engine open that TensorRT-LLM runs.
    #[error("{problem}: close that engine first, or build in a process of its own, as `build-engine` does")]
    Busy {
        /// Why the two cannot be together.
        problem: String,
    },
    /// `trtllm-build` did not build the engines.
    #[error("`{path}` {problem}", path = program.display())]
    TrtllmBuild {
        /// The program.
        program: PathBuf,
        /// What went wrong, as the end of a sentence.
        problem: String,
    },
    /// The user asked to stop.
    #[error("interrupted: nothing was left behind")]
    Interrupted,
    /// The file system has too little room for the output.
    #[error("`{path}` needs {needed} bytes, but its file system has only {free} bytes free")]
    NoSpace {
        /// The output directory.
        path: PathBuf,
        /// Bytes that the output takes.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// `--model` names nothing that is there.
    #[error("cannot find the model `{model}`: {tried}", model = model.display())]
    NoModel {
        /// The model, as the user named it.
        model: PathBuf,
        /// What was looked for and what to do, as the end of the sentence.
        tried: String,
    },
    /// The Hugging Face hub did not give a file.
    #[error("cannot download `{file}` of `{model}` from {endpoint}: {problem}")]
    Hub {
        /// The model, as `org/name`.
        model: String,
        /// The file, or `the list of files`.
        file: String,
        /// The server that was asked.
        endpoint: String,
        /// What went wrong and, where it is known, what to do.
        problem: String,
    },
    /// The threads that convert weights cannot be started.
    #[error(transparent)]
    Pool(#[from] system::PoolError),
    /// Another thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// Weights are infinite or not a number, and nobody said that they may be.
    #[error("{0}: fetch the model again, or set `allow_non_finite` where they are meant")]
    NonFinite(Box<NonFiniteWeights>),
    /// The source is a checkpoint that is split over ranks already, and the request needs whole weights.
    #[error(
        "`{path}` is split over {tp_size} tensor-parallel and {pp_size} pipeline-parallel ranks and cannot be split another way: start from the model that it was made from"
    )]
    SplitCheckpoint {
        /// The checkpoint directory.
        path: PathBuf,
        /// Its tensor-parallel size.
        tp_size: usize,
        /// Its pipeline-parallel size.
        pp_size: usize,
    },
}

impl BuildError {
    /// Whether the user, not a fault, ended the build.
    pub fn is_interrupted(&self) -> bool {
        matches!(self, Self::Interrupted)
    }

    /// Whether the output did not fit, found out before or while it was written.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::NoSpace { .. } => true,
            Self::Format(error) => error.is_disk_full(),
            _ => false,
        }
    }
}
