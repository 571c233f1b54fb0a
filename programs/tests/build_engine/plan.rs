//! `--dry-run`.

use std::fs;

use engine_format::Target;
use serde_json::Value;

use crate::support::{Run, entries, fixture, large_config, run};

/// Plans the large model from its `config.json` alone.
fn plan(more: &[&str]) -> Run {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("model")).unwrap();
    fs::write(dir.path().join("model/config.json"), large_config().to_string()).unwrap();
    let run = run(dir.path(), ["--model", "model", "--dry-run"].iter().chain(more));
    assert_eq!(entries(dir.path()), ["model"]);
    run
}

fn lines(run: &Run) -> Vec<Value> {
    run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn every_target_has_a_line_without_any_weights() {
    let table = plan(&[]).expect(0, &[]);
    for target in Target::names().split(", ") {
        let rows = table.stdout.lines().filter(|line| line.split_whitespace().next() == Some(target));
        assert_eq!(rows.count(), 1, "{target}: {}", table.stdout);
    }
    let json = plan(&["--format", "json"]).expect(0, &[]);
    let targets: Vec<_> = lines(&json).iter().map(|plan| plan["target"].as_str().unwrap().to_owned()).collect();
    assert_eq!(targets.join(", "), Target::names());
}

#[test]
fn each_target_is_planned_from_anywhere() {
    for target in Target::names().split(", ") {
        let text = plan(&["--gpu", target]).expect(0, &[]);
        for word in ["weights", "KV cache", "activations", "max_batch_size", "verdict", &format!("{target}: ")] {
            assert!(text.stdout.contains(word), "`{word}` is not in {text:#?}");
        }
        let json = plan(&["--gpu", target, "--format", "json"]).expect(0, &[]);
        assert_eq!(lines(&json)[0]["target"], target);
    }
}

#[test]
fn the_plans_numbers_are_those_of_the_model() {
    let json = plan(&["--gpu", "a100", "--tp-size", "8", "--max-batch-size", "4", "--format", "json"]).expect(0, &[]);
    let [plan] = lines(&json).try_into().unwrap();
    // One KV head a rank, although there are four for eight ranks.
    assert_eq!(plan["kv_bytes_per_token"], 2 * 2 * 128 * 6);
    assert_eq!(plan["memory_bytes"], 80_000_000_000u64);
    assert_eq!(plan["limits"]["max_batch_size"], 4);
    assert_eq!(plan["limits"]["max_seq_len"], 8192);
    assert_eq!(plan["fits"], true);
    let layer = (128 + 2 * 128) * 1024 + 1024 * 128 + 3 * 512 * 1024 + 2 * 1024;
    assert_eq!(plan["weights_bytes"], 2 * (6 * layer + 16_384 * 1024 + 2048 * 1024 + 1024));
}

#[test]
fn what_does_not_fit_is_said_with_exit_code_0() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = large_config();
    config["hidden_size"] = 16_384.into();
    config["intermediate_size"] = 65_536.into();
    config["num_hidden_layers"] = 80.into();
    fs::create_dir(dir.path().join("model")).unwrap();
    fs::write(dir.path().join("model/config.json"), config.to_string()).unwrap();
    let plan = |more: &[&str]| run(dir.path(), ["--model", "model", "--dry-run"].iter().chain(more)).expect(0, &[]);
    let text = plan(&["--gpu", "h200"]).stdout;
    assert!(text.contains("does not fit: ") && text.contains("missing") && text.contains("--tp-size 4"), "{text}");
    let text = plan(&["--gpu", "h200", "--tp-size", "4"]).stdout;
    assert!(text.contains("verdict         fits: "), "{text}");
    assert!(plan(&[]).stdout.contains("\nnone does not fit: "));
}

#[test]
fn one_is_one_token_and_one_sequence() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = large_config();
    config["num_hidden_layers"] = 1.into();
    config["sliding_window"] = 1.into();
    fs::create_dir(dir.path().join("model")).unwrap();
    fs::write(dir.path().join("model/config.json"), config.to_string()).unwrap();
    for target in ["none", "h100"] {
        let limits = ["--max-seq-len", "1", "--max-batch-size", "1", "--max-num-tokens", "1"];
        let args = ["--model", "model", "--dry-run", "--gpu", target].into_iter().chain(limits);
        let plan = run(dir.path(), args).expect(0, &[]).stdout;
        assert!(plan.contains(" 1 layer, ") && plan.contains("of 1 token at once"), "{plan}");
        let words: Vec<_> = plan.split([' ', '\n', ';', ',', ')']).collect();
        let are_many = ["tokens", "sequences", "layers", "parameters", "bytes"];
        let wrong = words.windows(2).find(|pair| pair[0] == "1" && are_many.contains(&pair[1]));
        assert_eq!(wrong, None, "{plan}");
    }
}

#[test]
fn limits_and_splits_are_checked() {
    plan(&["--max-seq-len", "8193"]).expect(2, &["--max-seq-len 8193"]);
    plan(&["--gpu", "a100", "--tp-size", "3"]).expect(2, &["attention heads"]);
    plan(&["--gpu", "none", "--tp-size", "2"]).expect(2, &["one rank"]);
}

#[test]
fn a_checkpoint_is_planned_with_its_own_split() {
    let dir = tempfile::tempdir().unwrap();
    let model = fixture("checkpoint/mistral");
    let args = ["--model", &model, "--tp-size", "2", "--checkpoint", "ckpt", "--checkpoint-only"];
    run(dir.path(), args).expect(0, &[]);
    let plan = run(dir.path(), ["--model", "ckpt", "--dry-run", "--gpu", "l40s", "--format", "json"]).expect(0, &[]);
    assert_eq!(lines(&plan)[0]["tp_size"], 2);
}
