//! What a server is asked, in which form, and what cannot be asked.

use serde_json::{Value, json};

use crate::scripted::{Received, Scripted, obliging, whole};
use crate::{bench_engine, demo_model, measured, number, refused};

fn prompts(server: &Scripted) -> Vec<Value> {
    server.posts().into_iter().map(|received| received.body["prompt"].clone()).collect()
}

#[test]
fn the_seed_decides_prompts_and_each_load_has_its_own_salt() {
    let model = demo_model();
    let ask = |seed: &str| {
        let server = Scripted::start(|_, received| obliging(received));
        let workload = ["--requests", "3", "--input-len", "5:9", "--shared-prefix-len", "2", "--concurrency", "1,2"];
        measured(server.address, &[&workload[..], &["--tokenizer", &model, "--seed", seed]].concat());
        server
    };
    let (one, same, other) = (ask("1"), ask("1"), ask("2"));
    let posts = one.posts();
    assert_eq!(posts.len(), 2 * (1 + 3));
    assert!(posts.iter().all(|received| received.path == "/v1/completions"));
    let ids = prompts(&one);
    assert_eq!(ids[1].as_array().unwrap()[..2], ids[2].as_array().unwrap()[..2]);
    let sorted = |server| {
        let mut prompts: Vec<String> = prompts(server).iter().map(Value::to_string).collect();
        prompts.sort();
        prompts
    };
    assert_eq!(sorted(&one), sorted(&same));
    assert_ne!(sorted(&one), sorted(&other));
    let salt = |received: &Received| received.body["cache_salt"].as_str().unwrap().to_owned();
    let salts: Vec<_> = posts.iter().map(salt).collect();
    assert!(salts[1] == salts[3] && salts[5] == salts[7] && salts[1] != salts[5] && salts[0] != salts[1], "{salts:?}");
    assert_ne!(salt(&same.posts()[1]), salts[1], "another run finds nothing of this one");
}

#[test]
fn flags_and_lines_are_the_apis_fields() {
    let server = Scripted::start(|_, received| obliging(received));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("prompts");
    std::fs::write(
        &path,
        "plain text\n{\"prompt_ids\": [5, 6], \"max_new_tokens\": 2, \"top_k\": 9}\n{\"messages\": [{\"role\": \"user\", \"content\": \"hi\"}], \"top_logprobs\": 3}\n",
    )
    .unwrap();
    let typed =
        ["--temperature", "0.7", "--logit-bias", "7=-1.5", "--bad-words", "a", "--min-p", "0.1", "--seed", "11"];
    let file = ["--prompts", path.to_str().unwrap(), "--output-len", "3", "--concurrency", "1", "--model", "m"];
    let report = measured(server.address, &[&file[..], &typed].concat());
    let posts = server.posts();
    let [_, plain, ids, messages] = &posts[..] else { panic!("{posts:?}") };
    let mut expected = json!({
        "model": "m", "stream": true, "prompt": "plain text", "max_tokens": 3, "temperature": 0.7, "top_p": 1.0, "min_p": 0.1,
        "seed": 11, "logit_bias": { "7": -1.5 }, "bad_words": ["a"], "ignore_eos": true,
        "stream_options": { "include_usage": true, "continuous_usage_stats": true },
    });
    expected["cache_salt"] = plain.body["cache_salt"].clone();
    assert_eq!(plain.body, expected);
    assert_eq!(
        (&ids.body["prompt"], &ids.body["max_tokens"], &ids.body["top_k"]),
        (&json!([5, 6]), &json!(2), &json!(9))
    );
    assert_eq!(messages.path, "/v1/chat/completions");
    assert_eq!(messages.body["messages"], json!([{ "role": "user", "content": "hi" }]));
    assert_eq!((&messages.body["logprobs"], &messages.body["top_logprobs"]), (&json!(true), &json!(3)));
    assert_eq!(report["endpoint"]["prompts"], "messages and text and token ids");
    assert_eq!(number(&report, "/workload/output_tokens"), 8.0);
}

#[test]
fn chat_is_the_servers_template() {
    let server = Scripted::start(|_, received| obliging(received));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("prompts");
    std::fs::write(&path, "How many moons does Mars have?\n").unwrap();
    measured(server.address, &["--prompts", path.to_str().unwrap(), "--chat", "--requests", "2"]);
    let post = &server.posts()[1];
    assert_eq!(post.path, "/v1/chat/completions");
    assert_eq!(post.body["messages"], json!([{ "role": "user", "content": "How many moons does Mars have?" }]));
}

#[test]
fn a_server_that_takes_no_ids_is_asked_in_words() {
    let server = Scripted::start(|_, received| match received.body["prompt"].is_string() {
        true => obliging(received),
        false => whole(422, &[], &json!({ "error": "invalid type: sequence, expected a string", "error_type": "x" })),
    });
    let report = measured(server.address, &["--tokenizer", &demo_model(), "--requests", "2", "--input-len", "6"]);
    assert_eq!((&report["endpoint"]["prompts"], &report["endpoint"]["extensions"]), (&json!("text"), &json!(true)));
    let words = server.posts().pop().unwrap().body["prompt"].as_str().unwrap().split(' ').count();
    assert_eq!(words, 6);
}

#[test]
fn a_server_that_knows_openais_fields_only_is_asked_with_those() {
    let server = Scripted::start(|_, received| match received.body.get("ignore_eos") {
        None => obliging(received),
        Some(_) => whole(400, &[], &json!({ "error": { "message": "Unrecognized request argument: ignore_eos" } })),
    });
    let arguments = ["--tokenizer", &demo_model(), "--requests", "2"];
    let report = measured(server.address, &arguments);
    assert_eq!(
        (&report["endpoint"]["prompts"], &report["endpoint"]["extensions"]),
        (&json!("token ids"), &json!(false))
    );
    assert_eq!(number(&report, "/runs/0/ended_early"), 0.0);
    let body = server.posts().pop().unwrap().body;
    assert!(body.get("cache_salt").is_none() && body["stream_options"] == json!({ "include_usage": true }), "{body}");
    let table = bench_engine(server.address, &arguments).output().unwrap().stdout;
    assert!(crate::text(&table).contains("without ignore_eos and cache_salt, which the server refuses"));
}

#[test]
fn what_servers_have_no_field_for_is_refused_by_name() {
    let server = Scripted::start(|_, received| obliging(received));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("prompts");
    for (line, name) in [
        (r#"{"prompt": "a", "max_length": 9}"#, "max_length"),
        (r#"{"prompt": "a", "stop": "b"}"#, "`stop`"),
        (r#"{"prompt": "a", "json": true}"#, "guides"),
        (r#"{"prompt": "a", "n": 2}"#, "`n`"),
        (r#"{"prompt": "a", "lora": "x"}"#, "--model"),
        (r#"{"prompt": "a", "prompt_logprobs": true}"#, "prompt_logprobs"),
        (r#"{"prompt": "a", "documents": []}"#, "documents"),
        (r#"{"messages": [{"role": "user"}]}"#, "no content"),
    ] {
        std::fs::write(&path, line).unwrap();
        refused(server.address, &["--prompts", path.to_str().unwrap()], 2, &["line 1", name]);
    }
    refused(server.address, &["--threads", "2"], 2, &["--url", "--threads"]);
    refused(server.address, &["--engine", "e"], 2, &["--url", "--engine"]);
    refused(server.address, &["--shared-prefix-len", "128"], 2, &["--shared-prefix-len 128"]);
    refused(server.address, &["--tokenizer", "/nonexistent"], 2, &["/nonexistent", "--tokenizer"]);
    assert!(server.posts().is_empty(), "nothing is asked before everything is known to be askable");
}
