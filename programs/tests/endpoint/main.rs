//! `bench-engine --url`, against a server that replays a script and against `serve-engine`'s.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper of a test fails as the test does")]

mod answers;
mod asked;
mod refusals;
mod scripted;
mod served;

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

fn bench_engine(address: SocketAddr, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bench-engine"));
    command.env_remove("OPENAI_API_KEY").stdin(Stdio::null());
    command.args(["--url", &format!("http://{address}")]).args(arguments);
    command
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// The report of a run that ends with this exit code, and what it said beside that.
#[track_caller]
fn reported(address: SocketAddr, arguments: &[&str], code: i32) -> (Value, String) {
    let output: Output = bench_engine(address, &[arguments, &["--format", "json"]].concat()).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    (serde_json::from_slice(&output.stdout).unwrap(), said.to_owned())
}

/// The report of a run that goes well.
#[track_caller]
fn measured(address: SocketAddr, arguments: &[&str]) -> Value {
    reported(address, arguments, 0).0
}

/// Checks that a run ends with this exit code, no report, and words that hold all `parts`.
#[track_caller]
fn refused(address: SocketAddr, arguments: &[&str], code: i32, parts: &[&str]) {
    let output = bench_engine(address, arguments).output().unwrap();
    let said = text(&output.stderr);
    assert_eq!((output.status.code(), text(&output.stdout)), (Some(code), ""), "{said}");
    for part in parts {
        assert!(said.contains(part), "no `{part}`: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
}

#[track_caller]
fn number(value: &Value, pointer: &str) -> f64 {
    value.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("no number at {pointer}: {value}"))
}

/// The bundled model's directory.
fn demo_model() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/demo-model").to_str().unwrap().to_owned()
}
