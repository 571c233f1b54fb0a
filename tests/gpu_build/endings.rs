//! Builds that cannot be, fail, or are stopped: one sentence, the right exit code, nothing left behind.

use std::time::{Duration, Instant};

use crate::common::run;
use crate::support::{A100, build_engine, entries, model};

/// The arguments of a build, and what else belongs to it.
fn refused(gpus: &str, more: &[&str], code: i32, texts: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let model = model();
    let arguments = [&["--model", &model, "--gpu", "a100", "--output", "engine"], more].concat();
    let output = run(&mut build_engine(dir.path(), gpus, &arguments));
    assert_eq!(output.code, code, "{}", output.stderr);
    for text in texts {
        assert!(output.stderr.contains(text), "no `{text}`: {}", output.stderr);
    }
    assert_eq!(entries(dir.path()), [""; 0], "{}", output.stderr);
}

#[test]
fn the_wrong_gpu_and_no_gpu_are_told_before_anything_is_converted() {
    let command = "build-engine --model";
    refused("NVIDIA L40S:48000000000:8.9", &[], 3, &["NVIDIA L40S", "NVIDIA A100 80GB SXM", command]);
    refused("", &[], 3, &["error: this machine cannot build an engine for `a100`", command]);
}

#[test]
fn a_missing_library_is_told_with_what_was_tried() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = build_engine(dir.path(), A100, &["--model", &model(), "--gpu", "a100", "--output", "engine"]);
    let output = run(command.env("TRTLLM_GPU_LIB", "/no/such/libtrtllm_gpu.so"));
    assert_eq!(output.code, 3);
    assert!(output.stderr.contains("tried `/no/such/libtrtllm_gpu.so`"), "{}", output.stderr);
    assert!(output.stderr.contains("build-engine --model"), "{}", output.stderr);
}

#[test]
fn an_unknown_release_of_tensorrt_llm_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = build_engine(dir.path(), A100, &["--model", &model(), "--gpu", "a100", "--output", "engine"]);
    let output = run(command.env("TRTLLM_STAND_IN_VERSION", "1.7.0"));
    assert_eq!(output.code, 3, "{}", output.stderr);
    assert!(output.stderr.contains("1.7.0"), "{}", output.stderr);
    assert_eq!(entries(dir.path()), [""; 0]);
}

#[test]
fn a_model_that_does_not_fit_is_foreseen() {
    let small = "NVIDIA A100-PCIE-40GB:200000000:8.0";
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["--model", &model(), "--gpu", "auto", "--output", "engine"];
    let output = run(&mut build_engine(dir.path(), small, &arguments));
    assert_eq!(output.code, 3, "{}", output.stderr);
    assert!(output.stderr.contains("does not fit") && output.stderr.contains("missing"), "{}", output.stderr);
    assert_eq!(entries(dir.path()), [""; 0]);
}

#[test]
fn what_tensorrt_says_is_in_the_error() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = build_engine(dir.path(), A100, &["--model", &model(), "--gpu", "a100", "--output", "engine"]);
    let output = run(command.env("TRTLLM_STAND_IN_TENSORRT", "fail"));
    assert_eq!(output.code, 1, "{}", output.stderr);
    assert!(output.stderr.contains("TensorRT cannot build rank0.engine"), "{}", output.stderr);
    assert!(output.stderr.contains("stand-in"), "{}", output.stderr);
    // It is TensorRT's word, and not TensorRT-LLM's.
    assert!(!output.stderr.contains("TensorRT-LLM: "), "{}", output.stderr);
    assert_eq!(output.stdout, "");
    assert_eq!(entries(dir.path()), [""; 0]);
}

#[test]
fn an_interrupt_ends_the_build_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = build_engine(dir.path(), A100, &["--model", &model(), "--gpu", "a100", "--output", "engine"]);
    command.env("TRTLLM_STAND_IN_TENSORRT", "build_ms=200").stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    // It has begun once something is there.
    while entries(dir.path()).is_empty() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
    let start = Instant::now();
    let killed = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{stderr}");
    assert!(start.elapsed() < Duration::from_secs(30));
    // To TensorRT it is an error; to whoever asked for it, it is none.
    assert!(!stderr.contains("BuildCanceled") && stderr.contains("interrupted"), "{stderr}");
    assert_eq!(entries(dir.path()), [""; 0], "{stderr}");
}
