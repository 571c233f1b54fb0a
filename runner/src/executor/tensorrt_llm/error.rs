//! Why TensorRT-LLM's executor cannot be started.

use std::io;
use std::path::PathBuf;

use engine_format::FormatError;
use trtllm_sys::gpu::GpuError;

use crate::executor::{KvCacheDtype, LimitError};

/// Why TensorRT-LLM's executor cannot be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The engine is not one of TensorRT's.
    #[error("`{path}` is not an engine for TensorRT-LLM")]
    NotTensorRt {
        /// The engine directory.
        path: PathBuf,
    },
    /// The engine directory does not hold.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The engine was built by another release than the one that is loaded.
    #[error(
        "`{path}` was built for TensorRT-LLM {engine}, but {loaded} is loaded: run it with that release, or build it again"
    )]
    Version {
        /// The engine directory.
        path: PathBuf,
        /// The release that built it.
        engine: String,
        /// The release that is there.
        loaded: String,
    },
    /// A limit outside what the engine was built for.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// A setting that the loaded release does not have.
    #[error("TensorRT-LLM {version} does not have the setting `{setting}`")]
    Setting {
        /// The release.
        version: String,
        /// The setting.
        setting: String,
    },
    /// A setting that cannot work with the engine.
    #[error("`{path}` cannot run with the setting `{setting}`: {problem}")]
    Conflict {
        /// The engine directory.
        path: PathBuf,
        /// The setting, in the table `[tensorrt_llm]`.
        setting: &'static str,
        /// Why, and what to do.
        problem: &'static str,
    },
    /// A KV cache of another type than the engine's.
    #[error(
        "`{path}` cannot run with a KV cache in {dtype}, which only CPU engines can be asked for: that of a TensorRT engine is built in, so leave the setting out"
    )]
    KvCacheDtype {
        /// The engine directory.
        path: PathBuf,
        /// What was asked for.
        dtype: KvCacheDtype,
    },
    /// TensorRT-LLM did not open the engine.
    #[error("TensorRT-LLM cannot open `{path}`")]
    Open {
        /// The engine directory.
        path: PathBuf,
        /// What it said.
        source: GpuError,
    },
    /// This process is building an engine with TensorRT.
    #[error(
        "`{path}` cannot be opened now: {problem}; open it when that build has ended, or build in a process of its own"
    )]
    Busy {
        /// The engine directory.
        path: PathBuf,
        /// Why the two cannot be together.
        problem: String,
    },
    /// An orchestrator's worker program is not there.
    #[error("`{tried}`, the program that runs a rank, is not there: name it with `worker_executable`")]
    NoWorker {
        /// Where it was looked for.
        tried: PathBuf,
    },
    /// An orchestrator's workers did not start.
    #[error("the engine's ranks did not start: {problem}; what they printed is in `{log}`{}", tail(end))]
    Workers {
        /// What happened.
        problem: String,
        /// Their log.
        log: PathBuf,
        /// Its last lines.
        end: String,
    },
    /// No folder for the workers' log.
    #[error("cannot write to the folder for temporary files: {source}")]
    WorkerDir {
        /// The system's error.
        source: io::Error,
    },
    /// A thread cannot be started.
    #[error("cannot start a thread: {source}")]
    Thread {
        /// The system's error.
        source: io::Error,
    },
}

fn tail(end: &str) -> String {
    if end.is_empty() { String::new() } else { format!(", which ends with:\n{end}") }
}
