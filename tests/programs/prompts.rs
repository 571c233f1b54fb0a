//! Where prompts come from: the command line, a file, standard input.

use std::process::Stdio;

use serde_json::{Value, json};
use trtllm::text::tokenizer::Tokenizer;

use crate::common::{self, Engine};
use crate::support::{
    comma_separated, demo, file, json_line, json_lines, one_of_two_failed, output_ids, parity, parse_lines, printed,
    refused, run_engine, run_with_input, succeeded, text_engine,
};

const FEW: [&str; 2] = ["--max-new-tokens", "6"];

/// The completion of one prompt alone, as number `index`.
fn alone(engine: &Engine, index: usize, arguments: &[&str]) -> Value {
    let mut line = json_line(engine, &[arguments, &FEW].concat());
    line["index"] = json!(index);
    line
}

#[test]
fn a_prompt_is_its_ids_with_the_tokenizers_special_tokens() {
    let engine = demo();
    let tokenizer = Tokenizer::open(&engine.path).unwrap();
    let prompt = "Complete the paragraph: our solar system is";
    let ids = tokenizer.encode(prompt, true).unwrap();
    assert_eq!(ids[0], tokenizer.bos_id().unwrap());
    let by_ids = alone(&engine, 0, &["--prompt-ids", &comma_separated(&ids), "--detokenize"]);
    assert_eq!(alone(&engine, 0, &["--prompt", prompt]), by_ids);
    let spaced = ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" , ");
    assert_eq!(alone(&engine, 0, &["--prompt-ids", &spaced, "--detokenize"]), by_ids);
}

#[test]
fn several_prompts_are_numbered_in_order() {
    let engine = demo();
    let (_dir, path) = file("prompts.txt", "Saturn\n{\"prompt_ids\": [1, 9]}\n");
    let path = path.to_str().unwrap();
    let arguments =
        ["--prompts", path, "--prompt-ids", "1,7", "--prompt", "Mars", "--prompt-ids", "1,8", "--prompt", "Venus"];
    // Texts, ids, then the file, each in its own order.
    let alone = [
        alone(&engine, 0, &["--prompt", "Mars"]),
        alone(&engine, 1, &["--prompt", "Venus"]),
        alone(&engine, 2, &["--prompt-ids", "1,7", "--detokenize"]),
        alone(&engine, 3, &["--prompt-ids", "1,8", "--detokenize"]),
        alone(&engine, 4, &["--prompt", "Saturn"]),
        alone(&engine, 5, &["--prompt-ids", "1,9", "--detokenize"]),
    ];
    assert_eq!(json_lines(&engine, &[&arguments[..], &FEW].concat()), alone);

    let whole = |line: &Value| format!("{}\n", line["text"].as_str().unwrap().trim_end_matches('\n'));
    let expected: String = alone.iter().map(whole).collect();
    let text = printed(&engine, &[&arguments[..], &FEW].concat());
    assert_eq!(text.replace("\n\n", "\n"), expected.replace("\n\n", "\n"));
}

#[test]
fn an_empty_completion_is_an_empty_line() {
    let engine = demo();
    let first = alone(&engine, 0, &["--prompt", "Mars"])["text"].as_str().unwrap()[..1].to_owned();
    let (_dir, path) = file("prompts", format!("{}\nMars\n", json!({"prompt": "Mars", "stop": first})));
    let text = printed(&engine, &["--prompts", path.to_str().unwrap(), "--max-new-tokens", "3"]);
    assert_eq!(text, format!("\n{}", printed(&engine, &["--prompt", "Mars", "--max-new-tokens", "3"])));
}

#[test]
fn odd_text_is_a_prompt_like_any_other() {
    let engine = text_engine("tokenizer");
    let tokenizer = Tokenizer::open(&engine.path).unwrap();
    for prompt in ["-1", "--help", "--engine", " ", "\n", "a\0b"[..1].as_ref(), "🚀é\u{301}\u{200d}", "{", "[1", "</s>"]
    {
        let line = json_line(&engine, &["--prompt", prompt, "--max-new-tokens", "2"]);
        assert_eq!(line["prompt_tokens"], tokenizer.encode(prompt, true).unwrap().len(), "{prompt:?}");
    }
}

#[test]
fn a_prompts_file_is_read_line_by_line() {
    let engine = demo();
    let check = |content: &[u8], expected: &[&str]| {
        let (_dir, path) = file("prompts", content);
        let lines = json_lines(&engine, &["--prompts", path.to_str().unwrap(), FEW[0], FEW[1]]);
        let alone: Vec<Value> =
            expected.iter().enumerate().map(|(index, prompt)| alone(&engine, index, &["--prompt", prompt])).collect();
        assert_eq!(lines, alone, "{}", String::from_utf8_lossy(content));
    };
    check(b"Mars\nVenus\n", &["Mars", "Venus"]);
    check(b"Mars\nVenus", &["Mars", "Venus"]);
    check(b"Mars\r\nVenus\r\n", &["Mars", "Venus"]);
    check(b"\n  \nMars\n\n\nVenus\n\n", &["Mars", "Venus"]);
    check(b"\xef\xbb\xbfMars\n", &["Mars"]);
    check(b"\xef\xbb\xbf{\"prompt\": \"Mars\"}\r\n", &["Mars"]);
    check(
        b"{\"prompt\": \"two\\nlines\"}\n [not JSON\n  {\"prompt\": \"Mars\"}\n",
        &["two\nlines", " [not JSON", "Mars"],
    );
    check("{\"prompt\": \"{ \\u00e9\"}\n世界 🚀\n".as_bytes(), &["{ é", "世界 🚀"]);
}

#[test]
fn a_json_line_has_settings_of_its_own() {
    let engine = demo();
    let lines = [
        (json!({"prompt": "Mars"}), &["--temperature", "0.5", "--seed", "3"][..]),
        (json!({"prompt": "Mars", "seed": 4}), &["--temperature", "0.5", "--seed", "4"]),
        (json!({"prompt": "Mars", "temperature": 0}), &["--temperature", "0"]),
        (
            json!({"prompt": "Mars", "top_k": 3, "top_p": 0.8, "min_p": 0.01, "repetition_penalty": 1.3, "temperature": 1.5}),
            &[
                "--top-k",
                "3",
                "--top-p",
                "0.8",
                "--min-p",
                "0.01",
                "--repetition-penalty",
                "1.3",
                "--temperature",
                "1.5",
                "--seed",
                "3",
            ],
        ),
        (
            json!({"prompt_ids": [1, 20, 30], "logprobs": true, "prompt_logprobs": true, "temperature": 0.0}),
            &["--logprobs", "--prompt-logprobs"],
        ),
        (
            json!({"prompt": "Mars", "ignore_eos": true, "max_new_tokens": 9}),
            &["--temperature", "0.5", "--seed", "3", "--ignore-eos", "--max-new-tokens", "9"],
        ),
        (json!({"prompt": "Mars", "max_length": 9}), &["--temperature", "0.5", "--seed", "3", "--max-length", "9"]),
    ];
    let content: String = lines.iter().map(|(line, _)| format!("{line}\n")).collect();
    let (_dir, path) = file("prompts.jsonl", content);
    let found = json_lines(
        &engine,
        &["--prompts", path.to_str().unwrap(), "--temperature", "0.5", "--seed", "3", "--max-new-tokens", "5"],
    );
    for (index, ((line, settings), found)) in lines.iter().zip(&found).enumerate() {
        let ids = line["prompt_ids"].as_array().map(|_| comma_separated(&crate::support::ids(&line["prompt_ids"])));
        let prompt = match &ids {
            Some(ids) => &["--detokenize", "--prompt-ids", ids][..],
            None => &["--prompt", "Mars"],
        };
        let limited = settings.iter().any(|setting| setting.starts_with("--max"));
        let limit: &[&str] = if limited { &[] } else { &["--max-new-tokens", "5"] };
        let mut expected = json_line(&engine, &[prompt, settings, limit].concat());
        expected["index"] = json!(index);
        assert_eq!(*found, expected, "{line}");
    }
}

#[test]
fn a_wrong_line_names_the_file_and_the_line() {
    let engine = text_engine("tokenizer");
    let check = |line: &str, parts: &[&str]| {
        let (_dir, path) = file("list.jsonl", format!("fine\n\n{line}\n"));
        let mut command = run_engine(&engine.path, &["--prompts", path.to_str().unwrap(), "--max-new-tokens", "2"]);
        one_of_two_failed(&mut command, &[&["list.jsonl", "line 3"], parts].concat());
        let stderr = common::run(&mut command).stderr;
        let numbers = stderr.split(" line ").skip(1).filter(|after| after.starts_with(|c: char| c.is_ascii_digit()));
        assert_eq!(numbers.count(), 1, "one number of a line: {stderr}");
        // As JSON, the error is the prompt's line.
        let output = common::run(command.args(["--format", "json"]));
        let lines = parse_lines(&output.stdout);
        assert_eq!((lines.len(), &lines[0]["finish_reason"]), (2, &json!("length")), "{line}");
        if parts == ["--format json"] {
            return assert_eq!((output.code, &lines[1]["error"]), (0, &Value::Null), "{line}");
        }
        assert_eq!((output.code, lines[1].as_object().unwrap().len()), (1, 2), "{line}");
        assert!(output.stderr.ends_with("error: 1 of 2 prompts failed\n"), "{}", output.stderr);
        let error = lines[1]["error"].as_str().unwrap();
        assert!(parts.iter().all(|part| error.contains(part)) && error.contains("line 3: "), "{error}");
    };
    check("{", &["EOF", "column 1", "{\"prompt\": \"{…\"}"]);
    check("  {not JSON", &["key must be a string", "column 4"]);
    check("{\"prompt\": \"a\"} x", &["trailing"]);
    check("{}", &["needs `prompt`, `messages` or `prompt_ids`"]);
    check(r#"{"prompt": "a", "prompt_ids": [1]}"#, &["exclude one another"]);
    check(r#"{"prompt": 1}"#, &["prompt", "string"]);
    check(r#"{"prompt": null}"#, &["prompt", "string"]);
    check(r#"{"prompt": [{"role": "user", "content": "hi"}]}"#, &["--chat"]);
    check(r#"{"prompt_ids": "1,2"}"#, &["prompt_ids"]);
    check(r#"{"prompt_ids": [-1]}"#, &["prompt_ids"]);
    check(r#"{"prompt_ids": [1.5]}"#, &["prompt_ids"]);
    check(r#"{"prompt": "a", "max_tokens": 3}"#, &["max_tokens", "max_new_tokens"]);
    check(r#"{"prompt": "a", "temperature": "hot"}"#, &["temperature", "hot"]);
    check(r#"{"prompt": "a", "seed": -1}"#, &["seed", "-1"]);
    check(r#"{"prompt": "a", "top_k": 2.5}"#, &["top_k", "2.5"]);
    check(r#"{"prompt": "a", "stop": 1}"#, &["stop"]);
    check(r#"{"prompt": "a", "max_new_tokens": 1, "max_length": 9}"#, &["exclude"]);
    // What only shows when the prompt is encoded.
    check(r#"{"prompt": ""}"#, &["empty"]);
    check(r#"{"prompt_ids": []}"#, &["empty"]);
    check(r#"{"prompt_ids": [417]}"#, &["417", "0 to 416"]);
    check(r#"{"prompt": "a", "top_p": 2}"#, &["top_p"]);
    check(r#"{"prompt": "a", "max_length": 1}"#, &["2 tokens"]);
    check(r#"{"prompt": "a", "stop": [""]}"#, &["stop string"]);
    check(&"long ".repeat(100), &["max_seq_len is 128"]);
    check(&"long ".repeat(500), &["max_seq_len, 128", "shorten it"]);
    check(r#"{"prompt": "a", "logprobs": true}"#[..].trim_end(), &["--format json"]);
}

#[test]
fn prompts_files_that_are_none() {
    let engine = parity("mistral-gqa");
    let run = |path: &str| run_engine(&engine.path, &["--prompts", path]);
    refused(&mut run("/no/such/file"), 2, &["/no/such/file", "No such file"]);
    refused(&mut run("/"), 2, &["`/`", "directory"]);
    refused(&mut run("/dev/null"), 2, &["/dev/null", "no prompt"]);
    let (_dir, path) = file("binary", [0xff, 0xfe, b'a', b'\n']);
    refused(
        &mut run(path.to_str().unwrap()),
        1,
        &["binary`, line 1: the line is not UTF-8 text", "1 of 1 prompt failed"],
    );
}

#[test]
fn standard_input_is_a_prompt_or_a_list_of_them() {
    let engine = demo();
    let run = |arguments: &[&str], input: &[u8]| {
        let mut command = run_engine(&engine.path, &[arguments, &FEW, &["--format", "json"]].concat());
        let output = run_with_input(&mut command, input);
        assert_eq!(output.code, 0, "{}", output.stderr);
        parse_lines(&output.stdout)
    };
    // One prompt, however many lines; the last line's end is not part of it.
    let mars = alone(&engine, 0, &["--prompt", "Mars"]);
    for input in ["Mars", "Mars\n", "Mars\r\n"] {
        assert_eq!(run(&[], input.as_bytes()), std::slice::from_ref(&mars), "{input:?}");
    }
    assert_eq!(run(&[], b"Mars\nVenus\n\n"), [alone(&engine, 0, &["--prompt", "Mars\nVenus\n"])]);
    let venus = alone(&engine, 1, &["--prompt", "Venus"]);
    assert_eq!(run(&["--prompts", "-"], b"Mars\n{\"prompt\": \"Venus\"}\n"), [mars.clone(), venus]);
    // Not asked when there is a prompt.
    assert_eq!(run(&["--prompt", "Mars"], b""), [mars]);
}

#[test]
fn of_a_text_that_is_far_too_long_the_beginning_is_encoded_alone() {
    let engine = demo();
    let book = "hello world ".repeat(2_000_000);
    let output = run_with_input(&mut run_engine(&engine.path, &["-q"]), book.as_bytes());
    let says = "24000000 bytes have more than twice the tokens that max_seq_len, 1024, allows: shorten it, or build";
    assert!(output.code == 2 && output.stderr.contains(says), "{}: {}", output.code, output.stderr);
    // Many bytes in few tokens are no reason to refuse a prompt that fits.
    let blanks = format!("Jupiter{}", "\u{FFFD}".repeat(300));
    succeeded(&mut run_engine(&engine.path, &["--prompt", &blanks, "--max-new-tokens", "1", "-q"]));
}

#[test]
fn empty_and_missing_prompts_are_refused() {
    let engine = text_engine("tokenizer");
    let run = |arguments: &[&str]| run_engine(&engine.path, arguments);
    refused(&mut run(&[]), 2, &["no prompt", "--prompt", "--prompts", "standard input"]);
    refused(&mut run(&["--prompt", ""]), 2, &["the prompt is empty"]);
    refused(&mut run(&["--prompt-ids", ""]), 2, &["the prompt is empty"]);
    one_of_two_failed(&mut run(&["--prompt", "fine", "--prompt", "", "--max-new-tokens", "2"]), &["prompt 1", "empty"]);
    refused(&mut run(&["--prompt-ids", "1,,2"]), 2, &["`` in --prompt-ids `1,,2`"]);
    refused(&mut run(&["--prompt-ids", "1,2,"]), 2, &["--prompt-ids `1,2,`"]);
    refused(&mut run(&["--prompt-ids", "-1"]), 2, &["`-1`", "not a token id"]);
    refused(&mut run(&["--prompt-ids", "[1, 2]"]), 2, &["`[1`", "not a token id"]);
    let output = run_with_input(&mut run(&[]), b"\xff\xfe");
    assert_eq!((output.code, output.stdout.as_str()), (2, ""));
    assert!(output.stderr.contains("standard input") && output.stderr.contains("UTF-8"), "{}", output.stderr);
    let output = run_with_input(&mut run(&["--prompts", "-", "--format", "json"]), b"fine\n{\n");
    let lines = parse_lines(&output.stdout);
    assert_eq!((output.code, lines.len()), (1, 2));
    assert!(lines[1]["error"].as_str().unwrap().starts_with("standard input, line 2: "), "{}", lines[1]);
    let output = run_with_input(&mut run(&["--prompts", "-"]), b"\n  \n");
    assert_eq!((output.code, output.stderr.contains("standard input holds no prompt")), (2, true));
}

#[test]
fn prompts_of_ids_alone_read_no_tokenizer() {
    let engine = demo();
    let ids = ["--prompt-ids", "1,200,300", FEW[0], FEW[1]];
    let with_text = json_line(&engine, &[&ids[..], &["--detokenize"]].concat());
    let without = json_line(&engine, &ids);
    assert!(with_text["text"].is_string());
    assert_eq!((&without["output_ids"], &without["text"]), (&with_text["output_ids"], &Value::Null));
    assert_eq!(printed(&engine, &ids), format!("{}\n", comma_separated(&output_ids(&without))));
    for needs_text in [&["--stop", "§"][..], &["--bad-words", "§"], &["--regex", "(?s).*"]] {
        assert!(json_line(&engine, &[&ids[..], needs_text].concat())["text"].is_string(), "{needs_text:?}");
    }
    // In a file it may be needed for another line.
    let (_dir, path) = file("prompts", json!({"prompt_ids": [1, 200, 300]}).to_string());
    assert_eq!(json_line(&engine, &["--prompts", path.to_str().unwrap(), FEW[0], FEW[1]]), with_text);
}

#[test]
fn a_lora_adapter_is_for_gpus() {
    let path = demo();
    let mut command = run_engine(&path.path, &["--prompt", "a", "--lora", "/no/such/adapter"]);
    refused(&mut command, 2, &["the CPU engine has no LoRA adapters", "build the engine for a GPU"]);
}

#[test]
fn the_default_length_is_told_where_it_ends_a_text() {
    let engine = demo();
    let note = |arguments: &[&str]| {
        let output =
            succeeded(&mut run_engine(&engine.path, &[&["--prompt", "Mars", "--ignore-eos"], arguments].concat()));
        output.stderr.contains("ended after 128 tokens, which is the default: --max-new-tokens N")
    };
    assert!(note(&[]));
    for not in [&["--max-new-tokens", "128"][..], &["--format", "json"], &["--quiet"], &["--max-length", "200"]] {
        assert!(!note(not), "{not:?}");
    }
}

#[test]
fn a_prompt_of_text_needs_a_tokenizer() {
    let engine = parity("mistral-gqa");
    let mut command = run_engine(&engine.path, &["--prompt", "Mars"]);
    refused(&mut command, 2, &["tokenizer.json", "--prompt-ids"]);
    assert_eq!(output_ids(&alone(&engine, 0, &["--prompt-ids", "1"])).len(), 6);
}

#[test]
fn options_are_checked_before_the_engine_is_opened() {
    let check = |arguments: &[&str], parts: &[&str]| {
        let mut command = run_engine("/no/such/engine".as_ref(), &[&["--prompt", "a"], arguments].concat());
        let output = common::run(&mut command);
        assert_eq!(output.code, 2, "{}", output.stderr);
        assert!(!output.stderr.contains("/no/such/engine"), "{}", output.stderr);
        assert!(parts.iter().all(|part| output.stderr.contains(part)), "{}", output.stderr);
    };
    check(&["--top-p", "2"], &["--top-p must be from 0 to 1, not 2"]);
    check(&["--temperature=-1"], &["--temperature must be a number from 0, not -1"]);
    check(&["--repetition-penalty", "0"], &["--repetition-penalty must be a number above 0, not 0"]);
    check(&["--n", "100000"], &["--n must be at most 65536, not 100000"]);
    check(&["--priority", "2"], &["--priority must be from 0 to 1"]);
    check(&["--stop", ""], &["stop string number 1 is empty"]);
    check(&["--bad-words", ""], &["bad word number 1 is empty"]);
    check(&["--logprobs"], &["--format json"]);
    check(&["--top-k", "x"], &["'x'", "--top-k", "must be a whole number from 0 to "]);
    check(&["--threads", "x"], &["'x'", "--threads", "must be a whole number from 1 to 1024"]);
    check(&["--prompts", "/no/such/file"], &["/no/such/file"]);
}

#[test]
fn prompts_of_standard_input_are_completed_while_more_may_come() {
    use std::io::{BufRead, BufReader, Write};
    let engine = demo();
    let mut command = run_engine(&engine.path, &["--prompts", "-", "--format", "json", "--quiet", FEW[0], FEW[1]]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
    for index in 0..3 {
        writeln!(stdin, "Mars").unwrap();
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["index"], index);
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_long_file_takes_no_more_memory_than_a_short_one() {
    let engine = parity("mistral-gqa");
    // Peak resident memory, in KiB, of a run over so many prompts.
    let peak = |prompts: usize, format: &str| {
        let line = format!("{}\n", json!({"prompt_ids": vec![1; 48], "max_new_tokens": 1}));
        let (_dir, path) = file("prompts", line.repeat(prompts));
        let arguments =
            ["--prompts", path.to_str().unwrap(), "--format", format, "--stats", "--kv-cache-tokens", "2048"];
        let output = common::run(&mut run_engine(&engine.path, &arguments));
        assert_eq!((output.code, output.stdout.lines().count()), (0, prompts), "{}", output.stderr);
        let memory = output.stderr.lines().find_map(|line| line.strip_prefix("memory ")).unwrap();
        memory.trim().split(' ').next().unwrap().parse::<f64>().unwrap()
    };
    for format in ["text", "json"] {
        let (short, long) = (peak(5_000, format), peak(40_000, format));
        // Were 35,000 more prompts kept, their ids alone would take more than 6 MB, and what came of them three times that.
        assert!(long < short + 6.0, "{format}: {short} and {long} MiB");
    }
}
