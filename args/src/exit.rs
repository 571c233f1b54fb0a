//! Why a program ends without success, what it says then, and its exit code.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use engine_format::error::with_causes;
use runner::cpu_model::CpuModelError;
use runner::engine::OpenError;
use runner::executor::tensorrt_llm;

/// Bad input or usage.
pub const INPUT: u8 = 2;
/// This machine lacks what was asked for.
pub const MACHINE: u8 = 3;
/// A signal ended the run.
pub const INTERRUPTED: u8 = 130;
/// Anything else.
pub const OTHER: u8 = 1;

/// Why a program ends without success.
#[derive(Debug)]
pub enum Failure {
    /// Bad input or usage: exit code 2.
    Input(anyhow::Error),
    /// This machine lacks what was asked for: exit code 3.
    Machine(anyhow::Error),
    /// Anything else: exit code 1.
    Other(anyhow::Error),
    /// A signal ended the run: exit code 130.
    Interrupted,
}

/// Marks errors about what the user gave.
pub fn input<E: Into<anyhow::Error>>(error: E) -> Failure {
    Failure::Input(error.into())
}

/// What a program ends with, after it has said why.
pub fn exit_code(result: Result<(), Failure>) -> ExitCode {
    let (error, code) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Interrupted) => {
            say("interrupted");
            return ExitCode::from(INTERRUPTED);
        }
        Err(Failure::Input(error)) => (error, INPUT),
        Err(Failure::Machine(error)) => (error, MACHINE),
        Err(Failure::Other(error)) => (error, OTHER),
    };
    say(format_args!("error: {}", with_causes(error.as_ref())));
    ExitCode::from(code)
}

impl Failure {
    /// What a program says of it, without `error: `.
    pub fn message(&self) -> String {
        match self {
            Self::Input(error) | Self::Machine(error) | Self::Other(error) => with_causes(error.as_ref()),
            Self::Interrupted => "interrupted".to_owned(),
        }
    }

    /// The same failure, with what it is about in front.
    pub fn of(self, name: Option<&str>) -> Self {
        let blame = |error: anyhow::Error| match name {
            Some(name) => error.context(name.to_owned()),
            None => error,
        };
        match self {
            Self::Input(error) => Self::Input(blame(error)),
            Self::Machine(error) => Self::Machine(blame(error)),
            Self::Other(error) => Self::Other(blame(error)),
            Self::Interrupted => Self::Interrupted,
        }
    }
}

/// A line to standard error. A reader that went away (`2>&1 | head`) is no reason to end a run.
pub fn say(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        use tensorrt_llm::OpenError as Gpu;
        let about = |setting: &str, error| Self::Input(anyhow::Error::new(error).context(setting.to_owned()));
        match &error {
            OpenError::Cpu(CpuModelError::KvCacheTokens { .. }) => {
                about("kv_cache.max_tokens (--kv-cache-tokens)", error)
            }
            OpenError::Cpu(CpuModelError::KvCacheBytes { .. }) => about("kv_cache.max_bytes (--kv-cache-bytes)", error),
            OpenError::TensorRtLlm(Gpu::KvCacheDtype { .. }) => about("kv_cache.dtype (--kv-cache-dtype)", error),
            OpenError::Format(format) | OpenError::Cpu(CpuModelError::Format(format)) if format.is_out_of_memory() => {
                Self::Machine(error.into())
            }
            OpenError::Cpu(CpuModelError::Isa(cpu_kernels::IsaError::Unknown { .. })) => input(error),
            OpenError::Cpu(CpuModelError::Format(_) | CpuModelError::Limit { .. }) => input(error),
            OpenError::Cpu(
                CpuModelError::Isa(_)
                | CpuModelError::Memory(_)
                | CpuModelError::Threads(_)
                | CpuModelError::Owner { .. },
            )
            | OpenError::Target { .. }
            | OpenError::Gpu { .. } => Self::Machine(error.into()),
            OpenError::TensorRtLlm(
                Gpu::Format(_)
                | Gpu::Limit { .. }
                | Gpu::Setting { .. }
                | Gpu::Conflict { .. }
                | Gpu::NotTensorRt { .. },
            ) => input(error),
            OpenError::TensorRtLlm(Gpu::Version { .. } | Gpu::NoWorker { .. }) => Self::Machine(error.into()),
            OpenError::Cpu(_) | OpenError::TensorRtLlm(_) => Self::Other(error.into()),
            _ => input(error),
        }
    }
}
