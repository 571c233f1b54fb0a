//! The crate's error type.

use std::error::Error;
use std::path::{Path, PathBuf};

use crate::rebuild::Rebuild;

/// Shorthand for this crate's results.
pub type Result<T, E = FormatError> = std::result::Result<T, E>;

/// Why a model, a checkpoint or an engine directory was refused.
///
/// Every variant names the file and, where there is one, the tensor or the field.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// The operating system refused an operation on a file.
    #[error("cannot {action} `{path}`: {source}")]
    Io {
        /// What was attempted, as a verb: `read`, `write`, `create`, `rename`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's own error.
        source: std::io::Error,
    },
    /// A file that has to be there is not.
    #[error("`{path}` is missing: {hint}")]
    Missing {
        /// The file or directory that was looked for.
        path: PathBuf,
        /// What the file is for, or what to do about it.
        hint: String,
    },
    /// A file where a directory has to be.
    #[error("`{path}` is a file, not a directory: {hint}")]
    NotADirectory {
        /// The file.
        path: PathBuf,
        /// What the directory would be, and where it comes from.
        hint: String,
    },
    /// An output that already exists would have been overwritten.
    #[error("`{path}` exists already: {hint}")]
    Exists {
        /// The output directory.
        path: PathBuf,
        /// What to do about it.
        hint: String,
    },
    /// An output that somebody else is writing at this moment.
    #[error("another build is writing `{path}`: wait until it has ended, or choose another directory")]
    Busy {
        /// The output directory.
        path: PathBuf,
    },
    /// A file is something else than its name says.
    #[error("`{path}` is {what}: {advice}")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What it is, with an article.
        what: &'static str,
        /// What to do about it.
        advice: &'static str,
    },
    /// A file is not JSON.
    #[error("`{path}` is not valid JSON: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Line, column and cause.
        source: serde_json::Error,
    },
    /// A field of a JSON file is absent, of the wrong type, out of range, or contradicts another.
    #[error("`{path}`: field `{field}` {problem}")]
    Field {
        /// The file.
        path: PathBuf,
        /// The field, dotted from the root of the file.
        field: String,
        /// What is wrong with it, as the end of a sentence about the field.
        problem: String,
    },
    /// A value that is well formed but that this version does not support.
    #[error("`{path}`: `{field}` is `{value}`, which is not supported (supported: {supported})")]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The field or property.
        field: String,
        /// The value found.
        value: String,
        /// What would have been accepted.
        supported: String,
    },
    /// A file breaks its own format (safetensors header, weights header, manifest).
    #[error("`{path}` is damaged: {problem}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is invalid.
        problem: String,
    },
    /// A tensor that the model needs is in no file.
    #[error("`{path}`: tensor `{tensor}` is missing")]
    MissingTensor {
        /// The directory or file that was searched.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor that the model has no place for.
    #[error(
        "`{path}`: tensor `{tensor}` is unknown: the configuration describes a model without it, so its weights would be lost"
    )]
    UnknownTensor {
        /// The file that holds it.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor that cannot be used, because of what its name or its values say.
    #[error("`{path}`: tensor `{tensor}` {problem}")]
    Tensor {
        /// The file that holds it.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong with it, as the end of a sentence about the tensor.
        problem: String,
    },
    /// A tensor has another shape than the configuration says.
    #[error("`{path}`: tensor `{tensor}` has shape {found:?}, but the configuration says {expected:?}")]
    TensorShape {
        /// The file that holds it.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shape that follows from `config.json`.
        expected: Vec<usize>,
        /// The shape stored.
        found: Vec<usize>,
    },
    /// A tensor has an element type that cannot be read.
    #[error("`{path}`: tensor `{tensor}` is {found}, which is not supported (supported: BF16, F16, F32)")]
    TensorDtype {
        /// The file that holds it.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The type, as safetensors spells it.
        found: String,
    },
    /// A way to split a model over GPUs that does not work out.
    #[error("cannot split the model with tp_size {tp_size}, pp_size {pp_size}: {problem}")]
    Mapping {
        /// Tensor-parallel size.
        tp_size: usize,
        /// Pipeline-parallel size.
        pp_size: usize,
        /// What does not divide, or is zero.
        problem: String,
    },
    /// An engine directory written by another version of the format.
    #[error(
        "`{path}` has format version {found}, this program reads {expected}: build the engine again with `{rebuild}`"
    )]
    Version {
        /// `engine.json` or the weights file.
        path: PathBuf,
        /// The version found.
        found: u64,
        /// The version that this program writes and reads.
        expected: u64,
        /// The command that builds the engine again.
        rebuild: Rebuild,
    },
    /// A file's size differs from the manifest's record.
    #[error(
        "`{path}` has {found} bytes, `engine.json` says {expected}: copy the engine directory again or build it again"
    )]
    FileSize {
        /// The file.
        path: PathBuf,
        /// Bytes recorded.
        expected: u64,
        /// Bytes found.
        found: u64,
    },
    /// Content differs from its recorded hash.
    #[error(
        "`{path}`: {what} does not match its BLAKE3 hash in `engine.json`: copy the engine directory again or build it again"
    )]
    Hash {
        /// The file.
        path: PathBuf,
        /// The part that changed: `the file`, `the header`, or a tensor's name.
        what: String,
    },
}

impl FormatError {
    /// An [`FormatError::Io`] for `path`; made for `map_err`.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    /// A [`FormatError::Field`].
    pub fn field(path: &Path, field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Field { path: path.to_owned(), field: field.into(), problem: problem.into() }
    }

    /// A [`FormatError::Tensor`].
    pub fn tensor(path: &Path, tensor: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Tensor { path: path.to_owned(), tensor: tensor.into(), problem: problem.into() }
    }

    /// A [`FormatError::Damaged`].
    pub fn damaged(path: &Path, problem: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), problem: problem.into() }
    }

    /// Whether the system refused memory, or address space to map a file into.
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == std::io::ErrorKind::OutOfMemory)
    }

    /// Whether the cause is a file system without room; the output is then too large for the place asked for.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. }
            if matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded | std::io::ErrorKind::FileTooLarge))
    }
}

/// A number of things: `1 token`, `2 tokens`.
pub fn counted(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// An error and its causes in one line; a cause that the error already tells is not told again.
pub fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
