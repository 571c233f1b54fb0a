//! Finding and opening `libtrtllm_gpu.so`.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::gpu::GpuLibrary;

/// File name of the shim over TensorRT-LLM. There may be several, one for each release of TensorRT-LLM, whose names go on with
/// the release: `libtrtllm_gpu.so.1.2`.
pub const LIBRARY_NAME: &str = "libtrtllm_gpu.so";

/// Environment variable that names the shim's file; when it is set, nothing else is tried.
pub const LIBRARY_VARIABLE: &str = "TRTLLM_GPU_LIB";

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

/// Opens the shim: the file that `TRTLLM_GPU_LIB` names, else the one beside `libtrtllm.so` where a host has loaded that, beside the
/// program, in `../lib` of the program (or where distributions have libraries, `../lib64` and `../lib/x86_64-linux-gnu`), or on the
/// system's library path. Of several beside each other the first is taken that fits the TensorRT-LLM which is there.
///
/// # Errors
/// [`LoaderError`] with every place that was tried.
pub fn open() -> Result<GpuLibrary, LoaderError> {
    let program = std::env::current_exe().ok();
    let program_dir = program.as_deref().and_then(Path::parent);
    let library_dir = mapped_dir("libtrtllm.so");
    open_first(candidates(std::env::var_os(LIBRARY_VARIABLE), program_dir, library_dir.as_deref()))
}

/// The folder of a shared object that this process has loaded, whose file name begins like this.
pub(crate) fn mapped_dir(name: &str) -> Option<PathBuf> {
    dir_in(&std::fs::read_to_string("/proc/self/maps").ok()?, name)
}

fn dir_in(maps: &str, name: &str) -> Option<PathBuf> {
    let paths = maps.lines().filter_map(|line| line.find('/').map(|start| Path::new(&line[start..])));
    let is_it = |path: &&Path| path.file_name().is_some_and(|file| file.to_string_lossy().starts_with(name));
    paths.into_iter().find(is_it).and_then(Path::parent).map(Path::to_owned)
}

/// What TensorRT-LLM's library and its plugins need and this process has found, maybe by the shim's search path, which other programs
/// do not have. The rest of Open MPI lies beside `libmpi.so`.
const NEEDED: [&str; 6] =
    ["libtensorrt_llm.so", "libnvinfer.so", "libmpi.so", "libnccl.so", "libcudart.so", "libcublas.so"];

/// Where the system's loader looks without being told, on x86-64.
const STANDARD: [&str; 6] =
    ["/lib", "/usr/lib", "/lib64", "/usr/lib64", "/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu"];

/// The folders of the libraries that TensorRT-LLM was loaded with, TensorRT-LLM's first, each once, but for those where the system's
/// loader looks anyway.
pub(crate) fn needed_dirs() -> Vec<PathBuf> {
    needed_in(&std::fs::read_to_string("/proc/self/maps").unwrap_or_default())
}

fn needed_in(maps: &str) -> Vec<PathBuf> {
    let mut dirs: Vec<PathBuf> = Vec::new();
    for dir in NEEDED.into_iter().filter_map(|name| dir_in(maps, name)) {
        if !dirs.contains(&dir) && !STANDARD.iter().any(|standard| dir == Path::new(standard)) {
            dirs.push(dir);
        }
    }
    dirs
}

/// Where to look, in order: `program_dir` is the folder of the running program, `host_library_dir` that of `libtrtllm.so`.
fn candidates(variable: Option<OsString>, program_dir: Option<&Path>, host_library_dir: Option<&Path>) -> Vec<PathBuf> {
    if let Some(path) = variable.filter(|path| !path.is_empty()) {
        return vec![path.into()];
    }
    let root = program_dir.and_then(Path::parent);
    let library_dir = root.map(|root| root.join("lib"));
    // Every place that was tried is named in the message, so of these only those that are there.
    let others = root.into_iter().flat_map(|root| ["lib64", "lib/x86_64-linux-gnu"].map(|dir| root.join(dir)));
    let library_dirs = library_dir.into_iter().chain(others.filter(|dir| dir.is_dir()));
    let dirs = host_library_dir.into_iter().chain(program_dir).map(Path::to_owned).chain(library_dirs);
    dirs.flat_map(|dir| shims_in(&dir)).chain([PathBuf::from(LIBRARY_NAME)]).collect()
}

/// The shim of a folder, whether it is there or not, and those of releases that are there, the newest first.
fn shims_in(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let release = |path: &PathBuf| {
        let name = path.file_name()?.to_str()?.strip_prefix(LIBRARY_NAME)?.strip_prefix('.')?;
        name.split('.').map(|number| number.parse::<u32>().ok()).collect::<Option<Vec<_>>>()
    };
    let mut releases: Vec<_> = entries.filter_map(|path| Some((release(&path)?, path))).collect();
    releases.sort_by(|a, b| b.cmp(a));
    [dir.join(LIBRARY_NAME)].into_iter().chain(releases.into_iter().map(|(_, path)| path)).collect()
}

fn open_first(candidates: Vec<PathBuf>) -> Result<GpuLibrary, LoaderError> {
    let mut tried = Vec::new();
    for path in candidates {
        let is_path = path.as_os_str().as_encoded_bytes().contains(&b'/');
        let opened = if is_path && !path.exists() { Err("no such file".to_owned()) } else { GpuLibrary::open(&path) };
        match opened {
            Ok(library) => return Ok(library),
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
        let found = candidates(Some("/opt/shim.so".into()), Some(Path::new("/usr/bin")), None);
        assert_eq!(found, [PathBuf::from("/opt/shim.so")]);
        let found = candidates(None, Some(Path::new("/opt/program/bin")), Some(Path::new("/opt/host")));
        let expected = [
            "/opt/host/libtrtllm_gpu.so",
            "/opt/program/bin/libtrtllm_gpu.so",
            "/opt/program/lib/libtrtllm_gpu.so",
            "libtrtllm_gpu.so",
        ];
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
    fn a_worker_is_told_where_each_library_was_found() {
        let maps = "\
7f10-7f20 r-xp 00000000 08:01 11 /opt/hpcx/ompi/lib/libmpi.so.40.30.4
7f20-7f30 r--p 00000000 08:01 12 /usr/local/tensorrt/lib/libnvinfer.so.10.14.1
7f30-7f40 r-xp 00000000 08:01 13 /app/tensorrt_llm/lib/libtensorrt_llm.so
7f40-7f50 r-xp 00000000 08:01 14 /app/tensorrt_llm/lib/libnvinfer_plugin_tensorrt_llm.so
7f50-7f60 r-xp 00000000 08:01 15 /usr/lib/x86_64-linux-gnu/libcudart.so.13
7f60-7f70 r-xp 00000000 08:01 16 /opt/nccl/libnccl.so.2
7f70-7f80 rw-p 00000000 00:00 0
";
        let expected = ["/app/tensorrt_llm/lib", "/usr/local/tensorrt/lib", "/opt/hpcx/ompi/lib", "/opt/nccl"];
        assert_eq!(needed_in(maps), expected.map(PathBuf::from));
    }

    #[test]
    fn a_library_that_is_no_shim_is_refused() {
        let error = open_first(vec!["libno-such-shim.so".into(), "libc.so.6".into()]).unwrap_err();
        assert_eq!(error.tried.len(), 2);
        assert!(error.tried[1].reason.contains("does not export `trtllm_gpu`"), "{}", error.tried[1]);
    }

    #[test]
    fn releases_follow_the_nameless_one() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["libtrtllm_gpu.so.1.1", "libtrtllm_gpu.so.1.2", "libtrtllm_gpu.so.1.10", "libtrtllm_gpu.so.part"] {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let names: Vec<_> = shims_in(dir.path()).iter().map(|path| path.file_name().unwrap().to_owned()).collect();
        let expected = ["libtrtllm_gpu.so", "libtrtllm_gpu.so.1.10", "libtrtllm_gpu.so.1.2", "libtrtllm_gpu.so.1.1"];
        assert_eq!(names, expected);
    }
}
