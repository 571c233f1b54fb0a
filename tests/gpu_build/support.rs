//! A machine with a GPU, as far as a program can see.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{Output, fixture, program, run};
use crate::stand_in::{prefix, shim};

/// A GPU of the kind that `--gpu a100` is for: name, bytes, compute capability.
pub(crate) const A100: &str = "NVIDIA A100-SXM4-80GB:85899345920:8.0";

/// `build-engine` on a machine with these GPUs, in `dir`.
pub(crate) fn build_engine(dir: &Path, gpus: &str, arguments: &[&str]) -> Command {
    let mut command = program("build-engine");
    command.current_dir(dir).args(arguments);
    command.env("TRTLLM_GPU_LIB", shim()).env("TRTLLM_STAND_IN_GPUS", gpus);
    command.env("LD_LIBRARY_PATH", prefix().join("lib/cuda"));
    command
}

/// The same, which has to succeed.
pub(crate) fn built(dir: &Path, gpus: &str, arguments: &[&str]) -> Output {
    let output = run(&mut build_engine(dir, gpus, arguments));
    assert_eq!(output.code, 0, "{}", output.stderr);
    output
}

pub(crate) fn model() -> String {
    fixture("parity/mistral-gqa").to_string_lossy().into_owned()
}

/// Names in a folder, hidden ones too.
pub(crate) fn entries(dir: &Path) -> Vec<String> {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

pub(crate) fn json(path: PathBuf) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}
