//! TGI's API, as its clients read it.

use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::common::client::{Client, Reply, chat, complete, get, post, request};
use crate::common::engine::shared;
use crate::common::in_process::InProcess;
use crate::common::{scripted, until};

fn generate(inputs: &str, parameters: Json) -> Reply {
    post(shared().address, "/generate", &json!({ "inputs": inputs, "parameters": parameters }))
}

fn stream(address: std::net::SocketAddr, inputs: &str, parameters: &Json) -> Vec<Json> {
    frames(&post(address, "/generate_stream", &json!({ "inputs": inputs, "parameters": parameters })))
}

/// The frames of a stream, which ends without `[DONE]`.
#[track_caller]
fn frames(reply: &Reply) -> Vec<Json> {
    assert_eq!((reply.status, &*reply.headers["content-type"]), (200, "text/event-stream"), "{reply:?}");
    let frames = reply.body.split_terminator("\n\n").filter(|frame| *frame != ": keep-alive");
    frames.map(|frame| serde_json::from_str(frame.strip_prefix("data: ").unwrap()).unwrap()).collect()
}

/// Checks an error, and gives its sentence.
#[track_caller]
fn refused(reply: &Reply, status: u16, error_type: &str) -> String {
    assert_eq!(reply.status, status, "{reply:?}");
    let body = reply.json();
    assert_eq!((body["error_type"].as_str(), body.as_object().unwrap().len()), (Some(error_type), 2), "{reply:?}");
    body["error"].as_str().unwrap().to_owned()
}

/// The text of tokens, as clients put it together.
fn text_of(tokens: &[Json]) -> String {
    let shown = tokens.iter().filter(|token| token["special"] == false);
    shown.map(|token| token["text"].as_str().unwrap()).collect()
}

const PROMPT: &str = "Complete the paragraph: our solar system is";

#[test]
fn the_three_routes_give_one_text() {
    let address = shared().address;
    let parameters = json!({ "max_new_tokens": 12 });
    let body = json!({ "prompt": PROMPT, "max_tokens": 12, "temperature": 0 });
    let text = complete(address, &body).ok()["choices"][0]["text"].as_str().unwrap().to_owned();
    assert_eq!(generate(PROMPT, parameters.clone()).ok(), json!({ "generated_text": text }));
    assert_eq!(stream(address, PROMPT, &parameters).last().unwrap()["generated_text"], json!(text));
    // The inputs come back from `/` unless they are not wanted, and from the others only if they are.
    let root = |body: Json| post(address, "/", &body);
    let full = json!({ "generated_text": format!("{PROMPT}{text}") });
    assert_eq!(root(json!({ "inputs": PROMPT, "parameters": parameters })).ok(), json!([full]));
    let bare = json!({ "max_new_tokens": 12, "return_full_text": false });
    assert_eq!(root(json!({ "inputs": PROMPT, "parameters": bare })).ok(), json!([{ "generated_text": text }]));
    let streamed = frames(&root(json!({ "inputs": PROMPT, "parameters": bare, "stream": true })));
    assert_eq!(streamed.last().unwrap()["generated_text"], json!(text));
    let asked = json!({ "max_new_tokens": 12, "return_full_text": true });
    assert_eq!(generate(PROMPT, asked.clone()).ok(), full);
    assert_eq!(stream(address, PROMPT, &asked).last().unwrap()["generated_text"], full["generated_text"]);
}

#[test]
fn what_text_generation_sends_is_read() {
    // Every parameter, most of them null.
    let body = json!({ "inputs": PROMPT, "stream": false, "parameters": {
        "do_sample": false, "max_new_tokens": 20, "repetition_penalty": null, "frequency_penalty": null,
        "return_full_text": false, "stop": [], "seed": null, "temperature": null, "top_k": null, "top_p": null,
        "truncate": null, "typical_p": null, "best_of": null, "watermark": false, "details": true,
        "decoder_input_details": false, "top_n_tokens": null, "grammar": null } });
    let reply = post(shared().address, "/", &body);
    let details = &reply.ok()[0]["details"];
    assert!(!reply.headers.contains_key("x-ignored-fields"), "{reply:?}");
    assert_eq!(
        (&details["generated_tokens"], &details["seed"], &details["prefill"]),
        (&json!(20), &Json::Null, &json!([]))
    );
    assert_eq!(details["finish_reason"], "length");
    assert!(details.get("top_tokens").is_none() && details.get("best_of_sequences").is_none());
}

#[test]
fn details_say_of_each_token_what_openais_answer_says() {
    let reply = generate(PROMPT, json!({ "max_new_tokens": 10, "decoder_input_details": true, "top_n_tokens": 3 }));
    let answer = reply.ok();
    let details = &answer["details"];
    let body = json!({ "prompt": PROMPT, "max_tokens": 10, "temperature": 0, "echo": true, "logprobs": 3, "return_token_ids": true });
    let choice = complete(shared().address, &body).ok()["choices"][0].clone();
    let prefill = details["prefill"].as_array().unwrap();
    let tokens = details["tokens"].as_array().unwrap();
    let values: Vec<_> = prefill.iter().chain(tokens).map(|token| token["logprob"].clone()).collect();
    assert_eq!(json!(values), choice["logprobs"]["token_logprobs"]);
    assert_eq!(prefill[0]["logprob"], Json::Null, "nothing comes before the first");
    let ids = |tokens: &[Json]| json!(tokens.iter().map(|token| token["id"].clone()).collect::<Vec<_>>());
    assert_eq!((ids(prefill), ids(tokens)), (choice["prompt_token_ids"].clone(), choice["token_ids"].clone()));
    assert_eq!(json!(text_of(tokens)), answer["generated_text"]);
    for (token, top) in tokens.iter().zip(details["top_tokens"].as_array().unwrap()) {
        assert_eq!((top.as_array().unwrap().len(), &top[0]), (3, token), "greedy");
    }
    let header = |name: &str| reply.headers[name].parse::<f64>().unwrap();
    assert_eq!((header("x-prompt-tokens"), header("x-generated-tokens")), (prefill.len() as f64, 10.0));
    assert_eq!((header("x-compute-characters"), &*reply.headers["x-compute-type"]), (PROMPT.len() as f64, "cpu"));
    for name in
        ["x-compute-time", "x-total-time", "x-validation-time", "x-queue-time", "x-inference-time", "x-time-per-token"]
    {
        assert!(header(name) >= 0.0, "{name}");
    }
}

#[test]
fn a_stream_has_a_frame_for_each_token() {
    let parameters = json!({ "max_new_tokens": 10, "details": true, "top_n_tokens": 2 });
    let whole = generate(PROMPT, parameters.clone()).ok();
    let frames = stream(shared().address, PROMPT, &parameters);
    let of_frames = |name: &str| json!(frames.iter().map(|frame| frame[name].clone()).collect::<Vec<_>>());
    assert_eq!(of_frames("token"), whole["details"]["tokens"]);
    assert_eq!(of_frames("top_tokens"), whole["details"]["top_tokens"]);
    assert_eq!(of_frames("index"), json!((1..=10).collect::<Vec<_>>()));
    let (last, before) = frames.split_last().unwrap();
    assert!(before.iter().all(|frame| frame["generated_text"].is_null() && frame["details"].is_null()));
    assert_eq!(last["generated_text"], whole["generated_text"]);
    let input_length = get_tokens(PROMPT);
    let expected =
        json!({ "finish_reason": "length", "generated_tokens": 10, "seed": null, "input_length": input_length });
    assert_eq!(last["details"], expected);
    let without = stream(shared().address, PROMPT, &json!({ "max_new_tokens": 3 }));
    assert_eq!(without.last().unwrap()["details"], Json::Null);
    assert!(without[0].get("top_tokens").is_none());
}

fn get_tokens(text: &str) -> u64 {
    post(shared().address, "/tokenize", &json!({ "prompt": text })).ok()["count"].as_u64().unwrap()
}

/// The answers of both routes to a prompt of one token: texts and details.
fn both(server: &InProcess, parameters: &Json) -> [(String, Json, Vec<Json>); 2] {
    let mut parameters = parameters.clone();
    (parameters["truncate"], parameters["details"]) = (json!(1), json!(true));
    let body = json!({ "inputs": "a b", "parameters": parameters });
    let whole = post(server.address, "/generate", &body).ok();
    let frames = stream(server.address, "a b", &parameters);
    let last = frames.last().unwrap().clone();
    let text = |value: &Json| value.as_str().unwrap().to_owned();
    let tokens = frames.into_iter().map(|frame| frame["token"].clone()).collect();
    [
        (
            text(&whole["generated_text"]),
            whole["details"].clone(),
            whole["details"]["tokens"].as_array().unwrap().clone(),
        ),
        (text(&last["generated_text"]), last["details"].clone(), tokens),
    ]
}

#[test]
fn texts_of_tokens_are_the_text_also_where_a_character_has_several() {
    let said = "a\u{e9}\u{20ac}\u{1F980}b";
    let ids = scripted::tokenizer().encode(said, false).unwrap();
    let server = scripted::start(scripted::saying(said), 4, |_| {});
    for (text, details, tokens) in both(&server, &json!({ "max_new_tokens": ids.len() })) {
        assert_eq!((text.as_str(), text_of(&tokens)), (said, said.to_owned()));
        assert_eq!(json!(tokens.iter().map(|token| token["id"].clone()).collect::<Vec<_>>()), json!(ids));
        assert_eq!(details["generated_tokens"], ids.len());
    }
    // Cut inside the last character.
    let mut ids = scripted::tokenizer().encode("x\u{1F980}", false).unwrap();
    ids.pop();
    let server = scripted::start(scripted::giving(ids.clone()), 4, |_| {});
    for (text, _, tokens) in both(&server, &json!({ "max_new_tokens": ids.len() })) {
        assert_eq!((text.as_str(), text_of(&tokens), tokens.len()), ("x\u{fffd}", "x\u{fffd}".to_owned(), ids.len()));
    }
}

#[test]
fn a_text_ends_with_the_stop_sequence_that_ended_it() {
    let server = scripted::start(scripted::saying("one two three four five"), 4, |_| {});
    for stop in ["three four", "e t", "wo", "thr"] {
        for (text, details, tokens) in both(&server, &json!({ "max_new_tokens": 40, "stop": [stop, "never"] })) {
            assert!(text.ends_with(stop) && "one two three four five".starts_with(&text), "{stop}: {text}");
            assert_eq!((text_of(&tokens), &details["finish_reason"]), (text, &json!("stop_sequence")), "{stop}");
            assert_eq!(details["generated_tokens"], tokens.len(), "{stop}");
        }
    }
}

#[test]
fn an_end_token_is_shown_as_special_and_is_no_text() {
    let address = shared().address;
    // The demo model ends its paragraph.
    let body = json!({ "prompt": PROMPT, "max_tokens": 400, "temperature": 0 });
    assert_eq!(complete(address, &body).ok()["choices"][0]["finish_reason"], "stop");
    let parameters = json!({ "max_new_tokens": 400, "details": true });
    let whole = generate(PROMPT, parameters.clone()).ok();
    let frames = stream(address, PROMPT, &parameters);
    let last = frames.last().unwrap();
    assert_eq!(
        (&whole["details"]["finish_reason"], &last["details"]["finish_reason"]),
        (&json!("eos_token"), &json!("eos_token"))
    );
    let token = whole["details"]["tokens"].as_array().unwrap().last().unwrap();
    assert_eq!((&token["text"], &token["special"], token), (&json!("</s>"), &json!(true), &last["token"]));
    assert!(!whole["generated_text"].as_str().unwrap().contains("</s>"));
    assert_eq!(whole["generated_text"], last["generated_text"]);
}

#[test]
fn tokens_are_drawn_where_it_is_asked_for_and_the_seed_is_told() {
    let sampled = |parameters: Json| {
        let mut parameters = parameters;
        (parameters["max_new_tokens"], parameters["details"]) = (json!(12), json!(true));
        let reply = generate(PROMPT, parameters);
        (reply.ok(), reply.headers.get("x-seed").cloned())
    };
    for parameters in [json!({}), json!({ "seed": 5 }), json!({ "do_sample": false })] {
        let (answer, header) = sampled(parameters);
        assert_eq!((&answer["details"]["seed"], header), (&Json::Null, None));
    }
    for parameters in
        [json!({ "do_sample": true }), json!({ "temperature": 1.5 }), json!({ "top_k": 50 }), json!({ "top_p": 0.99 })]
    {
        let (answer, header) = sampled(parameters.clone());
        let seed = answer["details"]["seed"].clone();
        assert_eq!(header, Some(seed.to_string()), "{parameters}");
        let mut again = parameters;
        again["seed"] = seed;
        assert_eq!(sampled(again), (answer, None));
    }
}

#[test]
fn the_best_of_several_comes_first_and_each_can_be_had_again_by_its_seed() {
    let parameters = json!({ "best_of": 4, "temperature": 1.3, "max_new_tokens": 8, "details": true });
    let answer = generate(PROMPT, parameters).ok();
    let details = &answer["details"];
    let others = details["best_of_sequences"].as_array().unwrap();
    assert_eq!(others.len(), 3);
    let mean = |sequence: &Json| {
        let tokens = sequence["tokens"].as_array().unwrap();
        tokens.iter().map(|token| token["logprob"].as_f64().unwrap()).sum::<f64>() / tokens.len() as f64
    };
    assert!(others.iter().all(|other| mean(other) <= mean(details)), "{answer}");
    let mut best = details.clone();
    best["generated_text"] = answer["generated_text"].clone();
    for sequence in others.iter().chain([&best]) {
        let again = generate(PROMPT, json!({ "seed": sequence["seed"], "temperature": 1.3, "max_new_tokens": 8 }));
        assert_eq!(again.ok()["generated_text"], sequence["generated_text"]);
    }
}

#[test]
fn a_grammar_is_kept_to() {
    let grammar = |grammar: Json| {
        let reply = generate("A number: ", json!({ "max_new_tokens": 40, "grammar": grammar }));
        reply.ok()["generated_text"].as_str().unwrap().to_owned()
    };
    let digits = grammar(json!({ "type": "regex", "value": "[0-9]{3}" }));
    assert!(digits.len() == 3 && digits.bytes().all(|byte| byte.is_ascii_digit()), "{digits}");
    let schema = json!({ "type": "object", "properties": { "a": { "enum": [7] } }, "required": ["a"], "additionalProperties": false });
    for value in [
        json!({ "type": "json", "value": schema }),
        json!({ "type": "json", "value": schema.to_string() }),
        json!({ "type": "json_schema", "value": { "name": "a", "strict": true, "schema": schema } }),
    ] {
        assert_eq!(serde_json::from_str::<Json>(&grammar(value)).unwrap(), json!({ "a": 7 }));
    }
}

#[test]
fn inputs_are_cut_on_the_left() {
    let reply = generate(PROMPT, json!({ "truncate": 3, "max_new_tokens": 2, "decoder_input_details": true }));
    assert_eq!(reply.ok()["details"]["prefill"].as_array().unwrap().len(), 3);
    assert_eq!(reply.headers["x-truncated-tokens"], (get_tokens(PROMPT) - 3).to_string());
    let whole = json!({ "truncate": 3, "max_new_tokens": 2, "return_full_text": true });
    assert!(generate(PROMPT, whole).ok()["generated_text"].as_str().unwrap().starts_with(PROMPT));
}

#[test]
fn what_is_wrong_is_said_as_tgi_says_it() {
    let wrong = |parameters: Json, field: &str| {
        for path in ["/", "/generate", "/generate_stream"] {
            let reply = post(shared().address, path, &json!({ "inputs": "a", "parameters": parameters }));
            let said = refused(&reply, 422, "validation");
            assert!(said.starts_with("Input validation error: ") && said.contains(field), "{field}: {said}");
        }
    };
    for (name, value) in [
        ("temperature", json!(0)),
        ("temperature", json!(-1)),
        ("temperature", json!("hot")),
        ("top_p", json!(0)),
        ("top_p", json!(1.5)),
        ("top_k", json!(0)),
        ("typical_p", json!(0.5)),
        ("repetition_penalty", json!(0)),
        ("frequency_penalty", json!(3)),
        ("max_new_tokens", json!(0)),
        ("max_new_tokens", json!(-1)),
        ("max_new_tokens", json!(1.5)),
        ("best_of", json!(0)),
        ("best_of", json!(129)),
        ("top_n_tokens", json!(21)),
        ("truncate", json!(0)),
        ("watermark", json!(true)),
        ("do_sample", json!(1)),
        ("details", json!("yes")),
        ("seed", json!("x")),
        ("stop", json!(vec!["a"; 17])),
        ("stop", json!([""])),
        ("adapter_id", json!("none")),
        ("grammar", json!({ "type": "xml", "value": "" })),
        ("grammar", json!({ "type": "regex" })),
        ("grammar", json!({ "type": "regex", "value": "(" })),
        ("grammar", json!({ "type": "json", "value": { "type": 5 } })),
    ] {
        wrong(json!({ name: value }), name);
    }
    wrong(json!({ "best_of": 2 }), "sampling");
    wrong(json!({ "best_of": 2, "do_sample": true, "seed": 1 }), "`seed`");
    let said = |path: &str, body: Json| refused(&post(shared().address, path, &body), 422, "validation");
    let streamed = |parameters: Json| said("/generate_stream", json!({ "inputs": "a", "parameters": parameters }));
    assert!(streamed(json!({ "best_of": 2, "do_sample": true })).contains("streaming"));
    assert!(streamed(json!({ "decoder_input_details": true })).contains("streaming"));
    for body in [json!({}), json!({ "inputs": "" }), json!({ "inputs": null })] {
        assert!(said("/generate", body).contains("`inputs` cannot be empty"));
    }
    said("/generate", json!({ "inputs": ["a"] }));
    said("/generate", json!({ "inputs": "a", "parameters": [] }));
    assert!(said("/generate", json!({ "inputs": "a", "stream": true })).contains("/generate_stream"));
    said("/generate_stream", json!({ "inputs": "a", "stream": false }));
    said("/generate", json!({ "inputs": "a", "suffix": "b" }));
    let long = said("/generate", json!({ "inputs": "word ".repeat(2000) }));
    assert!(
        long.contains("`inputs` must have less than 1024 tokens. Given: ") && long.ends_with("ask for truncate"),
        "{long}"
    );
    assert!(long.contains("maximum context length is 1024 tokens"), "{long}");
    let reply = request(shared().address, "POST", "/generate", &[], "{");
    assert!(refused(&reply, 400, "validation").contains("line 1 column 1"));
    let reply = request(shared().address, "GET", "/generate", &[], "");
    refused(&reply, 405, "method_not_allowed");
    assert_eq!(reply.headers["allow"], "POST, OPTIONS");
    let reply = generate("a", json!({ "max_new_tokens": 1, "frobnicate": 1, "n": 2 }));
    assert_eq!((reply.status, &*reply.headers["x-ignored-fields"]), (200, "parameters.frobnicate, parameters.n"));
    let assistants = json!({ "messages": [{ "role": "assistant", "content": "a" }] });
    refused(&post(shared().address, "/chat_tokenize", &assistants), 422, "template_error");
    let tools = json!({ "messages": [{ "role": "user", "content": "a" }], "tools": [{ "type": "function" }] });
    refused(&post(shared().address, "/chat_tokenize", &tools), 422, "tool_error");
}

#[test]
fn a_full_server_is_overloaded_and_one_that_loads_is_not_there_yet() {
    let server =
        scripted::start(scripted::slow(Duration::from_millis(20)), 1, |settings| settings.max_queued_requests = 1);
    let under_way = || server.state.model().unwrap().admission().under_way().0;
    let body = json!({ "inputs": "a", "parameters": { "max_new_tokens": 10_000 } });
    let clients: Vec<_> = (1..=2)
        .map(|count| {
            let mut client = Client::new(server.address);
            client.send("POST", "/generate_stream", &[], &body.to_string());
            until("it is admitted", || under_way() == count);
            client
        })
        .collect();
    let reply = post(server.address, "/generate", &body);
    assert!(refused(&reply, 429, "overloaded").starts_with("Model is overloaded: "));
    assert!(reply.headers.contains_key("retry-after"));
    drop(clients);
    until("they are cancelled", || under_way() == 0);
    let loading = InProcess::loading(|_| {});
    for path in ["/", "/generate", "/generate_stream", "/chat_tokenize"] {
        refused(&post(loading.address, path, &body), 503, "loading");
    }
    refused(&get(loading.address, "/info"), 503, "loading");
    assert_eq!((get(loading.address, "/").status, get(loading.address, "/health").status), (503, 503));
}

#[test]
fn a_generation_that_fails_says_so() {
    let failing = |step| {
        scripted::start(
            runner::scripted_model::Script { panics_at_step: Some(step), ..scripted::giving(vec![100]) },
            2,
            |_| {},
        )
    };
    let body = json!({ "inputs": "a", "parameters": { "max_new_tokens": 50 } });
    let reply = post(failing(4).address, "/generate", &body);
    assert!(refused(&reply, 424, "generation").starts_with("Request failed during generation: "));
    let frames = frames(&post(failing(4).address, "/generate_stream", &body));
    let (last, before) = frames.split_last().unwrap();
    assert_eq!((before.len(), &last["error_type"]), (4, &json!("generation")), "{frames:?}");
    assert!(last["error"].as_str().unwrap().starts_with("Request failed during generation: "));
    let late = scripted::start(scripted::slow(Duration::from_millis(20)), 1, |_| {});
    let send = |timeout: &str| request(late.address, "POST", "/generate", &[timeout], &body.to_string());
    refused(&send("X-Request-Timeout: x"), 422, "validation");
    // One whose time is over while another runs.
    let long = json!({ "inputs": "a", "parameters": { "max_new_tokens": 10_000 } });
    let mut running = Client::new(late.address);
    running.send("POST", "/generate_stream", &[], &long.to_string());
    let executor = late.state.model().unwrap().session().executor();
    until("one runs", || executor.load().num_active_requests == 1);
    refused(&send("X-Request-Timeout: 0.1"), 424, "generation");
    drop(running);
    let body = json!({ "inputs": "a", "parameters": { "max_new_tokens": 10_000, "details": true } }).to_string();
    let frames = self::frames(&request(late.address, "POST", "/generate_stream", &["X-Request-Timeout: 0.3"], &body));
    let last = frames.last().unwrap();
    assert_eq!(last["details"]["finish_reason"], "length");
    let tokens: Vec<_> = frames.iter().map(|frame| frame["token"].clone()).collect();
    assert_eq!(json!(text_of(&tokens)), last["generated_text"]);
}

#[test]
fn the_server_says_what_it_serves_as_tgi_does() {
    let info = get(shared().address, "/info").ok();
    let expected = json!({
        "model_id": "demo", "model_sha": null, "model_pipeline_tag": "text-generation", "max_best_of": 128,
        "max_stop_sequences": 16, "max_input_tokens": 1023, "max_total_tokens": 1024, "max_client_batch_size": 1024,
        "max_concurrent_requests": 100_016, "validation_workers": shared().state.prepare_threads,
        "router": "serve-engine", "version": env!("CARGO_PKG_VERSION"), "sha": null, "docker_label": null });
    assert_eq!(info, expected);
    assert_eq!(get(shared().address, "/").ok()["status"], "healthy");
}

#[test]
fn placeholders_for_a_model_mean_the_engines() {
    for model in ["tgi", "dummy", "default", "", "https://example.org/models/a"] {
        let body = json!({ "model": model, "messages": [{ "role": "user", "content": "a", "name": null, "tool_calls": null }], "max_tokens": 1 });
        assert!(chat(shared().address, &body).ok()["system_fingerprint"].is_string());
    }
}
