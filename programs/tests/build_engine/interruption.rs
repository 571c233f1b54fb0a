//! Builds that stop in the middle, or meet others at the same place: nothing is left behind, and the exit code says why.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use engine_format::EngineDir;

use crate::support::{Run, entries, fixture, program, write_large_model};

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

/// The small model's engine, to be put at `out`, whatever is there.
const BUILD: [&str; 7] = ["--gpu", "none", "--output", "out", "--quiet", "--force", "--model"];

#[test]
fn a_kill_at_any_instant_leaves_a_whole_engine_or_none_and_the_same_command_then_succeeds() {
    let dir = tempfile::tempdir().unwrap();
    let build = || {
        let mut command = program(dir.path());
        command.args(BUILD).arg(fixture("parity/mistral-gqa")).stderr(Stdio::null());
        command
    };
    let start = Instant::now();
    assert!(build().status().unwrap().success());
    let took = start.elapsed();
    let out = dir.path().join("out");
    let kills = 80;
    for kill in 0..kills {
        // Removing the old engine takes a while too.
        (0..200).for_each(|file| fs::write(out.join(format!("more-{file}")), "").unwrap());
        let mut child = build().spawn().unwrap();
        std::thread::sleep(took * kill / kills * 5 / 4);
        child.kill().unwrap();
        child.wait().unwrap();
        EngineDir::open(&out).unwrap();
        let foreign = |name: &String| name != "out" && !name.starts_with(".out.partial-");
        assert!(!entries(dir.path()).iter().any(foreign), "{:?}", entries(dir.path()));
    }
    assert!(build().status().unwrap().success());
    EngineDir::open(&out).unwrap();
    assert_eq!(entries(dir.path()), ["out"]);
}

#[test]
fn builders_of_one_place_each_end_with_a_whole_engine_or_a_clear_error() {
    let dir = tempfile::tempdir().unwrap();
    let model = fixture("parity/mistral-gqa");
    let builders = |args: &[&str]| -> Vec<Run> {
        let start = |_| {
            let mut command = program(dir.path());
            command.args(args).arg(&model).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        let started: Vec<_> = (0..6).map(start).collect();
        started.into_iter().map(|child| child.wait_with_output().unwrap().into()).collect()
    };
    let careful: Vec<_> = BUILD.into_iter().filter(|&arg| arg != "--force").collect();
    let runs = builders(&careful);
    assert_eq!(runs.iter().filter(|run| run.code == Some(0)).count(), 1, "{runs:#?}");
    for run in runs.into_iter().filter(|run| run.code != Some(0)) {
        let run = run.expect(2, &["out"]);
        let says = ["another build is writing `out`", "`out` exists already"];
        assert!(says.iter().any(|words| run.stderr.contains(words)), "{run:#?}");
    }
    EngineDir::open(&dir.path().join("out")).unwrap();
    for run in builders(&BUILD) {
        run.expect(0, &[]);
        EngineDir::open(&dir.path().join("out")).unwrap();
    }
    assert_eq!(entries(dir.path()), ["out"]);
}
