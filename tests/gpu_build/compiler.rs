//! `--compiler trtllm-build`: a script stands in for TensorRT-LLM's program.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::common::run;
use crate::support::{A100, build_engine, entries, json, model};

/// A program that writes down what it was asked, and makes what the real one would make, without content.
const PROGRAM: &str = r#"#!/bin/sh
echo "a stand-in for trtllm-build"
printf '%s ' "$@" >"$ASKED"
while [ $# -gt 0 ]; do
    case "$1" in
    --output_dir) out=$2 ;;
    --checkpoint_dir) checkpoint=$2 ;;
    esac
    shift
done
[ -z "$FAILS" ] || { echo "ValueError: no such GPU" >&2; exit 7; }
printf '{"version": "1.2.1", "pretrained_config": %s, "build_config": {"max_seq_len": 64, "max_batch_size": 4, "max_num_tokens": 64}}' \
    "$(cat "$checkpoint/config.json")" >"$out/config.json"
for rank in "$checkpoint"/rank*.safetensors; do
    name=${rank##*/}
    echo "no engine: a stand-in for one" >"$out/${name%.safetensors}.engine"
done
"#;

fn with_program(dir: &Path, arguments: &[&str]) -> std::process::Command {
    let bin = dir.join("bin");
    std::fs::create_dir_all(&bin).unwrap();
    let program = bin.join("trtllm-build");
    std::fs::write(&program, PROGRAM).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = build_engine(dir, A100, arguments);
    let path = std::env::var("PATH").unwrap();
    command.env("PATH", format!("{}:{path}", bin.display())).env("ASKED", dir.join("asked")).env("FAILS", "");
    command.env("TRTLLM_GPU_LIB", "/no/such/library");
    command
}

#[test]
fn the_same_checkpoint_and_limits_go_to_trtllm_build() {
    let dir = tempfile::tempdir().unwrap();
    let model = model();
    let arguments = [
        "--gpu",
        "a100",
        "--compiler",
        "trtllm-build",
        "--tp-size",
        "2",
        "--max-batch-size",
        "4",
        "--output",
        "engine",
    ];
    let output = run(&mut with_program(dir.path(), &[&["--model", &model], &arguments[..]].concat()));
    assert_eq!(output.code, 0, "{}", output.stderr);
    let asked = std::fs::read_to_string(dir.path().join("asked")).unwrap();
    for words in ["--max_batch_size 4 ", "--max_beam_width 1 ", "--gemm_plugin disable ", "--workers 1 "] {
        assert!(asked.contains(words), "no `{words}`: {asked}");
    }
    assert_eq!(entries(dir.path()), ["asked", "bin", "engine"]);
    let manifest = json(dir.path().join("engine/engine.json"));
    assert!(manifest["created_by"].as_str().unwrap().ends_with("through trtllm-build"));
    assert_eq!(manifest["versions"]["tensorrt_llm"], "1.2.1");
    for name in ["rank0.engine", "rank1.engine", "config.json", "tokenizer.json"] {
        assert_eq!(manifest["files"].get(name).is_some(), dir.path().join("engine").join(name).exists(), "{name}");
    }
    trtllm::engine_format::EngineDir::open(&dir.path().join("engine")).unwrap().check_ranks().unwrap();
}

#[test]
fn its_last_words_are_in_the_error() {
    let dir = tempfile::tempdir().unwrap();
    let model = model();
    let arguments = ["--model", &model, "--gpu", "a100", "--compiler", "trtllm-build", "--output", "engine"];
    let output = run(with_program(dir.path(), &arguments).env("FAILS", "1"));
    assert_eq!(output.code, 1, "{}", output.stderr);
    assert!(output.stderr.contains("ValueError: no such GPU"), "{}", output.stderr);
    assert_eq!(entries(dir.path()), ["asked", "bin"]);
}

#[test]
fn without_it_the_machine_lacks_something() {
    let dir = tempfile::tempdir().unwrap();
    let model = model();
    let arguments = ["--model", &model, "--gpu", "a100", "--compiler", "trtllm-build", "--output", "engine"];
    let output = run(build_engine(dir.path(), A100, &arguments).env("PATH", "/no/such/folder"));
    assert_eq!(output.code, 3, "{}", output.stderr);
    assert!(output.stderr.contains("`trtllm-build` is not in PATH"), "{}", output.stderr);
    assert!(output.stderr.contains("--compiler trtllm-build"), "{}", output.stderr);
}
