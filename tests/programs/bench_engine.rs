//! `bench-engine` from the outside: its figures, its files, and what it refuses.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::common;
use crate::support::{demo, file, parity, refused, succeeded};

fn bench_engine(engine: &Path, arguments: &[&str]) -> Command {
    let mut command = common::program("bench-engine");
    command.arg("--engine").arg(engine).args(arguments);
    command
}

fn measured(engine: &Path, arguments: &[&str]) -> Value {
    let arguments = [arguments, &["--format", "json", "--quiet"]].concat();
    serde_json::from_str(&succeeded(&mut bench_engine(engine, &arguments)).stdout).unwrap()
}

fn number(value: &Value, pointer: &str) -> f64 {
    value.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("no number at {pointer}: {value}"))
}

#[test]
fn a_sweep_is_reported_and_drawn() {
    let engine = demo();
    let dir = tempfile::tempdir().unwrap();
    let (json, plots) = (dir.path().join("report.json"), dir.path().join("deep/plots"));
    let files = ["--json", json.to_str().unwrap(), "--plots", plots.to_str().unwrap()];
    let sweep = ["--requests", "6", "--input-len", "5:40", "--output-len", "4:9", "--concurrency", "1,3"];
    let report = measured(&engine.path, &[&sweep[..], &files].concat());
    assert_eq!(report, serde_json::from_slice::<Value>(&std::fs::read(&json).unwrap()).unwrap());

    let output = number(&report, "/workload/output_tokens");
    assert!((24.0..=54.0).contains(&output));
    for (index, width) in [1.0, 3.0].into_iter().enumerate() {
        let at = |field: &str| number(&report, &format!("/runs/{index}/{field}"));
        assert_eq!(at("concurrency"), width);
        assert!((at("output_tokens_per_second") - output / at("seconds")).abs() < 1e-6);
        assert_eq!(at("time_to_first_token/count"), 6.0);
        assert_eq!(at("inter_token_latency/count"), output - 6.0);
        for latency in ["time_to_first_token", "time_per_output_token", "inter_token_latency", "request_latency"] {
            let [p50, p90, p99] = ["p50", "p90", "p99"].map(|percent| at(&format!("{latency}/{percent}")));
            assert!(0.0 < p50 && p50 <= p90 && p90 <= p99, "{latency}");
        }
        assert!(at("request_latency/min") > at("time_to_first_token/min"));
        assert!(at("mean_batch_size") <= width && at("kv_cache/peak_occupancy") > 0.0);
        let holds = at("kv_cache/max_num_blocks") * at("kv_cache/tokens_per_block");
        assert!((at("kv_cache/peak_tokens") - at("kv_cache/peak_occupancy") * holds).abs() < 0.5);
        assert!((at("kv_cache/mean_tokens") - at("kv_cache/mean_occupancy") * holds).abs() < 0.5);
        for share in ["generation/share_of_read_bandwidth", "share_of_machine", "generation_overhead/detokenization"] {
            assert!(at(share) > 0.0, "{share}");
        }
    }
    assert!(number(&report, "/machine/read_bytes_per_second") > 1e7);

    let mut names: Vec<_> = std::fs::read_dir(&plots).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["occupancy.png", "occupancy.svg", "throughput_latency.png", "throughput_latency.svg"]);
    for name in ["occupancy", "throughput_latency"] {
        let svg = std::fs::read_to_string(plots.join(format!("{name}.svg"))).unwrap();
        // What it is of.
        let threads = number(&report, "/engine/threads");
        for part in [
            "<svg",
            "engine: MistralForCausalLM, 5.33 M parameters",
            &format!("{threads} thread"),
            "max_seq_len 1024",
            "6 requests (synthetic)",
            "greedy, seed 0",
        ] {
            assert!(svg.contains(part), "no {part} in {name}");
        }
        if let Some(processor) = report["machine"]["processor"].as_str() {
            assert!(svg.contains(processor), "{processor}");
        }
        // That the image decodes, and what is in it, is for the plots' own tests.
        let image = std::fs::read(plots.join(format!("{name}.png"))).unwrap();
        assert!(image.starts_with(b"\x89PNG") && image.ends_with(b"IEND\xaeB`\x82"));
    }
}

#[test]
fn an_engine_without_text_is_measured_too() {
    let engine = parity("mistral-gqa");
    let workload = ["--requests", "3", "--input-len", "6", "--output-len", "3", "--shared-prefix-len", "4"];
    for (arrivals, dtype) in [("fixed", "bf16"), ("uniform", "int8"), ("poisson", "bf16")] {
        let options = ["--arrivals", arrivals, "--rate", "200", "--kv-cache-dtype", dtype];
        let report = measured(&engine.path, &[&workload[..], &options].concat());
        assert_eq!(report["runs"][0]["arrivals"], arrivals);
        assert_eq!(report["engine"]["kv_cache_dtype"], dtype);
        assert_eq!(report["engine"]["code_instructions"], Value::Null);
        assert_eq!(number(&report, "/runs/0/generation_overhead/detokenization"), 0.0);
    }
    let table = succeeded(&mut bench_engine(&engine.path, &workload)).stdout;
    for row in [
        "KV cache, tokens, mean / peak",
        "of fewer than 10 requests, p90 and p99 are the slowest",
        "time to first token, ms",
        "of the read bandwidth",
        "this machine, with",
        "all at once",
    ] {
        assert!(table.contains(row), "no `{row}`: {table}");
    }
}

#[test]
fn prompts_can_come_from_a_file() {
    let engine = demo();
    let (_dir, path) = file("prompts", "our solar system\n{\"prompt_ids\": [5, 6, 7], \"max_new_tokens\": 2}\n");
    let path = path.to_str().unwrap();
    let report = measured(&engine.path, &["--prompts", path, "--requests", "3", "--output-len", "4"]);
    assert_eq!(number(&report, "/workload/output_tokens"), 4.0 + 2.0 + 4.0);
    let (_dir, path) = file("prompts", "{\"prompt\": \"a\", \"stop\": \"b\"}\n");
    refused(&mut bench_engine(&engine.path, &["--prompts", path.to_str().unwrap()]), 2, &["line 1", "`stop`"]);
}

#[test]
fn prompts_go_through_the_chat_template_and_tokens_are_chosen_as_asked() {
    let engine = demo();
    let (_dir, path) = file("prompts", "How many moons does Mars have?\n");
    let path = path.to_str().unwrap();
    let tokens = |more: &[&str]| {
        let report = measured(&engine.path, &[&["--prompts", path, "--output-len", "2"], more].concat());
        (number(&report, "/workload/prompt_tokens"), report["workload"].clone())
    };
    let ((plain, _), (chat, workload)) =
        (tokens(&[]), tokens(&["--chat", "--top-k", "3", "--presence-penalty", "0.5"]));
    assert!(chat > plain, "{chat} {plain}");
    assert_eq!(workload["sampling"], serde_json::json!(["--top-k 3", "--presence-penalty 0.5"]));
    assert_eq!((number(&workload, "/temperature"), &workload["chat"]), (1.0, &Value::Bool(true)));
    refused(&mut bench_engine(&engine.path, &["--chat"]), 2, &["--prompts"]);
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let engine = demo();
    let refuses = |arguments: &[&str], parts: &[&str]| refused(&mut bench_engine(&engine.path, arguments), 2, parts);
    refuses(&["--output-len", "100000"], &["request 0", "max_seq_len"]);
    refuses(&["--shared-prefix-len", "128"], &["--shared-prefix-len 128"]);
    refuses(&["--arrivals", "poisson"], &["--rate"]);
    refuses(&["--temperature", "-1"], &["--temperature must be a number from 0, not -1"]);
    refuses(&["--top-k", "x"], &["'x'", "--top-k", "must be a whole number"]);
    refuses(&["--stop", "x"], &["--stop"]);
    refuses(&["--max-batch-size", "100000"], &["--max-batch-size 100000"]);
    refused(&mut bench_engine(Path::new("/nonexistent"), &[]), 2, &["nonexistent"]);
}
