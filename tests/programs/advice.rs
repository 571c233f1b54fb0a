//! Advice in messages: each is followed as it stands, and then it works. Here is what is advised on the command line;
//! `advice_on_files` has the rest.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::common;
use crate::support::{demo, file, refused, run_engine, succeeded, text_model, write_json};

/// Arguments in a line; a blank at the end is an empty argument.
fn arguments(line: &str) -> Vec<&str> {
    if line.is_empty() { Vec::new() } else { line.split(' ').collect() }
}

#[test]
fn what_a_refusal_advises_is_accepted() {
    let engine = demo();
    let (_prompts, prompts) = file("prompts.txt", "Mars\n");
    let prompts = format!("--prompts {}", prompts.display());
    let (_schema, schema) = file("schema.json", r#"{"type": "string", "format": "password"}"#);
    let (_lenient, lenient) =
        file("lenient.json", r#"{"type": "string", "format": "password", "x-guidance": {"lenient": true}}"#);
    let (_plain, plain) = file("plain.json", r#"{"type": "string"}"#);
    let by = |schema: &Path| format!("--prompt Mars --json-schema {}", schema.display());
    let cases: &[(&str, &str, &[&str])] = &[
        (
            "",
            "give --prompt TEXT, --prompt-ids, --prompts FILE or standard input",
            &["--prompt Mars", "--prompt-ids 1,2", &prompts],
        ),
        ("--prompt Mars --logprobs", "add --format json", &["--prompt Mars --logprobs --format json"]),
        ("--prompt Mars --system Short.", "add --chat", &["--prompt Mars --system Short. --chat"]),
        (
            "--prompt Mars --kv-cache-tokens 8",
            "(--kv-cache-tokens): a KV cache of 8 tokens holds no block of 32 tokens: give it 32 or more, or lower tokens_per_block",
            &["--prompt Mars --kv-cache-tokens 32", "--prompt Mars --kv-cache-tokens 8 --tokens-per-block 8"],
        ),
        (
            "--prompt Mars --kv-cache-bytes 20480",
            "(--kv-cache-bytes): a KV cache of 20480 bytes holds no block of 32 tokens, which takes 81920 bytes: give it 81920 or \
             more, or lower tokens_per_block",
            &["--prompt Mars --kv-cache-bytes 81920", "--prompt Mars --kv-cache-bytes 20480 --tokens-per-block 8"],
        ),
        (
            "--prompt Mars --enable-chunked-context false --max-num-tokens 1",
            "set enable_chunked_context to true, or raise max_num_tokens",
            &[
                "--prompt Mars --enable-chunked-context true --max-num-tokens 1",
                "--prompt Mars --enable-chunked-context false --max-num-tokens 16",
            ],
        ),
        (
            "--prompt Mars --beam-width 8 --kv-cache-tokens 64",
            "ask for fewer tokens or beams, or give more KV-cache tokens",
            &[
                "--prompt Mars --beam-width 2 --kv-cache-tokens 64",
                "--prompt Mars --beam-width 8 --kv-cache-tokens 512",
            ],
        ),
        ("--prompt Mars --lora adapter", "leave the adapter out", &["--prompt Mars"]),
        ("--prompt Mars --stop ", "leave it out or give it text", &["--prompt Mars", "--prompt Mars --stop ."]),
        (
            "--prompt Mars --bad-words ",
            "leave it out or give it text",
            &["--prompt Mars", "--prompt Mars --bad-words x"],
        ),
        ("--prompt Mars --regex (?P<stop>a)", "give it another name", &["--prompt Mars --regex (?P<other>a)"]),
        (
            &by(&schema),
            r#"leave it out, or ignore what is not supported with `"x-guidance": {"lenient": true}`"#,
            &[&by(&plain), &by(&lenient)],
        ),
    ];
    for (typed, advice, followed) in cases {
        let run = |line: &str| run_engine(&engine.path, &[arguments(line), vec!["--max-new-tokens", "2"]].concat());
        refused(&mut run(typed), 2, &[advice]);
        for line in *followed {
            succeeded(&mut run(line));
        }
    }
    let mut unknown = run_engine(&engine.path, &["--prompt", "Mars", "--max-new-tokens", "2"]);
    refused(unknown.env("TRTLLM_CPU_ISA", "no-such"), 2, &["unset it to use the best"]);
    succeeded(unknown.env_remove("TRTLLM_CPU_ISA"));
}

#[test]
fn what_a_warning_advises_ends_it() {
    let long = format!("--prompt {}", "Mars-".repeat(12));
    let with = |more: &str| format!("{long} {more}");
    let suggested = text_model("tokenizer");
    let tokenizer_config = suggested.path().join("tokenizer_config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&tokenizer_config).unwrap()).unwrap();
    config.as_object_mut().unwrap().remove("eos_token");
    write_json(&tokenizer_config, &config);
    write_json(&suggested.path().join("generation_config.json"), &json!({"do_sample": true, "temperature": 0.7}));
    let (demo, suggested) = (demo(), common::build(suggested.path(), 64));
    let cases: &[(&common::Engine, &str, &str, &str)] = &[
        (
            &demo,
            "--prompt Mars --n 2 --max-new-tokens 2",
            "without --temperature nothing is drawn",
            "--prompt Mars --n 2 --max-new-tokens 2 --temperature 1",
        ),
        (
            &demo,
            "--prompt Mars --ignore-eos",
            "ended after 128 tokens, which is the default: --max-new-tokens N",
            "--prompt Mars --ignore-eos --max-new-tokens 129",
        ),
        (
            &demo,
            "--prompt Mars --kv-cache-tokens 32",
            "(--kv-cache-tokens) allows sequences of 32 tokens only, the engine 1024",
            "--prompt Mars --kv-cache-tokens 1024",
        ),
        (
            &suggested,
            "--prompt Mars",
            "the model's files name no end token that it has, so the prompt runs to its length: --end-id sets one",
            "--prompt Mars --end-id 1",
        ),
        (
            &suggested,
            "--prompt Mars",
            "generation_config.json suggests --temperature 0.7; without them, output is greedy",
            "--prompt Mars --temperature 0.7",
        ),
    ];
    for (engine, typed, advice, followed) in cases {
        let said = succeeded(&mut run_engine(&engine.path, &arguments(typed))).stderr;
        assert!(said.contains(advice), "{typed}: no `{advice}` in {said}");
        let said = succeeded(&mut run_engine(&engine.path, &arguments(followed))).stderr;
        assert!(!said.contains(advice), "{followed}: {said}");
    }
    for (typed, advice, followed) in [
        ("--max-seq-len 8", "raise this run's --max-seq-len", "--max-seq-len 128"),
        (
            "--kv-cache-tokens 8 --tokens-per-block 8",
            "raise --kv-cache-tokens",
            "--kv-cache-tokens 128 --tokens-per-block 8",
        ),
        ("--kv-cache-bytes 81920", "raise --kv-cache-bytes", "--kv-cache-bytes 819200"),
    ] {
        refused(&mut run_engine(&demo.path, &arguments(&with(typed))), 2, &[advice]);
        succeeded(&mut run_engine(&demo.path, &arguments(&with(followed))));
    }
}
