//! How the executor runs: its flags, what they change and what they must not.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::common::{self, Engine};
use crate::support::{
    comma_separated, demo, file, json_line, json_lines, one_of_two_failed, output_ids, parity, refused, run_engine,
    succeeded,
};

/// A line of `--stats`, without its name.
fn stat(stderr: &str, name: &str) -> String {
    let line = stderr.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no `{name}`: {stderr}")).trim().to_owned()
}

/// Prompts of several lengths, two of which begin alike, with draws.
fn workload() -> (tempfile::TempDir, String) {
    let long: Vec<u32> = (0..60).map(|place| place * 7 % 64).collect();
    let longer = [&long[..], &[1]].concat();
    let lines = [
        json!({"prompt_ids": long, "max_new_tokens": 20}),
        json!({"prompt_ids": [1, 2, 3], "max_new_tokens": 40, "n": 3, "temperature": 1}),
        json!({"prompt_ids": [9], "max_new_tokens": 5, "temperature": 0.7, "seed": 9}),
        json!({"prompt_ids": longer, "max_new_tokens": 20, "logprobs": true}),
        json!({"prompt_ids": &long[..30], "max_new_tokens": 30, "prompt_logprobs": true, "top_logprobs": 2}),
    ];
    let (dir, path) = file("prompts", lines.map(|line| line.to_string()).join("\n"));
    (dir, path.to_str().unwrap().to_owned())
}

fn sorted(mut lines: Vec<Value>) -> Vec<Value> {
    lines.sort_by_key(|line| (line["index"].as_u64(), line.get("sequence_index").and_then(Value::as_u64)));
    lines
}

#[test]
fn no_setting_of_the_executor_changes_what_is_generated() {
    let engine = parity("mistral-gqa");
    let (_dir, path) = workload();
    let run = |more: &[&str]| sorted(json_lines(&engine, &[&["--prompts", &path, "--ignore-eos"], more].concat()));
    let expected = run(&["--max-batch-size", "1", "--enable-block-reuse", "false"]);
    assert_eq!(expected.len(), 7);
    for settings in [
        &[][..],
        &["--max-num-tokens", "16"],
        &["--max-num-tokens", "3", "--max-batch-size", "2"],
        &["--enable-chunked-context", "false"],
        &["--tokens-per-block", "1"],
        &["--tokens-per-block", "16", "--kv-cache-tokens", "128", "--capacity-scheduler-policy", "max_utilization"],
        &["--tokens-per-block", "16", "--kv-cache-tokens", "128", "--capacity-scheduler-policy", "guaranteed_no_evict"],
        &["--max-queue-size", "1"],
        &["--threads", "1"],
        &["--priority", "1", "--cache-salt-id", "5"],
    ] {
        assert_eq!(run(settings), expected, "{settings:?}");
    }
}

#[test]
fn statistics_show_what_was_batched() {
    let engine = parity("mistral-gqa");
    let run = |prompts: usize, more: &[&str]| {
        let ids = comma_separated(&[3; 40]);
        let mut command = run_engine(&engine.path, &["--max-new-tokens", "20", "--ignore-eos", "--stats"]);
        for _ in 0..prompts {
            command.args(["--prompt-ids", &ids]);
        }
        succeeded(command.args(more)).stderr
    };
    let mean = |stderr: &str| {
        let line = stat(stderr, "iterations");
        let words: Vec<&str> = line.split([' ', ',']).filter(|word| !word.is_empty()).collect();
        words[1].parse::<f64>().unwrap()
    };
    let one_at_a_time = run(4, &["--max-batch-size", "1"]);
    assert!(stat(&one_at_a_time, "iterations").starts_with("80, 1.00 sequences"), "{one_at_a_time}");
    let together = run(4, &[]);
    assert!(mean(&together) > 2.0, "{together}");
    // The second prompt finds the first's full block of 32 tokens.
    assert!(!stat(&one_at_a_time, "KV cache  ").ends_with(" 0 blocks reused"), "{one_at_a_time}");
    let apart = run(4, &["--max-batch-size", "1", "--enable-block-reuse", "false"]);
    assert!(stat(&apart, "KV cache  ").ends_with(" 0 blocks reused"), "{apart}");
    let sequences = run(1, &["--n", "2", "--temperature", "1"]);
    assert!(stat(&sequences, "prompts").starts_with("1 (40 tokens), 2 sequences"), "{sequences}");
}

#[test]
fn limits_may_be_lowered_and_not_raised() {
    let engine = parity("mistral-gqa");
    let run = |arguments: &[&str]| run_engine(&engine.path, &[&["--prompt-ids", "1,2,3"], arguments].concat());
    refused(&mut run(&["--max-seq-len", "257"]), 2, &["--max-seq-len 257", "engine's 256"]);
    refused(&mut run(&["--max-batch-size", "100000"]), 2, &["--max-batch-size 100000", "above the engine's"]);
    refused(&mut run(&["--max-num-tokens", "100000"]), 2, &["--max-num-tokens 100000", "above the engine's"]);
    for flag in ["--max-seq-len", "--max-batch-size", "--max-num-tokens", "--max-queue-size", "--kv-cache-tokens"] {
        refused(&mut run(&[flag, "0"]), 2, &[flag, "must be a whole number from 1"]);
        refused(&mut run(&[flag, "many"]), 2, &[flag, "many"]);
    }
    refused(&mut run(&["--tokens-per-block", "0"]), 2, &["--tokens-per-block", "must be a whole number from 1"]);
    refused(&mut run(&["--tokens-per-block", "1025"]), 2, &["tokens_per_block", "1024"]);
    refused(&mut run(&["--enable-block-reuse", "perhaps"]), 2, &["--enable-block-reuse", "perhaps", "true"]);
    let policies = ["--capacity-scheduler-policy", "max_utilization", "guaranteed_no_evict"];
    refused(&mut run(&["--capacity-scheduler-policy", "static_batch"]), 2, &policies);

    let output = succeeded(&mut run(&["--max-seq-len", "10", "--ignore-eos", "--format", "json"]));
    assert_eq!(output_ids(&serde_json::from_str(&output.stdout).unwrap()).len(), 7);
    assert!(!output.stderr.contains("free memory"), "{}", output.stderr);
    refused(&mut run(&["--max-seq-len", "3"]), 2, &["max_seq_len is 3", "raise this run's --max-seq-len"]);
}

#[test]
fn the_kv_cache_is_as_large_as_asked_for() {
    let engine = parity("mistral-gqa");
    let run = |arguments: &[&str]| run_engine(&engine.path, &[&["--max-new-tokens", "4"], arguments].concat());
    let sized = ["--kv-cache-tokens", "100", "--tokens-per-block", "16"];
    let output = succeeded(&mut run(&[&["--prompt-ids", "1,2,3"], &sized[..]].concat()));
    assert!(output.stderr.contains("KV cache of 112 tokens"), "{}", output.stderr);
    assert!(
        output.stderr.contains("warning: kv_cache.max_tokens (--kv-cache-tokens) allows sequences of 112 tokens"),
        "{}",
        output.stderr
    );
    let long = comma_separated(&[1; 113]);
    refused(
        &mut run(&[&["--prompt-ids", &long], &sized[..]].concat()),
        2,
        &["113 tokens", "max_seq_len is 112", "raise --kv-cache-tokens"],
    );
    refused(&mut run(&["--prompt-ids", "1", "--kv-cache-tokens", "8"]), 2, &["8", "32"]);
    let in_int8 = succeeded(&mut run(&[&["--prompt-ids", "1,2,3", "--kv-cache-dtype", "int8"], &sized[..]].concat()));
    assert!(in_int8.stderr.contains("KV cache in int8 of 112 tokens"), "{}", in_int8.stderr);
    refused(&mut run(&["--prompt-ids", "1", "--kv-cache-dtype", "int4"]), 2, &["int4", "bf16", "int8"]);
}

#[test]
fn a_prompt_that_the_executor_does_not_take_is_named() {
    let engine = parity("mistral-gqa");
    let long = vec![1; 20];
    let (_dir, path) =
        file("list.jsonl", format!("{}\n\n{}\n", json!({"prompt_ids": [1]}), json!({"prompt_ids": long})));
    let path = path.to_str().unwrap();
    let unchunked = ["--enable-chunked-context", "false", "--max-num-tokens", "16"];
    let mut command = run_engine(&engine.path, &[&["--prompts", path], &unchunked[..]].concat());
    one_of_two_failed(&mut command, &["list.jsonl", "line 3", "20", "16"]);
    let cache = ["--kv-cache-tokens", "64", "--tokens-per-block", "16", "--max-new-tokens", "40", "--beam-width", "4"];
    let mut command = run_engine(&engine.path, &[&["--prompts", path], &cache[..]].concat());
    refused(&mut command, 1, &["list.jsonl", "line 1", "line 3", "KV-cache", "2 of 2 prompts failed"]);
}

#[test]
fn an_allotted_time_ends_a_prompt() {
    let engine = demo();
    let arguments = ["--prompt", "The planet", "--max-new-tokens", "500", "--ignore-eos"];
    let line = json_line(&engine, &[&arguments[..], &["--allotted-time-ms", "20"]].concat());
    assert_eq!(line["finish_reason"], "timed_out", "{line}");
    assert!(output_ids(&line).len() < 500);
    let line = json_line(&engine, &[&arguments[..4], &["--allotted-time-ms", "10000000"]].concat());
    assert_ne!(line["finish_reason"], "timed_out");
}

#[test]
fn the_most_probable_tokens_are_listed_best_first() {
    let engine = parity("mistral-gqa");
    let prompt = ["--prompt-ids", "5,6,7", "--max-new-tokens", "6", "--ignore-eos"];
    let line = json_line(&engine, &[&prompt[..], &["--top-logprobs", "3", "--logprobs"]].concat());
    let places = line["top_logprobs"].as_array().unwrap();
    assert_eq!(places.len(), 6);
    for (place, (id, logprob)) in output_ids(&line).into_iter().zip(line["logprobs"].as_array().unwrap()).enumerate() {
        let tokens = places[place].as_array().unwrap();
        assert_eq!(tokens.len(), 3);
        assert_eq!((&tokens[0]["id"], &tokens[0]["logprob"]), (&json!(id), logprob), "greedy takes the best");
        assert!(tokens.windows(2).all(|pair| pair[0]["logprob"].as_f64() >= pair[1]["logprob"].as_f64()));
    }
    let alone = json_line(&engine, &[&prompt[..], &["--top-logprobs", "3"]].concat());
    assert_eq!((&alone["top_logprobs"], alone.get("logprobs")), (&line["top_logprobs"], None));
    assert_eq!(json_line(&engine, &[&prompt[..], &["--top-logprobs", "0"]].concat()).get("top_logprobs"), None);
    // No more than there are.
    let all = json_line(&engine, &[&prompt[..], &["--top-logprobs", "18446744073709551615"]].concat());
    assert_eq!(all["top_logprobs"][0].as_array().unwrap().len(), 64);
    refused(&mut run_engine(&engine.path, &[&prompt[..], &["--top-logprobs", "2"]].concat()), 2, &["--format json"]);
}

/// Runs the program on a terminal, if there is a way to have one.
fn on_a_terminal(engine: &Engine, arguments: &[&str]) -> Option<String> {
    let program = common::program("run-engine");
    let words = [program.get_program().to_str()?, "--engine", engine.path.to_str()?];
    let quoted: Vec<String> = words.iter().chain(arguments).map(|word| format!("'{word}'")).collect();
    let line = format!("stty cols 60 rows 20; exec {}", quoted.join(" "));
    let output = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_terminal_shows_a_line_for_each_sequence_and_then_the_texts() {
    let engine = demo();
    let prompts = ["--prompt", "The planet Mars", "--prompt", "The sun", "--max-new-tokens", "60", "--ignore-eos"];
    let Some(shown) = on_a_terminal(&engine, &prompts) else {
        return common::discarded(
            "a_terminal_shows_a_line_for_each_sequence_and_then_the_texts, without the program `script`",
        );
    };
    assert!(shown.contains("prompt 0: ") && shown.contains("prompt 1: ") && shown.contains(" tokens  "), "{shown}");
    let shown = shown.replace("\r\n", "\n");
    let mut rest = shown.as_str();
    for line in json_lines(&engine, &prompts) {
        let text = line["text"].as_str().unwrap();
        let at = rest.find(text).unwrap_or_else(|| panic!("`{text}` is not in {shown:?}"));
        rest = &rest[at + text.len()..];
    }
    // One sequence is streamed, with no line of its own.
    let shown = on_a_terminal(&engine, &["--prompt", "The sun", "--max-new-tokens", "20"]).unwrap();
    assert!(!shown.contains("prompt 0"), "{shown}");
}
