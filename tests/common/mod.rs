//! Helpers of the integration tests: fixtures, engines made from them, and the two programs.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub, reason = "each test binary uses some of these")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use engine_builder::compile::cpu::{CpuEngineRequest, build_cpu_engine};
use engine_builder::progress::{Interrupt, Quiet};
use engine_builder::source::Source;
use tempfile::TempDir;
use trtllm::engine_format::manifest::Limits;
use trtllm::engine_format::{EngineDir, WeightType};

/// A folder under `fixtures/`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name)
}

/// Every parity fixture's name.
pub fn parity_fixtures() -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(fixture("parity"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(names.len() >= 10, "{names:?}");
    names
}

/// Says that a test, or a part of it, did not run, in a line that captured output does not swallow: what was not run must not look
/// like what has passed.
pub fn discarded(what: &str) {
    let _ = std::io::stderr().write_all(format!("\nDISCARDED: {what}\n").as_bytes());
}

/// An engine in a directory that lives as long as this value.
pub struct Engine {
    _dir: TempDir,
    pub path: PathBuf,
    pub engine: EngineDir,
}

/// A copy of a model directory in which one element of a bfloat16 tensor of `model.safetensors` is NaN.
pub fn with_nan(model: &Path, tensor: &str, element: usize) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(model).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    let path = dir.path().join("model.safetensors");
    let mut content = std::fs::read(&path).unwrap();
    let (head, metadata) = safetensors::SafeTensors::read_metadata(&content).unwrap();
    let info = metadata.info(tensor).unwrap();
    assert_eq!(info.dtype, safetensors::Dtype::BF16);
    let place = 8 + head + info.data_offsets.0 + 2 * element;
    content[place..place + 2].copy_from_slice(&0x7fc0_u16.to_le_bytes());
    std::fs::write(&path, content).unwrap();
    dir
}

/// Builds a CPU engine from a model directory, with at most `max_num_tokens` tokens a step. Its weights may be anything.
pub fn build(model: &Path, max_num_tokens: usize) -> Engine {
    build_with(model, max_num_tokens, WeightType::Bf16)
}

/// [`build`] with matrices of a type.
pub fn build_with(model: &Path, max_num_tokens: usize, weights: WeightType) -> Engine {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("engine");
    let source = Source::open(model).unwrap();
    let max_seq_len = source.config().max_position_embeddings;
    let request = CpuEngineRequest {
        output: path.clone(),
        force: false,
        allow_non_finite: true,
        limits: Limits { max_seq_len, max_batch_size: 8, max_num_tokens },
        weights,
        model: model.display().to_string(),
    };
    build_cpu_engine(&source, &request, &Quiet, &Interrupt::new()).unwrap();
    let engine = EngineDir::open(&path).unwrap();
    Engine { _dir: dir, path, engine }
}

/// One of our programs, built if it is not yet.
pub fn program(name: &str) -> Command {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let directory = BUILT.get_or_init(|| {
        let mut build = Command::new(env!("CARGO"));
        // With a test among the targets, and the package of this one, Cargo resolves the features that this test was built
        // with. With others it would compile half of the dependencies again.
        build.args(["build", "--quiet", "--bins", "--test", "house_rules"]);
        build.args(["-p", "trtllm", "-p", "programs", "-p", "server"]);
        let this = std::env::current_exe().unwrap();
        let directory = this.ancestors().nth(2).unwrap().to_owned();
        if directory.ends_with("release") {
            build.arg("--release");
        }
        // What Cargo told this test of its package is not that of the shell it was started from: build scripts that look at it would
        // run again.
        for (name, _) in std::env::vars_os() {
            if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|start| name.to_string_lossy().starts_with(start)) {
                build.env_remove(name);
            }
        }
        assert!(build.current_dir(env!("CARGO_MANIFEST_DIR")).status().unwrap().success());
        directory
    });
    Command::new(directory.join(name))
}

/// What a program printed, and its exit code.
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a program to its end.
pub fn run(command: &mut Command) -> Output {
    let output = command.stdin(std::process::Stdio::null()).output().unwrap();
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}
