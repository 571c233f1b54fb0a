//! Builds that stop in the middle: nothing is left behind, and the exit code says why.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::support::{Run, entries, program, write_large_model};

/// Starts the program and sends it `signal` once it writes weights.
fn interrupted(dir: &Path, signal: &str, args: &[&str]) -> Run {
    let mut child = program(dir).args(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap());
    let mut stderr = String::new();
    while !stderr.contains("writing rank0") {
        assert!(said.read_line(&mut stderr).unwrap() > 0, "it ended early: {stderr}");
    }
    let sent = Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    said.read_to_string(&mut stderr).unwrap();
    Run { code: child.wait().unwrap().code(), stdout: String::new(), stderr }
}

#[test]
fn a_signal_in_the_middle_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    write_large_model(dir.path());
    let engine = ["--model", "model", "--gpu", "none", "--output", "out"];
    let checkpoint = ["--model", "model", "--checkpoint", "ckpt", "--checkpoint-only"];
    for signal in ["-INT", "-TERM"] {
        for args in [&engine[..], &checkpoint] {
            let run = interrupted(dir.path(), signal, args).expect(130, &["stopped: ", "interrupted"]);
            assert!(!run.stderr.contains("error") && !run.stderr.contains("wrote the"), "{run:#?}");
            assert_eq!(entries(dir.path()), ["model"]);
        }
    }
}

#[test]
fn a_full_disk_is_bad_input_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    write_large_model(dir.path());
    // A limit on the size of files stands in for a full disk.
    for args in ["--output out", "--checkpoint ckpt --checkpoint-only"] {
        let script = format!("ulimit -f 20000; exec \"$0\" --model model --gpu none {args}");
        let run: Run = Command::new("sh")
            .arg("-c")
            .arg(script)
            .arg(program(dir.path()).get_program())
            .current_dir(dir.path())
            .output()
            .unwrap()
            .into();
        run.expect(2, &["error: cannot write `", "rank0.", "hint: make room there"]);
        assert_eq!(entries(dir.path()), ["model"]);
    }
}
