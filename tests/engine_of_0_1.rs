//! Engines on disk outlive the program that built them: the one that 0.1.0 wrote (`fixtures/engine-0.1`) still runs and says
//! the same (`programs/log_probs.rs` compares the log-probabilities), and one of another version is refused with the command that builds it again.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail where it likes")]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;
use trtllm::engine_format::manifest::{FORMAT_VERSION, FileRecord, MANIFEST_FILE, Manifest, hash};
use trtllm::engine_format::weights_file::{VERSION, WEIGHTS_FILE};
use trtllm::engine_format::{EngineDir, FormatError};
use trtllm::runner::engine::{Engine, OpenError};
use trtllm::runner::executor::{Executor, ExecutorConfig, FinishReason, Request, RequestSpec, Response};

/// The prompts of `expected.jsonl`, in its order.
const PROMPTS: [&[u32]; 4] = [
    &[21],
    &[1, 26, 37, 31, 3],
    &[1, 25, 9, 2, 46, 10, 28, 45, 32],
    &[26, 29, 6, 41, 34, 27, 51, 26, 1, 16, 38, 3, 18, 16, 20, 32, 1, 8, 34, 3],
];
const MAX_TOKENS: usize = 16;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/engine-0.1")
}

fn expected() -> Vec<Value> {
    let text = std::fs::read_to_string(fixture().join("expected.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn it_says_what_it_said() {
    let engine = Engine::open(&fixture().join("engine"), &ExecutorConfig::default()).unwrap();
    let executor = engine.executor();
    let expected = expected();
    assert_eq!(expected.len(), PROMPTS.len());
    for (prompt, line) in PROMPTS.iter().zip(&expected) {
        let spec = RequestSpec { end_ids: engine.end_ids().to_vec(), ..RequestSpec::new(prompt.to_vec(), MAX_TOKENS) };
        executor.enqueue(Request::new(spec, executor.limits(), executor.vocab_size()).unwrap()).unwrap();
        let (ids, reason) = output(executor.as_ref());
        assert_eq!(serde_json::to_value(&ids).unwrap(), line["output_ids"], "{prompt:?}");
        let ended = if line["finish_reason"] == "end_id" { FinishReason::EndId } else { FinishReason::Length };
        assert_eq!(reason, ended, "{prompt:?}");
    }
}

/// The tokens and the end of the one request that is open.
fn output(executor: &dyn Executor) -> (Vec<u32>, FinishReason) {
    let mut ids = Vec::new();
    loop {
        for response in executor.await_responses(None) {
            let Response::Result(result) = response else { panic!("{response:?}") };
            ids.extend(result.output_token_ids);
            if let Some(reason) = result.finish_reason {
                return (ids, reason);
            }
        }
    }
}

#[test]
fn every_weight_has_its_recorded_hash() {
    let dir = EngineDir::open(&fixture().join("engine")).unwrap();
    let mut bytes = 0;
    let ended = dir.verify(|more| {
        bytes += more;
        ControlFlow::Continue(())
    });
    assert_eq!(ended.unwrap(), ControlFlow::Continue(()));
    assert!(bytes > 40_000, "{bytes}");
    assert_eq!(dir.manifest().created_by, "build-engine 0.1.0");
}

/// A copy to change.
fn copy() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let engine = dir.path().join("engine");
    std::fs::create_dir(&engine).unwrap();
    for entry in std::fs::read_dir(fixture().join("engine")).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, engine.join(path.file_name().unwrap())).unwrap();
    }
    (dir, engine)
}

fn manifest(engine: &Path) -> Manifest {
    let path = engine.join(MANIFEST_FILE);
    Manifest::from_bytes(&path, &std::fs::read(&path).unwrap()).unwrap()
}

fn write(engine: &Path, manifest: &Manifest) {
    let path = engine.join(MANIFEST_FILE);
    std::fs::write(&path, manifest.to_bytes(&path).unwrap()).unwrap();
}

/// Opens an engine that must be refused for the version of its file `name`, with the command that builds it again, in which the
/// type of its weights is `option`.
fn refused(engine: &Path, name: &str, newer: u64, known: u64, option: &str) {
    let error = Engine::open(engine, &ExecutorConfig::default()).unwrap_err();
    let text = error.to_string();
    let OpenError::Format(FormatError::Version { path, found, expected, .. }) = error else { panic!("{text}") };
    assert_eq!((path, found, expected), (engine.join(name), newer, known));
    let command = format!(
        "build-engine --model fixtures/parity/llama-v5-llama3-tied --gpu none{option} --output {} --force",
        engine.display()
    );
    for words in [format!("format version {newer}"), format!("reads {known}"), command] {
        assert!(text.contains(&words), "no `{words}`: {text}");
    }
}

#[test]
fn a_newer_engine_is_refused_with_the_command_that_builds_it_again() {
    let (_dir, engine) = copy();
    let mut newer = manifest(&engine);
    newer.format_version = FORMAT_VERSION + 1;
    write(&engine, &newer);
    refused(&engine, MANIFEST_FILE, FORMAT_VERSION + 1, FORMAT_VERSION, "");
    for weights in ["int8", "int4"] {
        newer.versions.insert("weights".to_owned(), weights.to_owned());
        write(&engine, &newer);
        let option = format!(" --weights {weights}");
        refused(&engine, MANIFEST_FILE, FORMAT_VERSION + 1, FORMAT_VERSION, &option);
    }
}

#[test]
fn newer_weights_are_refused_with_the_command_that_builds_them_again() {
    let (_dir, engine) = copy();
    let path = engine.join(WEIGHTS_FILE);
    let head_bytes = EngineDir::open(&engine).unwrap().weights().unwrap().head().len();
    let mut weights = std::fs::read(&path).unwrap();
    // The version's place (weights_file.rs). The hashes are those of the changed file, as a newer program would write them.
    weights[8..12].copy_from_slice(&(VERSION + 1).to_le_bytes());
    std::fs::write(&path, &weights).unwrap();
    let mut newer = manifest(&engine);
    let record = FileRecord { head_blake3: Some(hash(&weights[..head_bytes])), ..FileRecord::of(&weights) };
    newer.files.insert(WEIGHTS_FILE.to_owned(), record);
    write(&engine, &newer);
    refused(&engine, WEIGHTS_FILE, u64::from(VERSION) + 1, u64::from(VERSION), "");
}
