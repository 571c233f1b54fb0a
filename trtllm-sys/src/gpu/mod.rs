//! TensorRT-LLM's executor, through the table of `libtrtllm_gpu.so` (`include/trtllm_gpu.h`). No type of TensorRT-LLM is seen
//! here, and nothing that it throws: failures are [`GpuError`].

mod bindings;
mod building;
mod executor;
mod library;
mod network;
mod nodes;
mod request;
mod responses;
mod settings;

pub use building::GpuBuilding;
pub use executor::{GpuExecutor, GpuIterationStats};
pub use library::{GpuLibrary, LogLine, Severity, same_release};
pub use network::{BuildPhase, GpuBuild, GpuNetwork};
pub use nodes::{
    Activation, DataType, ElementWise, NetworkInput, NetworkNode, NetworkOp, PluginField, PluginValues, Reduce, Unary,
};
pub use request::{GpuLora, GpuRequest, GpuRetention, GpuRetentionRange};
pub use responses::{GpuFailure, GpuLogits, GpuOutput, GpuPerfMetrics, GpuResponse, GpuResult, LogitValues, Responses};
pub use settings::{GpuTokenizer, Setting, SettingValue};

/// What TensorRT-LLM did not do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GpuError {
    /// It threw an exception.
    #[error("TensorRT-LLM: {message}")]
    Exception {
        /// The exception's message.
        message: String,
    },
    /// The release that is loaded does not have what was asked for.
    #[error("this release of TensorRT-LLM does not have {feature}")]
    Unsupported {
        /// What was asked for.
        feature: String,
    },
    /// A network was refused: by name what of it, and what TensorRT said.
    #[error("{message}")]
    Network {
        /// What was refused, and why.
        message: String,
    },
    /// It is not to be had as the executor was opened.
    #[error("{problem}")]
    Unavailable {
        /// Why, and what to do.
        problem: String,
    },
    /// This process builds engines and was to open one, or the reverse.
    #[error("{message}")]
    Busy {
        /// Which of the two, and why not both.
        message: String,
    },
    /// A build that was told to stop.
    #[error("stopped")]
    Cancelled,
    /// Text with a NUL byte, which C++ would cut off.
    #[error("{what} contains a NUL byte")]
    Nul {
        /// The text.
        what: String,
    },
}
