//! Usage and models that are refused: exit code 2, a reason, nothing left behind.

use std::fs;

use crate::support::{Run, entries, fixture, run};

/// Builds the fixture `mistral-nemo` for the CPU with these arguments besides.
fn build(more: &[&str]) -> Run {
    let dir = tempfile::tempdir().unwrap();
    let model = fixture("parity/mistral-nemo");
    let args = ["--model", &model, "--gpu", "none"];
    let run = run(dir.path(), args.iter().chain(more));
    assert!(entries(dir.path()).is_empty(), "{run:#?}");
    run
}

#[test]
fn usage_errors_say_what_is_wrong() {
    let cases: &[(&[&str], &[&str])] = &[
        (&[], &["--output"]),
        (&["--output", "out", "--max-seq-len", "0"], &["--max-seq-len", "0"]),
        (&["--output", "out", "--max-batch-size", "0"], &["--max-batch-size"]),
        (&["--output", "out", "--max-num-tokens", "0"], &["--max-num-tokens"]),
        (&["--output", "out", "--max-num-tokens", "-3"], &["--max-num-tokens"]),
        (&["--output", "out", "--tp-size", "0"], &["--tp-size"]),
        (&["--output", "out", "--threads", "0"], &["--threads"]),
        (&["--output", "out", "--max-seq-len", "257"], &["--max-seq-len 257", "256"]),
        (
            &["--output", "out", "--max-batch-size", "9", "--max-num-tokens", "8"],
            &["--max-num-tokens 8", "--max-batch-size 9"],
        ),
        (&["--output", "out", "--tp-size", "2"], &["one rank", "--checkpoint without --output"]),
        (&["--output", "out", "--pp-size", "2"], &["one rank", "--checkpoint without --output"]),
        (&["--output", "out", "--weights", "int5"], &["--weights", "bf16, int8 or int4"]),
        (&["--checkpoint-only", "--checkpoint", "c", "--weights", "int4"], &["--weights int4", "--gpu none"]),
        (&["--output", "out", "--checkpoint", "out"], &["same directory"]),
        (&["--output", "out", "--checkpoint", "./out"], &["same directory"]),
        (&["--checkpoint-only"], &["--checkpoint"]),
        (&["--checkpoint-only", "--checkpoint", "c", "--output", "out"], &["--output", "--checkpoint-only"]),
        (&["--checkpoint-only", "--checkpoint", "c", "--tp-size", "3"], &["--tp-size 3", "attention heads"]),
        (&["--output", "out", "-q", "-v"], &["--quiet", "--verbose"]),
        (&["--output", "out", "--format", "json"], &["--dry-run"]),
        (&["--output", "out", "--unknown"], &["--unknown"]),
    ];
    for (args, words) in cases {
        let run = build(args).expect(2, words);
        assert!(run.stdout.is_empty() && run.stderr.starts_with("error: "), "{run:#?}");
    }
}

#[test]
fn targets_are_listed_when_one_is_unknown() {
    let dir = tempfile::tempdir().unwrap();
    let run = run(dir.path(), ["--model", "m", "--gpu", "a200", "--output", "out"]);
    run.expect(2, &["a200", "a100-40gb", "rtx-pro-6000", "none"]);
}

#[test]
fn without_a_target_ranks_are_refused_as_on_the_cpu() {
    let dir = tempfile::tempdir().unwrap();
    let model = fixture("parity/mistral-nemo");
    run(dir.path(), ["--model", &model, "--tp-size", "2", "--output", "out"]).expect(2, &["one rank"]);
    assert!(entries(dir.path()).is_empty());
}

#[test]
fn outputs_that_exist_are_refused_before_any_work() {
    let dir = tempfile::tempdir().unwrap();
    let model = fixture("parity/mistral-nemo");
    fs::create_dir(dir.path().join("full")).unwrap();
    fs::write(dir.path().join("full/precious"), "x").unwrap();
    fs::write(dir.path().join("file"), "x").unwrap();
    for place in ["full", "file"] {
        let cases: [&[&str]; 4] = [
            &["--model", &model, "--gpu", "none", "--output", place],
            &["--model", &model, "--gpu", "none", "--output", place, "--force"],
            &["--model", &model, "--checkpoint", place, "--checkpoint-only"],
            &["--model", &model, "--gpu", "none", "--output", "out", "--checkpoint", place],
        ];
        for args in cases {
            let run = run(dir.path(), args).expect(2, &[&format!("`{place}` exists already")]);
            assert!(!run.stderr.contains("writing"), "{run:#?}");
            assert_eq!(entries(dir.path()), ["file", "full"]);
        }
    }
    assert_eq!(fs::read(dir.path().join("full/precious")).unwrap(), b"x");
}

#[test]
fn a_place_that_cannot_be_written_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let model = fixture("parity/mistral-nemo");
    fs::write(dir.path().join("file"), "x").unwrap();
    let args = ["--model", &model, "--gpu", "none", "--output", "file/out"];
    run(dir.path(), args).expect(2, &["error: cannot create", "file"]);
    assert_eq!(entries(dir.path()), ["file"]);
}

#[test]
fn models_that_are_not_there_or_not_models_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("empty")).unwrap();
    fs::create_dir(dir.path().join("broken")).unwrap();
    fs::write(dir.path().join("broken/config.json"), "{").unwrap();
    let cases: [(&str, &[&str]); 4] = [
        ("./nowhere", &["nowhere"]),
        ("org/name", &["org/name", "--download"]),
        ("empty", &["config.json", "missing"]),
        ("broken", &["broken/config.json", "JSON"]),
    ];
    for (model, words) in cases {
        run(dir.path(), ["--model", model, "--gpu", "none", "--output", "out"]).expect(2, words);
        run(dir.path(), ["--model", model, "--dry-run"]).expect(2, words);
        assert_eq!(entries(dir.path()), ["broken", "empty"]);
    }
}

#[test]
fn a_missing_or_short_weights_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    fs::create_dir(&model).unwrap();
    fs::copy(fixture("parity/mistral-nemo/config.json"), model.join("config.json")).unwrap();
    let build = || run(dir.path(), ["--model", "model", "--gpu", "none", "--output", "out"]);
    build().expect(2, &["model.safetensors"]);
    let mut weights = fs::read(fixture("parity/mistral-nemo/model.safetensors")).unwrap();
    weights.truncate(weights.len() - 1);
    fs::write(model.join("model.safetensors"), weights).unwrap();
    build().expect(2, &["model.safetensors", "damaged"]);
    assert_eq!(entries(dir.path()), ["model"]);
}
