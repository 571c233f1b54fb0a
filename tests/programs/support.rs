//! Engines with text, and ways to run the program on them.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;
use trtllm::text::tokenizer::Tokenizer;

use crate::common::{self, Engine, Output};

/// An engine of a parity fixture; it has no tokenizer.
pub(crate) fn parity(name: &str) -> Engine {
    common::build(&common::fixture("parity").join(name), 64)
}

/// The bundled model's engine.
pub(crate) fn demo() -> Engine {
    common::build(&Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo-model"), 512)
}

/// A model directory with random weights and the tokenizer of `fixtures/NAME`, for the test to add to.
pub(crate) fn text_model(tokenizer: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let from = common::fixture(tokenizer);
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        fs::copy(from.join(file), dir.path().join(file)).unwrap();
    }
    let (vocab, hidden, head_dim, intermediate) = (Tokenizer::open(&from).unwrap().vocab_size(), 32, 16, 64);
    let config = json!({
        "architectures": ["MistralForCausalLM"], "model_type": "mistral", "hidden_act": "silu",
        "vocab_size": vocab, "hidden_size": hidden, "intermediate_size": intermediate, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": head_dim, "max_position_embeddings": 128,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "sliding_window": null, "tie_word_embeddings": false,
        "torch_dtype": "float32",
    });
    write_json(&dir.path().join("config.json"), &config);

    let layer = |name: &str| format!("model.layers.0.{name}.weight");
    let shapes = [
        ("model.embed_tokens.weight".to_owned(), vec![vocab, hidden]),
        (layer("input_layernorm"), vec![hidden]),
        (layer("self_attn.q_proj"), vec![2 * head_dim, hidden]),
        (layer("self_attn.k_proj"), vec![head_dim, hidden]),
        (layer("self_attn.v_proj"), vec![head_dim, hidden]),
        (layer("self_attn.o_proj"), vec![hidden, 2 * head_dim]),
        (layer("post_attention_layernorm"), vec![hidden]),
        (layer("mlp.gate_proj"), vec![intermediate, hidden]),
        (layer("mlp.up_proj"), vec![intermediate, hidden]),
        (layer("mlp.down_proj"), vec![hidden, intermediate]),
        ("model.norm.weight".to_owned(), vec![hidden]),
        ("lm_head.weight".to_owned(), vec![vocab, hidden]),
    ];
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    let weights: Vec<(String, Vec<usize>, Vec<u8>)> = shapes
        .into_iter()
        .map(|(name, shape)| {
            let norm = shape.len() == 1;
            let element = |_| (if norm { 1.0 } else { random() }).to_le_bytes();
            let bytes = (0..shape.iter().product()).flat_map(element).collect();
            (name, shape, bytes)
        })
        .collect();
    let views =
        weights.iter().map(|(name, shape, bytes)| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    fs::write(dir.path().join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
    dir
}

/// An engine of [`text_model`].
pub(crate) fn text_engine(tokenizer: &str) -> Engine {
    common::build(text_model(tokenizer).path(), 64)
}

/// A copy of a parity fixture's model, for the test to add to.
pub(crate) fn parity_model(name: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    copy(&common::fixture("parity").join(name), dir.path());
    dir
}

/// Copies the files of a directory into one that exists.
pub(crate) fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

pub(crate) fn write_json(path: &Path, value: &Value) {
    fs::write(path, value.to_string()).unwrap();
}

/// `run-engine --engine DIR ARGUMENTS`.
pub(crate) fn run_engine(engine: &Path, arguments: &[&str]) -> Command {
    let mut command = common::program("run-engine");
    command.arg("--engine").arg(engine).args(arguments);
    command
}

/// Standard output of a run that must succeed.
pub(crate) fn printed(engine: &Engine, arguments: &[&str]) -> String {
    succeeded(&mut run_engine(&engine.path, arguments)).stdout
}

/// Runs a command that must succeed.
pub(crate) fn succeeded(command: &mut Command) -> Output {
    let output = common::run(command);
    assert_eq!(output.code, 0, "{command:?}: {}", output.stderr);
    output
}

/// The objects that a run with `--format json` prints, in the order of their prompts.
pub(crate) fn json_lines(engine: &Engine, arguments: &[&str]) -> Vec<Value> {
    parse_lines(&printed(engine, &[arguments, &["--format", "json"]].concat()))
}

/// The one object that a run with `--format json` prints.
pub(crate) fn json_line(engine: &Engine, arguments: &[&str]) -> Value {
    let lines = json_lines(engine, arguments);
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.into_iter().next().unwrap()
}

pub(crate) fn parse_lines(stdout: &str) -> Vec<Value> {
    assert!(stdout.is_empty() || stdout.ends_with('\n'), "the last line is cut off: {stdout}");
    let mut lines: Vec<Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    lines.sort_by_key(|line| line["index"].as_u64().unwrap());
    lines
}

/// Runs a command that must be refused with this exit code, nothing on standard output, and a message with all `parts`.
pub(crate) fn refused(command: &mut Command, code: i32, parts: &[&str]) {
    let output = common::run(command);
    let shown = format!("{command:?} ended with {} and said: {}", output.code, output.stderr);
    assert_eq!(output.code, code, "{shown}");
    assert_eq!(output.stdout, "", "{shown}");
    assert!(output.stderr.contains("error: "), "{shown}");
    assert!(!output.stderr.contains("panicked"), "{shown}");
    for part in parts {
        assert!(output.stderr.contains(part), "no `{part}`: {shown}");
    }
}

/// A build of this model that must fail because of a file, with a message that has all `parts`, and write nothing.
pub(crate) fn build_refused(model: &Path, parts: &[&str]) {
    let output = model.join("engine");
    let mut build = common::program("build-engine");
    build.arg("--model").arg(model).args(["--gpu", "none", "--output"]).arg(&output);
    refused(&mut build, 2, parts);
    assert!(!output.exists(), "{build:?} wrote an engine");
}

/// Runs a command of two prompts, of which the second fails: the first is completed all the same, and a message with all
/// `parts` tells of the second.
pub(crate) fn one_of_two_failed(command: &mut Command, parts: &[&str]) {
    let output = common::run(command);
    let shown = format!("{command:?} ended with {} and said: {}", output.code, output.stderr);
    assert_eq!(output.code, 1, "{shown}");
    assert!(!output.stdout.is_empty() && output.stderr.contains("error: 1 of 2 prompts failed\n"), "{shown}");
    for part in parts {
        assert!(output.stderr.contains(part), "no `{part}`: {shown}");
    }
}

/// Runs a command with this standard input.
pub(crate) fn run_with_input(command: &mut Command, input: &[u8]) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    Output {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Waits for the end of a process that was told to end; its exit code.
pub(crate) fn ends_soon(child: &mut Child) -> Option<i32> {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(60) {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    panic!("the process did not end");
}

/// A file that lives as long as the returned directory.
pub(crate) fn file(name: &str, content: impl AsRef<[u8]>) -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, content).unwrap();
    (dir, path)
}

/// The field `output_ids` of a line.
pub(crate) fn output_ids(line: &Value) -> Vec<u32> {
    ids(&line["output_ids"])
}

pub(crate) fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
}

pub(crate) fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// Ids as `--prompt-ids` takes them.
pub(crate) fn comma_separated(ids: &[u32]) -> String {
    ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
}
