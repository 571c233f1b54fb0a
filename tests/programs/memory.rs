//! Runs within limits of memory.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::common;
use crate::support::{demo, file, refused, run_engine, succeeded, write_json};

/// The program, in a process that may map this many kilobytes.
fn within(kilobytes: usize, engine: &Path, arguments: &[&str]) -> Command {
    let program = common::program("run-engine");
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("ulimit -v {kilobytes}; exec \"$0\" \"$@\"")).arg(program.get_program());
    shell.arg("--engine").arg(engine).args(["--prompt", "Jupiter is", "--max-new-tokens", "5"]).args(arguments);
    shell
}

/// The bundled model with many positions: its KV cache could take more than any machine has.
fn long_model() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    crate::support::copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo-model"), dir.path());
    let path = dir.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["max_position_embeddings"] = (1 << 20).into();
    write_json(&path, &config);
    let path = dir.path().to_owned();
    (dir, path)
}

#[test]
fn a_process_with_little_address_space_runs_with_a_smaller_cache() {
    let (_dir, model) = long_model();
    let engine = common::build(&model, 512);
    let plain = succeeded(&mut within(40_000_000, &engine.path, &[])).stdout;
    for (kilobytes, arguments) in [(4_000_000, &[][..]), (4_000_000, &["--kv-cache-tokens", "4096"]), (1_000_000, &[])]
    {
        let output = succeeded(&mut within(kilobytes, &engine.path, arguments));
        assert_eq!(output.stdout, plain);
        let is_lowered = output.stderr.contains("warning: ") && output.stderr.contains("of 4096 tokens only");
        assert_eq!(is_lowered, !arguments.is_empty(), "{}", output.stderr);
    }
    let lowered = succeeded(&mut within(1_000_000, &engine.path, &["--kv-cache-tokens", "1000000"]));
    assert!(lowered.stderr.contains("RLIMIT_AS"), "{}", lowered.stderr);
}

#[test]
fn memory_that_is_refused_is_the_machines_fault_and_named_with_its_bytes() {
    let engine = demo();
    let mut codes = Vec::new();
    // With less than that, allocations are refused that Rust's own library makes, and the process ends.
    for kilobytes in (100_000..400_000).step_by(20_000) {
        let output = common::run(&mut within(kilobytes, &engine.path, &["--threads", "2"]));
        assert!(matches!(output.code, 0 | 3), "{kilobytes}: {} {}", output.code, output.stderr);
        if output.code == 3 {
            assert!(output.stderr.contains("bytes") || output.stderr.contains("thread"), "{}", output.stderr);
        }
        codes.push(output.code);
    }
    assert!(codes.is_sorted_by(|a, b| a >= b), "more memory is never worse: {codes:?}");
    assert_eq!(codes.last(), Some(&0));
}

#[test]
fn the_bytes_of_the_cache_can_be_given() {
    let engine = demo();
    let plain = ["--prompt", "Mars", "--max-new-tokens", "5"];
    let tokens = |arguments: &[&str]| {
        let output = succeeded(run_engine(&engine.path, &plain).args(arguments));
        let said = output.stderr.replace("KV cache in int8 of", "KV cache of");
        let (_, rest) = said.split_once("KV cache of ").unwrap();
        rest.split(' ').next().unwrap().parse::<usize>().unwrap()
    };
    let per_token = engine.engine.config().kv_bytes_per_token();
    let bytes = (per_token * 32 * 10 + 1).to_string();
    assert_eq!(tokens(&["--kv-cache-bytes", &bytes]), 320);
    assert_eq!(tokens(&["--kv-cache-bytes", &bytes, "--kv-cache-tokens", "64"]), 64);
    // 17 bytes for 32 elements, rather than 32 elements in 16 bits.
    assert_eq!(tokens(&["--kv-cache-bytes", &bytes, "--kv-cache-dtype", "int8"]), 320 * 64 / 34 / 32 * 32);
    let (_dir, path) = file("executor.toml", format!("[kv_cache]\nmax_bytes = {bytes}\n"));
    assert_eq!(tokens(&["--config", path.to_str().unwrap()]), 320);
    let warned = succeeded(run_engine(&engine.path, &plain).args(["--kv-cache-bytes", &bytes]));
    assert!(warned.stderr.contains("(--kv-cache-bytes) allows sequences of 320 tokens only"), "{}", warned.stderr);
    let block = (per_token * 32).to_string();
    refused(run_engine(&engine.path, &plain).args(["--kv-cache-bytes", "5"]), 2, &["5 bytes", "max_bytes", &block]);
    refused(
        run_engine(&engine.path, &plain).args(["--kv-cache-tokens", "5"]),
        2,
        &["5 tokens", "--kv-cache-tokens", "give it 32 or more"],
    );
}
