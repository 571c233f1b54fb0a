//! Engine directories that are not what they should be.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;
use trtllm::engine_format::EngineDir;
use trtllm::engine_format::manifest::{MANIFEST_FILE, Manifest};
use trtllm::engine_format::weights_file::WEIGHTS_FILE;

use crate::common::{self, Engine};
use crate::support::{build_refused, copy, parity, refused, run_engine, succeeded, text_model, write_json};

const PROMPT: [&str; 4] = ["--prompt", "hello", "--max-new-tokens", "3"];

/// An engine with every kind of file.
fn engine() -> Engine {
    let model = text_model("tokenizer");
    write_json(&model.path().join("generation_config.json"), &json!({"eos_token_id": 2}));
    fs::write(model.path().join("chat_template.jinja"), "{{ messages }}").unwrap();
    common::build(model.path(), 64)
}

/// A copy of an engine, to be damaged.
fn copy_of(engine: &Engine) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    copy(&engine.path, dir.path());
    dir
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn name(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

/// The directory is refused with and without `--verify`, and the message has all `parts`.
fn check(dir: &Path, parts: &[&str]) {
    refused(&mut run_engine(dir, &PROMPT), 2, parts);
    refused(&mut run_engine(dir, &["--verify"]), 2, parts);
}

#[test]
fn what_is_no_engine_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    check(&dir.path().join("nowhere"), &["nowhere", "build-engine"]);
    check(dir.path(), &["engine.json", "build-engine"]);
    check(&common::fixture("README.md"), &["README.md", "build-engine"]);
    // The model instead of the engine.
    check(&common::fixture("parity/mistral-gqa"), &["engine.json", "build-engine"]);
    for (content, part) in [("", "JSON"), ("[]", "format_version"), ("{\"format_version\": \"1\"}", "format_version")] {
        fs::write(dir.path().join(MANIFEST_FILE), content).unwrap();
        check(dir.path(), &["engine.json", part]);
    }
}

#[test]
fn another_version_is_refused() {
    let dir = copy_of(&engine());
    let path = dir.path().join(MANIFEST_FILE);
    let text = fs::read_to_string(&path).unwrap();
    let changed = text.replace("\"format_version\": 1", "\"format_version\": 2");
    assert_ne!(changed, text);
    fs::write(path, changed).unwrap();
    check(dir.path(), &["engine.json", "format version 2", "reads 1", "build-engine"]);
}

#[test]
fn a_missing_file_is_named() {
    let engine = engine();
    let names: Vec<String> = files(&engine.path).iter().map(|path| name(path)).collect();
    assert_eq!(
        names,
        [
            "chat_template.jinja",
            "config.json",
            "engine.json",
            "generation_config.json",
            "rank0.weights",
            "tokenizer.json",
            "tokenizer_config.json",
        ]
    );
    for file in names {
        let dir = copy_of(&engine);
        fs::remove_file(dir.path().join(&file)).unwrap();
        check(dir.path(), &[&file, "missing"]);
    }
}

#[test]
fn a_file_of_another_size_is_named() {
    let engine = engine();
    for path in files(&engine.path) {
        let content = fs::read(&path).unwrap();
        let (file, bytes) = (name(&path), content.len());
        for changed in
            [[&content[..], b" "].concat(), content[..bytes - 1].to_vec(), content[..bytes / 2].to_vec(), vec![]]
        {
            let dir = copy_of(&engine);
            fs::write(dir.path().join(&file), &changed).unwrap();
            let found = format!("{} bytes", changed.len());
            // The manifest holds the sizes of all files but itself.
            let part = if file == MANIFEST_FILE { "engine.json" } else { &found };
            check(dir.path(), &[&file, part]);
        }
    }
}

#[test]
fn a_changed_byte_is_noticed_in_everything_but_weights() {
    let engine = engine();
    let head = engine.engine.weights().unwrap().head().len();
    for path in files(&engine.path) {
        let content = fs::read(&path).unwrap();
        let end = if name(&path) == WEIGHTS_FILE { head } else { content.len() };
        let dir = copy_of(&engine);
        for part in 0..8 {
            let position = (end - 1) * part / 7;
            let mut changed = content.clone();
            changed[position] ^= 1;
            fs::write(dir.path().join(path.file_name().unwrap()), changed).unwrap();
            check(dir.path(), &[&name(&path)]);
        }
    }
}

#[test]
fn a_changed_weight_runs_and_verify_names_its_tensor() {
    let engine = engine();
    let weights = engine.engine.weights().unwrap();
    let content = fs::read(engine.path.join(WEIGHTS_FILE)).unwrap();
    for tensor in weights.tensors() {
        let dir = copy_of(&engine);
        let mut changed = content.clone();
        // The lowest bit of some mantissa.
        changed[tensor.offset + tensor.bytes / 4 * 2] ^= 1;
        fs::write(dir.path().join(WEIGHTS_FILE), changed).unwrap();
        succeeded(&mut run_engine(dir.path(), &PROMPT));
        let parts = [WEIGHTS_FILE, &format!("tensor `{}`", tensor.name)];
        refused(&mut run_engine(dir.path(), &["--verify"]), 2, &parts);
        refused(run_engine(dir.path(), &PROMPT).arg("--verify"), 2, &parts);
    }
}

#[test]
fn verify_reads_what_lies_between_tensors_too() {
    let engine = parity("mistral-odd");
    let weights = engine.engine.weights().unwrap();
    let mut content = fs::read(engine.path.join(WEIGHTS_FILE)).unwrap();
    let mut starts: Vec<usize> = weights.tensors().map(|tensor| tensor.offset).collect();
    starts.sort();
    let mut ends: Vec<usize> = weights.tensors().map(|tensor| tensor.offset + tensor.bytes).collect();
    ends.sort();
    let Some(gap) = ends.iter().zip(&starts[1..]).find_map(|(&end, &start)| (end < start).then_some(end)) else {
        panic!("no gap: choose another shape");
    };
    content[gap] ^= 1;
    let dir = copy_of(&engine);
    fs::write(dir.path().join(WEIGHTS_FILE), content).unwrap();
    refused(&mut run_engine(dir.path(), &["--verify"]), 2, &[WEIGHTS_FILE]);
}

#[test]
fn verify_of_a_whole_engine_says_so_and_runs_prompts_if_there_are_any() {
    let engine = engine();
    let output = succeeded(&mut run_engine(&engine.path, &["--verify"]));
    let tensors = engine.engine.weights().unwrap().tensors().count();
    assert!(output.stderr.contains(&format!("all {tensors} weight tensors")), "{}", output.stderr);
    assert_eq!(output.stdout, "");
    let both = succeeded(run_engine(&engine.path, &PROMPT).arg("--verify"));
    assert!(both.stderr.contains("verified"));
    assert_eq!(both.stdout, succeeded(&mut run_engine(&engine.path, &PROMPT)).stdout);
    assert!(!both.stdout.is_empty());
}

/// Writes the manifest anew after a change, so that its own hash holds.
fn rewrite(dir: &Path, change: impl FnOnce(&mut Manifest)) {
    let path = dir.join(MANIFEST_FILE);
    let mut manifest = EngineDir::open(dir).unwrap().manifest().clone();
    change(&mut manifest);
    fs::write(&path, manifest.to_bytes(&path).unwrap()).unwrap();
}

#[test]
fn an_engine_for_a_gpu_says_what_this_machine_lacks() {
    let dir = copy_of(&engine());
    rewrite(dir.path(), |manifest| manifest.target = "a100".to_owned());
    refused(&mut run_engine(dir.path(), &PROMPT), 3, &["a100", "doctor", "target `none`"]);
}

#[test]
fn a_manifest_that_leaves_files_out_is_refused() {
    for file in ["config.json", WEIGHTS_FILE] {
        let dir = copy_of(&engine());
        rewrite(dir.path(), |manifest| {
            manifest.files.remove(file);
        });
        check(dir.path(), &[file]);
    }
}

#[test]
fn a_tokenizer_that_contradicts_itself_is_named() {
    let model = text_model("tokenizer");
    fs::write(model.path().join("tokenizer.json"), "{\"version\": \"1.0\"}").unwrap();
    build_refused(model.path(), &["tokenizer.json", "copy the file from the model again"]);
}
