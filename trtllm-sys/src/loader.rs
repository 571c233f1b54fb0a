//! Finding and opening `libtrtllm_gpu.so`.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::dynamic_library::DynamicLibrary;

/// File name of the shim over TensorRT-LLM.
pub const LIBRARY_NAME: &str = "libtrtllm_gpu.so";

/// Environment variable that names the shim's file; when it is set, nothing else is tried.
pub const LIBRARY_VARIABLE: &str = "TRTLLM_GPU_LIB";

/// The shim, opened. This version calls nothing in it.
#[derive(Debug)]
pub struct ShimLibrary {
    /// Where it was found: a path, or the bare name when the system's loader found it.
    pub path: PathBuf,
}

/// The shim cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("`{LIBRARY_NAME}`, the library that reaches TensorRT-LLM, cannot be opened")]
pub struct LoaderError {
    /// Every place that was tried, in order.
    pub tried: Vec<Attempt>,
}

/// One place where the shim was looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// The file, or a bare name for the system's loader (`LD_LIBRARY_PATH`, the loader's cache).
    pub path: PathBuf,
    /// What the loader said.
    pub reason: String,
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`: {}", self.path.display(), self.reason)
    }
}

/// Opens the shim: the file that `TRTLLM_GPU_LIB` names, else the one beside the program, in `../lib` of the program, or on
/// the system's library path.
///
/// # Errors
/// [`LoaderError`] with every place that was tried.
pub fn open() -> Result<ShimLibrary, LoaderError> {
    let program = std::env::current_exe().ok();
    open_first(candidates(std::env::var_os(LIBRARY_VARIABLE), program.as_deref().and_then(Path::parent)))
}

/// Where to look, in order. `program_dir` is the folder of the running program.
fn candidates(variable: Option<OsString>, program_dir: Option<&Path>) -> Vec<PathBuf> {
    if let Some(path) = variable.filter(|path| !path.is_empty()) {
        return vec![path.into()];
    }
    let beside = program_dir.map(|dir| dir.join(LIBRARY_NAME));
    let library_dir = program_dir.and_then(Path::parent).map(|root| root.join("lib").join(LIBRARY_NAME));
    beside.into_iter().chain(library_dir).chain([PathBuf::from(LIBRARY_NAME)]).collect()
}

fn open_first(candidates: Vec<PathBuf>) -> Result<ShimLibrary, LoaderError> {
    let mut tried = Vec::new();
    for path in candidates {
        let is_path = path.as_os_str().as_encoded_bytes().contains(&b'/');
        let opened =
            if is_path && !path.exists() { Err("no such file".to_owned()) } else { DynamicLibrary::open(&path) };
        match opened {
            Ok(_) => return Ok(ShimLibrary { path }),
            Err(reason) => tried.push(Attempt { path, reason }),
        }
    }
    Err(LoaderError { tried })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_variable_stands_alone() {
        let found = candidates(Some("/opt/shim.so".into()), Some(Path::new("/usr/bin")));
        assert_eq!(found, [PathBuf::from("/opt/shim.so")]);
        let found = candidates(None, Some(Path::new("/usr/bin")));
        let expected = ["/usr/bin/libtrtllm_gpu.so", "/usr/lib/libtrtllm_gpu.so", "libtrtllm_gpu.so"];
        assert_eq!(found, expected.map(PathBuf::from));
    }

    #[test]
    fn what_was_tried_is_listed_with_reasons() {
        let dir = tempfile::tempdir().unwrap();
        let not_a_library = dir.path().join("text.so");
        std::fs::write(&not_a_library, "not a library").unwrap();
        let absent = dir.path().join("absent.so");
        let error = open_first(vec![absent.clone(), not_a_library.clone()]).unwrap_err();
        assert_eq!(error.tried.len(), 2);
        assert_eq!(error.tried[0].reason, "no such file");
        for (attempt, path) in error.tried.iter().zip([absent, not_a_library]) {
            let text = attempt.to_string();
            assert!(text.contains(&path.display().to_string()), "{text}");
        }
    }

    #[test]
    fn the_first_that_opens_is_taken() {
        let found = open_first(vec!["libno-such-shim.so".into(), "libc.so.6".into()]).unwrap();
        assert_eq!(found.path, Path::new("libc.so.6"));
    }
}
