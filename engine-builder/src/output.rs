//! What is common to every output: what was written, and whether it fits.

use std::path::Path;
use std::time::Duration;

use engine_format::staging;
use serde_json::Value;

use crate::error::{BuildError, Result};

/// What a build wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Number of files.
    pub files: usize,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Time from the start until everything was on the disk and in its place.
    pub elapsed: Duration,
}

/// Room for the small files: the tokenizer's are a few megabytes.
const SMALL_FILES: u64 = 32 << 20;

/// Checks that `bytes` of weights fit where `inside` is; `output` is what the user calls it.
///
/// # Errors
/// [`BuildError::NoSpace`]. A file system that does not say how much is free is trusted to fail later.
pub(crate) fn check_free_space(output: &Path, inside: &Path, bytes: u64) -> Result<()> {
    let needed = bytes.saturating_add(SMALL_FILES);
    match staging::free_bytes(inside) {
        Some(free) if free < needed => Err(BuildError::NoSpace { path: output.to_owned(), needed, free }),
        _ => Ok(()),
    }
}

/// A JSON file's bytes, for people to read.
pub(crate) fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}
