//! The help texts in docs/reference are the programs'.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a page that is wrong is a test that fails")]

use std::path::Path;
use std::process::Command;

/// As in `scripts/update-reference`.
const COLUMNS: &str = "100";

fn check(name: &str, program: &str) {
    // `output` gives the program no terminal to ask for its width.
    let output = Command::new(program).arg("--help").env("COLUMNS", COLUMNS).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
    let help = String::from_utf8(output.stdout).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../docs/reference/{name}.md"));
    let page = std::fs::read_to_string(path).unwrap();
    let (_, block) =
        page.split_once(&format!("<!-- help: {name} -->\n")).expect("the page has a block for the help text");
    let (block, _) = block.split_once("<!-- end -->").expect("the block has an end");
    assert_eq!(
        block,
        format!("```text\n{help}```\n"),
        "docs/reference/{name}.md is out of date: run scripts/update-reference"
    );
}

#[test]
fn build_engine() {
    check("build-engine", env!("CARGO_BIN_EXE_build-engine"));
}

#[test]
fn run_engine() {
    check("run-engine", env!("CARGO_BIN_EXE_run-engine"));
}

#[test]
fn bench_engine() {
    check("bench-engine", env!("CARGO_BIN_EXE_bench-engine"));
}
