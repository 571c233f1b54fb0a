//! Streams: their events, and what ends them.

use std::time::Duration;

use runner::scripted_model::Script;
use serde_json::{Value as Json, json};

use crate::common::client::{Client, chat, complete, get};
use crate::common::engine::shared;
use crate::common::{scripted, until};

fn user(text: &str) -> Json {
    json!([{ "role": "user", "content": text }])
}

#[test]
fn s20_usage_comes_last_with_no_choices_and_is_null_before() {
    let address = shared().address;
    for n in [1, 3] {
        let body = json!({
            "messages": user("Hello"), "max_tokens": 4, "n": n, "stream": true, "stream_options": { "include_usage": true },
        });
        let mut events = chat(address, &body).events();
        let last = events.pop().unwrap();
        assert_eq!(last["choices"], json!([]));
        let usage = &last["usage"];
        assert_eq!(
            usage["total_tokens"].as_u64().unwrap(),
            usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap()
        );
        let mut whole = body.clone();
        whole.as_object_mut().unwrap().retain(|name, _| !name.starts_with("stream"));
        assert_eq!(chat(address, &whole).ok()["usage"]["prompt_tokens"], usage["prompt_tokens"]);
        assert!(
            events.iter().all(|event| event["usage"].is_null() && event.as_object().unwrap().contains_key("usage"))
        );
        let ends: Vec<_> = events.iter().filter(|event| !event["choices"][0]["finish_reason"].is_null()).collect();
        assert_eq!(ends.len(), n, "each choice ends once");
    }
    let body = json!({ "prompt": "a", "stream_options": { "include_usage": true } });
    complete(address, &body).error(400, "invalid_value", Some("stream_options"));
}

#[test]
fn s21_there_is_no_usage_unless_it_is_asked_for() {
    let address = shared().address;
    let events = complete(address, &json!({ "prompt": "a", "max_tokens": 3, "n": 2, "stream": true })).events();
    assert!(
        events.iter().all(|event| !event.as_object().unwrap().contains_key("usage") && event["choices"][0].is_object())
    );
    let body =
        json!({ "prompt": "a", "max_tokens": 3, "stream": true, "stream_options": { "continuous_usage_stats": true } });
    let counts: Vec<_> = complete(address, &body)
        .events()
        .iter()
        .map(|event| event["usage"]["completion_tokens"].as_u64().unwrap())
        .collect();
    assert!(counts.is_sorted() && counts.last() == Some(&3), "{counts:?}");
}

#[test]
fn s22_chunks_of_chat_begin_with_the_role_and_end_with_the_reason() {
    let address = shared().address;
    let body = json!({ "messages": user("Hello"), "max_tokens": 4, "n": 2, "seed": 1, "stream": true });
    let events = chat(address, &body).events();
    for index in 0..2 {
        let of: Vec<&Json> =
            events.iter().map(|event| &event["choices"][0]).filter(|choice| choice["index"] == index).collect();
        assert_eq!(of[0]["delta"], json!({ "role": "assistant", "content": "" }));
        let (last, before) = of.split_last().unwrap();
        assert_eq!((&last["delta"], &last["finish_reason"]), (&json!({}), &json!("length")));
        assert!(before.iter().all(|choice| choice["finish_reason"].is_null()));
        assert!(before[1..].iter().all(|choice| choice["delta"]["content"] != "" && choice["delta"]["role"].is_null()));
    }
    let ids: Vec<_> = events.iter().map(|event| &event["id"]).collect();
    assert!(ids.iter().all(|id| *id == ids[0] && id.as_str().unwrap().starts_with("chatcmpl-")));
}

#[test]
fn the_head_of_a_stream_says_what_it_is() {
    let reply = complete(shared().address, &json!({ "prompt": "a", "max_tokens": 1, "stream": true }));
    let expected = [("content-type", "text/event-stream"), ("cache-control", "no-cache"), ("x-accel-buffering", "no")];
    for (name, value) in expected {
        assert_eq!(reply.headers[name], value);
    }
    for name in ["x-request-id", "x-prompt-tokens", "x-seed"] {
        assert!(reply.headers.contains_key(name), "{name}");
    }
    assert!(
        reply.body.starts_with("data: {") && reply.body.ends_with("\n\ndata: [DONE]\n\n") && !reply.body.contains('\r')
    );
}

#[test]
fn s13_comments_flow_from_admission_on() {
    let server =
        scripted::start(scripted::slow(Duration::from_millis(400)), 4, |settings| settings.sse_keep_alive = 0.05);
    let mut client = Client::new(server.address);
    client.send("POST", "/v1/completions", &[], &json!({ "prompt": [5], "max_tokens": 2, "stream": true }).to_string());
    assert_eq!(client.head().unwrap().0, 200);
    assert_eq!(client.chunk().unwrap(), ": keep-alive\n\n", "before the first token");
    assert_eq!(client.chunk().unwrap(), ": keep-alive\n\n");
    let mut rest = String::new();
    while let Some(chunk) = client.chunk().filter(|chunk| !chunk.is_empty()) {
        rest += &chunk;
    }
    assert!(rest.ends_with("data: [DONE]\n\n"), "{rest}");
}

#[test]
fn s24_a_failure_in_the_middle_is_one_event_and_the_end() {
    let script = Script { panics_at_step: Some(3), ..scripted::slow(Duration::from_millis(20)) };
    let server = scripted::start(script, 4, |settings| settings.fail_grace = 30.0);
    let events = complete(server.address, &json!({ "prompt": [5], "max_tokens": 50, "stream": true })).events();
    let (last, before) = events.split_last().unwrap();
    assert_eq!((&last["error"]["code"], &last["error"]["type"]), (&json!("engine_failed"), &json!("overloaded_error")));
    assert!(!before.is_empty() && before.iter().all(|event| event["choices"][0]["finish_reason"].is_null()));
    until("the server is not healthy", || get(server.address, "/health").status == 503);
    assert_eq!(get(server.address, "/live").status, 200);
    complete(server.address, &json!({ "prompt": [5] })).error(503, "engine_failed", None);
}

#[test]
fn a_connection_goes_on_after_a_stream() {
    let mut client = Client::new(shared().address);
    for _ in 0..3 {
        let body = json!({ "prompt": "a", "max_tokens": 2, "stream": true }).to_string();
        let reply = client.request("POST", "/v1/completions", &[], &body);
        assert!(!reply.events().is_empty());
        assert_eq!(client.request("GET", "/live", &[], "").status, 200);
    }
}
