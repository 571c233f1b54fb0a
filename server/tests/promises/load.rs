//! More than the server can do.

use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use crate::common::client::{Client, Reply, complete, get, metric, request};
use crate::common::in_process::InProcess;
use crate::common::{scripted, until};

fn send(server: &InProcess, body: &Json) -> Client {
    let mut client = Client::new(server.address);
    client.send("POST", "/v1/completions", &[], &body.to_string());
    client
}

#[test]
fn s09_a_full_server_refuses_at_once_and_says_when_to_come() {
    let server =
        scripted::start(scripted::slow(Duration::from_millis(20)), 2, |settings| settings.max_queued_requests = 2);
    let admission = || server.state.model().unwrap().admission().under_way().0;
    let clients: Vec<_> = (1..=4)
        .map(|count| {
            let client = send(&server, &json!({ "prompt": [5], "max_tokens": 10_000 }));
            until("it is admitted", || admission() == count);
            client
        })
        .collect();
    let reply = complete(server.address, &json!({ "prompt": [5] }));
    let said = reply.error(503, "queue_full", None);
    assert!(said.contains("4 sequences are under way") && said.contains("max_queued_requests"), "{said}");
    assert!((1..=60).contains(&reply.headers["retry-after"].parse::<u64>().unwrap()));
    assert_eq!(
        metric(server.address, "serve_admission_rejections_total{model_name=\"scripted\",reason=\"queue\"}"),
        1.0
    );
    assert_eq!(get(server.address, "/ready").status, 200, "a full queue is no reason not to be ready");
    drop(clients);
    until("there is room", || admission() == 0);
    complete(server.address, &json!({ "prompt": [5], "max_tokens": 1 })).ok();
}

#[test]
fn a_full_server_answers_as_it_was_told() {
    let server = scripted::start(scripted::slow(Duration::from_millis(20)), 1, |settings| {
        settings.max_queued_tokens = 50;
        settings.overload_status = 429;
    });
    let first = send(&server, &json!({ "prompt": [5], "max_tokens": 10_000 }));
    until("one runs", || {
        server.state.model().unwrap().admission().under_way() == (1, 0) || {
            let load = server.state.model().unwrap().session().executor().load();
            load.num_active_requests == 1
        }
    });
    let second = send(&server, &json!({ "prompt": vec![5; 40], "max_tokens": 10 }));
    until("another waits", || server.state.model().unwrap().admission().under_way().0 == 2);
    let reply = complete(server.address, &json!({ "prompt": vec![5; 40] }));
    assert!(reply.error(429, "queue_full", None).contains("max_queued_tokens"));
    drop((first, second));
}

#[test]
fn s11_time_in_the_queue_counts() {
    let server = scripted::start(scripted::slow(Duration::from_millis(20)), 1, |_| {});
    let running = send(&server, &json!({ "prompt": [5], "max_tokens": 10_000, "stream": true }));
    until("one runs", || server.state.model().unwrap().session().executor().load().num_active_requests == 1);
    let began = Instant::now();
    complete(server.address, &json!({ "prompt": [5], "timeout": 0.2 })).error(504, "deadline_exceeded", None);
    assert!(began.elapsed() >= Duration::from_millis(200));
    until("it has left the queue", || server.state.model().unwrap().admission().under_way().0 == 1);
    drop(running);
    // One that has tokens ends with what it has.
    until("nothing runs", || server.state.model().unwrap().admission().under_way().0 == 0);
    let answer = complete(server.address, &json!({ "prompt": [5], "max_tokens": 10_000, "timeout": 0.3 })).ok();
    let choice = &answer["choices"][0];
    assert_eq!((&choice["finish_reason"], &choice["stop_reason"]), (&json!("length"), &json!("timeout")));
}

#[test]
fn what_has_waited_too_long_is_refused() {
    let server =
        scripted::start(scripted::slow(Duration::from_millis(20)), 1, |settings| settings.max_queue_wait = 0.1);
    let mut running = send(&server, &json!({ "prompt": [5], "max_tokens": 10_000, "stream": true }));
    assert!(running.head().is_some() && running.chunk().is_some());
    let stream = send(&server, &json!({ "prompt": [5], "max_tokens": 1, "stream": true })).receive(true).unwrap();
    let events = stream.events();
    assert_eq!((events.len(), &events[0]["error"]["code"]), (1, &json!("queue_full")));
    let reply = complete(server.address, &json!({ "prompt": [5], "max_tokens": 1 }));
    assert!(reply.error(503, "queue_full", None).contains("0.1 s (max_queue_wait)"));
    assert!((1..=60).contains(&reply.headers["retry-after"].parse::<u64>().unwrap()));
    for line in [
        "serve_admission_rejections_total{model_name=\"scripted\",reason=\"wait\"}",
        "serve_cancelled_total{model_name=\"scripted\",cause=\"queue\"}",
    ] {
        until(line, || metric(server.address, line) == 2.0);
    }
    until("they have left the queue", || server.state.model().unwrap().admission().under_way().0 == 1);
    assert!(running.chunk().is_some_and(|chunk| chunk.starts_with("data: ")), "what runs goes on");
}

#[test]
fn s29_health_answers_while_every_place_is_taken() {
    let server = scripted::start(scripted::slow(Duration::from_millis(50)), 8, |_| {});
    let clients: Vec<_> =
        (0..32).map(|_| send(&server, &json!({ "prompt": [5], "max_tokens": 10_000, "stream": true }))).collect();
    until("all are admitted", || server.state.model().unwrap().admission().under_way().0 == 32);
    for path in ["/health", "/live", "/ready", "/metrics"] {
        assert_eq!(get(server.address, path).status, 200, "{path}");
    }
    drop(clients);
}

#[test]
fn a_key_has_so_much_in_a_minute() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    std::fs::write(&keys, "requests:a\ntokens:b\nlow:c\nfree:d\n").unwrap();
    let server = scripted::start(scripted::slow(Duration::ZERO), 4, |settings| {
        settings.api_key_file = keys.display().to_string();
        let limits = toml::from_str(
            "requests = { requests_per_minute = 2 }
             tokens = { tokens_per_minute = 1000 }
             low = { max_priority = 0.25, max_requests = 1 }",
        );
        settings.keys = limits.unwrap();
    });
    let ask = |key: &str, body: &Json| {
        let headers = [&*format!("Authorization: Bearer {key}")];
        request(server.address, "POST", "/v1/completions", &headers, &body.to_string())
    };
    let header = |reply: &Reply, name: &str| reply.headers.get(&format!("x-ratelimit-{name}")).cloned();
    let short = json!({ "prompt": [5], "max_tokens": 1 });
    for left in ["1", "0"] {
        let reply = ask("a", &short);
        assert_eq!((reply.status, header(&reply, "remaining-requests").as_deref()), (200, Some(left)));
        assert_eq!(header(&reply, "limit-requests").as_deref(), Some("2"));
        assert_eq!(header(&reply, "limit-tokens"), None);
    }
    let reply = ask("a", &short);
    assert!(reply.error(429, "rate_limited", None).contains("requests_per_minute"));
    assert!((1..=30).contains(&reply.headers["retry-after"].parse::<u64>().unwrap()), "{reply:?}");
    assert!(header(&reply, "reset-requests").unwrap().ends_with('s'));
    // What may come is charged, and what has not come is given back: else the second would have to wait for most of a minute.
    for stream in [false, true] {
        let body = json!({ "prompt": [5], "max_tokens": 950, "stop_token_ids": [100], "stream": stream });
        until("what was not used is given back", || ask("b", &body).status == 200);
    }
    until("and again", || ask("b", &json!({ "prompt": [5], "max_tokens": 980 })).status == 200);
    let reply = ask("b", &json!({ "prompt": [5], "max_tokens": 900 }));
    assert!(reply.error(429, "rate_limited", None).contains("this needs 901 (tokens_per_minute)"));
    assert_eq!(ask("c", &json!({ "prompt": [5], "max_tokens": 1, "priority": 0.25 })).status, 200);
    let said = ask("c", &json!({ "prompt": [5], "priority": 0.5 })).error(400, "invalid_value", Some("priority"));
    assert!(said.contains("0.25 (max_priority)"), "{said}");
    let reply = ask("d", &short);
    assert!(reply.status == 200 && !reply.headers.keys().any(|name| name.starts_with("x-ratelimit")), "{reply:?}");
    let line = "serve_admission_rejections_total{model_name=\"scripted\",reason=\"key\"}";
    assert!(metric(server.address, line) >= 2.0);
}

#[test]
fn a_key_has_so_many_requests_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    std::fs::write(&keys, "one:a\ntwo:b\n").unwrap();
    let server = scripted::start(scripted::slow(Duration::from_millis(20)), 4, |settings| {
        settings.api_key_file = keys.display().to_string();
        settings.max_requests_per_key = 1;
    });
    let ask = |key: &str, body: &Json| {
        let mut client = Client::new(server.address);
        client.send("POST", "/v1/completions", &[&format!("Authorization: Bearer {key}")], &body.to_string());
        client
    };
    let mut running = ask("a", &json!({ "prompt": [5], "max_tokens": 10_000, "stream": true }));
    assert_eq!(running.head().unwrap().0, 200);
    let short = json!({ "prompt": [5], "max_tokens": 1 });
    let reply = ask("a", &short).receive(true).unwrap();
    reply.error(429, "too_many_requests", None);
    assert!(reply.headers.contains_key("retry-after"));
    assert_eq!(ask("b", &short).receive(true).unwrap().status, 200, "another key's place");
    drop(running);
    until("the place is free", || ask("a", &short).receive(true).unwrap().status == 200);
}
