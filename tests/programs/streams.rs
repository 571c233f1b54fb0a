//! Runs that end early: signals, readers that go away, full disks.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::common::Engine;
use crate::support::{demo, ends_soon, file, run_engine};

/// A run that takes minutes.
struct LongRun {
    _engine: Engine,
    _prompts: TempDir,
    child: Child,
}

impl LongRun {
    fn start(arguments: &[&str]) -> Self {
        let engine = demo();
        let (prompts, path) = file("prompts", "The planet\n".repeat(1000));
        let mut command = run_engine(&engine.path, &["--prompts", path.to_str().unwrap(), "--ignore-eos"]);
        command.args(["--max-new-tokens", "1000", "--temperature", "1"]).args(arguments);
        let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        Self { _engine: engine, _prompts: prompts, child }
    }

    fn signal(&self, name: &str) {
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }

    /// The exit code, and standard error.
    fn end(&mut self) -> (Option<i32>, String) {
        let code = ends_soon(&mut self.child);
        let mut stderr = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        (code, stderr)
    }
}

#[test]
fn a_signal_ends_the_run_with_130() {
    for signal in ["INT", "TERM"] {
        let mut run = LongRun::start(&[]);
        let mut stdout = run.child.stdout.take().unwrap();
        let mut first = [0; 16];
        stdout.read_exact(&mut first).unwrap();
        run.signal(signal);
        let mut rest = String::new();
        stdout.read_to_string(&mut rest).unwrap();
        let (code, stderr) = run.end();
        assert_eq!(code, Some(130), "{signal}: {stderr}");
        assert!(stderr.ends_with("interrupted\n") && !stderr.contains("error"), "{signal}: {stderr}");
        assert!(!rest.contains("\n\n\n\n"), "prompts that never ran have no text");
    }
}

#[test]
fn a_second_signal_ends_the_run_although_nobody_reads_its_output() {
    let mut run = LongRun::start(&["--format", "json"]);
    // Until the pipe is full, and the program waits for somebody to read.
    std::thread::sleep(std::time::Duration::from_secs(3));
    run.signal("INT");
    std::thread::sleep(std::time::Duration::from_millis(300));
    run.signal("INT");
    assert_eq!(run.end().0, Some(130));
}

#[test]
fn json_lines_are_whole_when_a_signal_comes() {
    let mut run = LongRun::start(&["--format", "json"]);
    let mut stdout = BufReader::new(run.child.stdout.take().unwrap());
    let mut text = String::new();
    stdout.read_line(&mut text).unwrap();
    run.signal("INT");
    stdout.read_to_string(&mut text).unwrap();
    assert_eq!(run.end().0, Some(130));
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(text.ends_with('\n'));
    assert_eq!(lines[0]["finish_reason"], "length");
    assert_eq!(lines.last().unwrap()["finish_reason"], "cancelled");
}

#[test]
fn a_reader_that_goes_away_ends_the_run_quietly() {
    for arguments in [&[][..], &["--format", "json"]] {
        let mut run = LongRun::start(arguments);
        let mut first = [0; 10];
        run.child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        let (code, stderr) = run.end();
        assert_eq!(code, Some(0), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "more than what the engine is: {stderr}");
    }
}

#[test]
fn standard_error_may_be_full_or_closed() {
    let engine = demo();
    let command = || run_engine(&engine.path, &["--prompt", "Mars", "--max-new-tokens", "5", "--stats"]);
    let expected = crate::support::succeeded(&mut command()).stdout;
    if Path::new("/dev/full").exists() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = command().stdin(Stdio::null()).stderr(full).output().unwrap();
        assert_eq!((output.status.code(), output.stdout), (Some(0), expected.clone().into_bytes()));
    }
    let mut child = command().stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stderr.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout), (Some(0), expected.into_bytes()));
}

#[test]
fn output_that_cannot_be_written_is_an_error() {
    if !Path::new("/dev/full").exists() {
        return;
    }
    let engine = demo();
    for arguments in [&[][..], &["--format", "json"]] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut command = run_engine(&engine.path, &["--prompt", "Mars", "--max-new-tokens", "5"]);
        let output = command.args(arguments).stdin(Stdio::null()).stdout(full).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains("standard output") && !stderr.contains("panicked"), "{stderr}");
    }
}

#[test]
fn a_signal_while_waiting_for_a_prompt_ends_the_run() {
    let engine = demo();
    let mut child = run_engine(&engine.path, &["--prompts", "-", "--format", "json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Once a prompt was answered, it waits for the next one.
    let mut prompts = child.stdin.take().unwrap();
    prompts.write_all(b"Mars\n").unwrap();
    let mut completions = BufReader::new(child.stdout.take().unwrap());
    completions.read_line(&mut String::new()).unwrap();
    let kill = format!("kill -INT {}", child.id());
    assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    assert_eq!(ends_soon(&mut child), Some(130));
    drop(prompts);
}
