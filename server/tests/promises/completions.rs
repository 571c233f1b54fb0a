//! `/v1/completions`.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};

use crate::common::client::{complete, get, request};
use crate::common::engine::{serve, shared};
use crate::common::in_process::InProcess;

fn texts(answer: &Json) -> Vec<String> {
    let choices = answer["choices"].as_array().unwrap();
    for (number, choice) in choices.iter().enumerate() {
        assert_eq!(choice["index"], number, "{answer}");
    }
    choices.iter().map(|choice| choice["text"].as_str().unwrap().to_owned()).collect()
}

const PROMPT: &str = "Our solar system is";

#[test]
fn an_answer_has_every_field_that_clients_read() {
    let address = shared().address;
    let reply = complete(address, &json!({ "model": "demo", "prompt": PROMPT, "max_tokens": 4, "temperature": 0 }));
    let answer = reply.ok();
    assert!(answer["id"].as_str().unwrap().starts_with("cmpl-"));
    assert_eq!(answer["object"], "text_completion");
    assert_eq!(answer["model"], "demo");
    assert!(answer["created"].as_u64().unwrap() > 1_600_000_000);
    assert!(answer["system_fingerprint"].as_str().unwrap().starts_with("fp_"));
    let choice = &answer["choices"][0];
    assert_eq!((&choice["logprobs"], &choice["finish_reason"]), (&Json::Null, &json!("length")));
    assert!(choice.as_object().unwrap().contains_key("logprobs"));
    assert_eq!(answer["usage"]["completion_tokens"], 4);
    assert_eq!(answer["usage"]["prompt_tokens"].to_string(), reply.headers["x-prompt-tokens"]);
    assert_eq!(reply.headers["x-generated-tokens"], "4");
    for name in ["x-request-id", "x-total-time", "x-queue-time", "x-inference-time", "x-time-per-token"] {
        assert!(reply.headers.contains_key(name), "{name}: {reply:?}");
    }
}

#[test]
fn s02_every_prompt_of_a_list_has_its_choices_in_order() {
    let address = shared().address;
    let ask = |prompt: Json, n: usize| {
        let body = json!({ "prompt": prompt, "n": n, "max_tokens": 5, "temperature": 0, "return_token_ids": true });
        complete(address, &body).ok()
    };
    let (one, other) = (ask(json!(PROMPT), 1), ask(json!("Once upon"), 1));
    let both = ask(json!([PROMPT, "Once upon"]), 2);
    let (one, other) = (texts(&one).remove(0), texts(&other).remove(0));
    assert_ne!(one, other);
    assert_eq!(texts(&both), [&*one, &one, &other, &other]);
    // Token ids, and lists of them, are the same prompts.
    let ids: Vec<Json> = [0, 2].iter().map(|&index| both["choices"][index]["prompt_token_ids"].clone()).collect();
    assert_eq!(texts(&ask(ids[0].clone(), 1)), [&*one]);
    assert_eq!(texts(&ask(json!(ids), 1)), [&*one, &other]);
    let usage = &both["usage"];
    let prompt_tokens: usize = ids.iter().map(|ids| ids.as_array().unwrap().len()).sum();
    assert_eq!(
        (usage["prompt_tokens"].as_u64(), usage["completion_tokens"].as_u64()),
        (Some(prompt_tokens as u64), Some(20))
    );
}

#[test]
fn echo_puts_the_prompt_before_the_output() {
    let address = shared().address;
    let plain =
        texts(&complete(address, &json!({ "prompt": PROMPT, "max_tokens": 3, "temperature": 0 })).ok()).remove(0);
    let body = json!({ "prompt": PROMPT, "max_tokens": 3, "temperature": 0, "echo": true, "stream": true });
    let streamed: String = complete(address, &body)
        .events()
        .iter()
        .map(|event| event["choices"][0]["text"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(streamed, format!("{PROMPT}{plain}"));
    let nothing = complete(address, &json!({ "prompt": PROMPT, "max_tokens": 0, "echo": true })).ok();
    assert_eq!(texts(&nothing), [PROMPT]);
    assert_eq!(
        (&nothing["choices"][0]["finish_reason"], &nothing["usage"]["completion_tokens"]),
        (&json!("length"), &json!(0))
    );
}

#[test]
fn best_of_returns_the_most_probable() {
    let address = shared().address;
    let ask = |more: Json| {
        let mut body = json!({ "prompt": PROMPT, "max_tokens": 6, "temperature": 1.5, "seed": 7, "logprobs": 0 });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        complete(address, &body).ok()
    };
    let mean = |choice: &Json| {
        let log_probs = choice["logprobs"]["token_logprobs"].as_array().unwrap();
        log_probs.iter().map(|log_prob| log_prob.as_f64().unwrap()).sum::<f64>() / log_probs.len() as f64
    };
    let all = ask(json!({ "n": 6 }));
    let mut all: Vec<Json> = all["choices"].as_array().unwrap().clone();
    all.sort_by(|one, other| mean(other).total_cmp(&mean(one)));
    let best = ask(json!({ "n": 2, "best_of": 6 }));
    assert_eq!(texts(&best), [all[0]["text"].as_str().unwrap(), all[1]["text"].as_str().unwrap()]);
    assert!(best["usage"]["completion_tokens"].as_u64().unwrap() > 12, "{best}");
    let body = json!({ "prompt": PROMPT, "best_of": 2, "stream": true });
    complete(address, &body).error(400, "invalid_value", Some("best_of"));
}

#[test]
fn sampling_fields_reach_the_sampler() {
    let address = shared().address;
    let ask = |more: Json| {
        let mut body = json!({ "prompt": PROMPT, "max_tokens": 4, "temperature": 0, "return_token_ids": true });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        complete(address, &body).ok()["choices"][0].clone()
    };
    let plain = ask(json!({}));
    let first = plain["token_ids"][0].as_u64().unwrap();
    assert_ne!(ask(json!({ "logit_bias": { first.to_string(): -100 } }))["token_ids"][0], first);
    assert_ne!(ask(json!({ "bad_words_token_ids": [[first]] }))["token_ids"][0], first);
    assert_eq!(ask(json!({ "logit_bias": { "100": 100 } }))["token_ids"][0], 100);
    assert_eq!(ask(json!({ "allowed_token_ids": [77] }))["token_ids"], json!([77, 77, 77, 77]));
    let stopped = ask(json!({ "stop_token_ids": [first] }));
    assert_eq!(
        (&stopped["text"], &stopped["finish_reason"], &stopped["stop_reason"]),
        (&json!(""), &json!("stop"), &json!(first))
    );
    let kept = ask(json!({ "stop_token_ids": [first], "include_stop_str_in_output": true }));
    assert!(plain["text"].as_str().unwrap().starts_with(kept["text"].as_str().unwrap()) && kept["text"] != "");
    assert_eq!(ask(json!({ "stop_token_ids": [first], "min_tokens": 2 }))["token_ids"].as_array().unwrap().len(), 4);
    // Every spelling of greedy.
    for greedy in [json!({ "top_k": 1 }), json!({ "top_p": 0 })] {
        let mut more = greedy;
        more["temperature"] = json!(1.5);
        assert_eq!(ask(more)["token_ids"], plain["token_ids"]);
    }
}

#[test]
fn a_seed_that_was_drawn_is_told_and_gives_the_same_again() {
    let address = shared().address;
    let body = json!({ "prompt": PROMPT, "max_tokens": 12, "temperature": 2 });
    let reply = complete(address, &body);
    let seed: u64 = reply.headers["x-seed"].parse().unwrap();
    let mut again = body;
    again["seed"] = json!(seed);
    let again = complete(address, &again);
    assert_eq!(texts(&again.ok()), texts(&reply.ok()));
    assert!(!again.headers.contains_key("x-seed"));
    for seed in [json!(-1), json!(u64::MAX), json!(7.0)] {
        complete(address, &json!({ "prompt": PROMPT, "max_tokens": 1, "seed": seed })).ok();
    }
}

#[test]
fn a_prompt_can_be_cut_from_the_left() {
    let address = shared().address;
    let body =
        json!({ "prompt": [5, 6, 7, 8, 9], "max_tokens": 1, "truncate_prompt_tokens": 2, "return_token_ids": true });
    let reply = complete(address, &body);
    assert_eq!(reply.ok()["choices"][0]["prompt_token_ids"], json!([8, 9]));
    assert_eq!(reply.headers["x-truncated-tokens"], "3");
    let mut body = body;
    body["truncation_side"] = json!("right");
    assert_eq!(complete(address, &body).ok()["choices"][0]["prompt_token_ids"], json!([5, 6]));
}

#[test]
fn a_prompt_may_fill_the_window_where_nothing_is_generated() {
    let address = shared().address;
    let body = |length: usize| json!({ "prompt": vec![5; length], "max_tokens": 0, "echo": true, "logprobs": 1 });
    let answer = complete(address, &body(1024)).ok();
    assert_eq!(answer["usage"]["total_tokens"], 1024);
    assert_eq!(answer["choices"][0]["logprobs"]["tokens"].as_array().unwrap().len(), 1024);
    complete(address, &body(1025)).error(400, "context_length_exceeded", Some("prompt"));
}

#[test]
fn a_body_may_have_the_requests_id() {
    let address = shared().address;
    let ask = |more: Json| {
        let mut body = json!({ "prompt": "a", "max_tokens": 1, "request_id": "mine" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        request(address, "POST", "/v1/completions", &["X-Request-Id: header"], &body.to_string())
    };
    let reply = ask(json!({}));
    assert_eq!((reply.ok()["id"].as_str(), reply.headers["x-request-id"].as_str()), (Some("cmpl-mine"), "mine"));
    assert_eq!(ask(json!({ "request_id": null })).headers["x-request-id"], "header");
    // What is refused later has it too.
    let reply = ask(json!({ "prompt": vec![5; 2000] }));
    assert_eq!((reply.status, reply.headers["x-request-id"].as_str()), (400, "mine"));
}

#[test]
fn models_are_listed_and_asked_for_by_name() {
    let server =
        crate::common::engine::serve(|settings| settings.served_model_name = vec!["org/base".into(), "alias".into()]);
    let address = server.address;
    let list = get(address, "/v1/models").ok();
    let names: Vec<_> = list["data"].as_array().unwrap().iter().map(|model| model["id"].clone()).collect();
    assert_eq!(names, ["org/base", "alias"]);
    let one = get(address, "/v1/models/org/base").ok();
    assert_eq!((&one["max_model_len"], &one["parent"], &one["object"]), (&json!(1024), &Json::Null, &json!("model")));
    get(address, "/v1/models/none").error(404, "model_not_found", None);
    let ask = |model: Json| complete(address, &json!({ "model": model, "prompt": "a", "max_tokens": 1 }));
    for known in ["alias", "tgi", "dummy", "default", "", "https://host/path"] {
        ask(json!(known)).ok();
    }
    assert_eq!(ask(json!("alias")).ok()["model"], "alias");
    assert_eq!(ask(Json::Null).ok()["model"], "org/base");
    assert!(ask(json!("gpt-4")).error(404, "model_not_found", Some("model")).contains("`org/base`, `alias`"));
}

#[test]
fn s43_salts_separate_cached_prefixes() {
    let server = crate::common::engine::serve(|_| {});
    let prompt = "Our solar system is a collection of planets and moons. ".repeat(12);
    let cached = |salt: Json| {
        let body = json!({ "prompt": prompt, "max_tokens": 1, "cache_salt": salt });
        complete(server.address, &body).ok()["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap()
    };
    assert_eq!(cached(Json::Null), 0);
    assert!(cached(Json::Null) > 0);
    assert_eq!(cached(json!("one")), 0);
    assert!(cached(json!("one")) > 0);
    assert_eq!(cached(json!("other")), 0);
    complete(server.address, &json!({ "prompt": "a", "cache_salt": "" })).error(
        400,
        "invalid_value",
        Some("cache_salt"),
    );
}

#[test]
fn a_model_that_does_not_sample_is_greedy_unless_it_is_asked_to_sample() {
    let texts = |server: &InProcess, more: &Json| -> BTreeSet<String> {
        let text = |seed: u64| {
            let mut body = json!({ "prompt": PROMPT, "max_tokens": 12, "seed": seed });
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            complete(server.address, &body).ok()["choices"][0]["text"].as_str().unwrap().to_owned()
        };
        (0..4).map(text).collect()
    };
    let greedy = texts(shared(), &json!({ "temperature": 0 }));
    assert_eq!(greedy.len(), 1);
    assert_eq!(texts(shared(), &json!({})), greedy);
    assert!(texts(shared(), &json!({ "temperature": 1.5 })).len() > 1);
    let server = serve(|settings| settings.generation_config = "none".to_owned());
    assert_eq!(texts(&server, &json!({})), texts(&server, &json!({ "temperature": 1 })));
}
