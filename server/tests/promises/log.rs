//! The log of requests: a line each, when it has ended.

use rustix::process::Signal;
use serde_json::{Value as Json, json};

use crate::common::client::{Client, metric, request};
use crate::common::engine::Server;
use crate::common::until;

fn send(server: &Server, id: &str, body: &Json) -> Client {
    let mut client = Client::new(server.address);
    let headers = [&*format!("X-Request-Id: {id}"), "Authorization: Bearer Secret"];
    client.send("POST", "/v1/completions", &headers, &body.to_string());
    client
}

#[test]
fn a_request_is_logged_when_its_answer_has_ended() {
    let arguments = ["--drain-grace", "0", "--drain-timeout", "0", "--log-format", "json"];
    let server = Server::start_with(&arguments, &[("SERVE_API_KEYS", "ann:Secret")]);
    for stream in [false, true] {
        let body = json!({ "prompt": ["the moon", "a"], "max_tokens": 3, "ignore_eos": true, "stream": stream });
        assert_eq!(send(&server, &format!("whole-{stream}"), &body).receive(true).unwrap().status, 200);
    }
    send(&server, "bad", &json!({ "prompt": 1.5 })).receive(true).unwrap().error(400, "invalid_value", Some("prompt"));
    request(server.address, "POST", "/v1/completions", &["X-Request-Id: nobody"], "{}");
    send(&server, "late", &json!({ "prompt": "a", "timeout": 1e-9 })).receive(true).unwrap();
    let long = json!({ "prompt": "a", "max_tokens": 1000, "ignore_eos": true, "n": 4, "stream": true });
    let mut gone = send(&server, "gone", &long);
    assert_eq!(gone.head().unwrap().0, 200);
    drop(gone);
    until("it was cancelled", || {
        metric(server.address, "serve_cancelled_total{model_name=\"demo\",cause=\"client\"") == 1.0
    });
    let mut last = send(&server, "last", &long);
    assert!(last.head().is_some() && last.chunk().is_some());
    server.signal(Signal::TERM);
    while last.chunk().is_some_and(|chunk| !chunk.is_empty()) {}
    let (status, said) = server.end();
    assert_eq!(status.code(), Some(0), "{said}");
    let lines: Vec<Json> = said
        .lines()
        .filter(|line| line.contains("\"answered\""))
        .map(|line| serde_json::from_str::<Json>(line).unwrap()["fields"].clone())
        .collect();
    let find = |id: &str| {
        let mut found = lines.iter().filter(|line| line["request"] == id);
        let line = found.next().unwrap_or_else(|| panic!("no {id} in {said}"));
        assert!(found.next().is_none() && line["route"] == "/v1/completions" && line["method"] == "POST", "{line}");
        line
    };
    for id in ["whole-false", "whole-true"] {
        let line = find(id);
        assert_eq!((&line["status"], &line["key"], &line["finish"]), (&json!(200), &json!("ann"), &json!("length")));
        assert_eq!((&line["generated_tokens"], line.get("cancelled_by"), line.get("error")), (&json!(6), None, None));
        assert!(line["prompt_tokens"].as_u64().unwrap() >= 2);
        let seconds = |name: &str| line[name].as_f64().unwrap();
        assert!(seconds("queue_seconds") <= seconds("ttft_seconds"), "{line}");
        // The end of a stream is later than its first token, and so is its line.
        assert!(seconds("ttft_seconds") < seconds("seconds"), "{line}");
    }
    let (bad, nobody, late) = (find("bad"), find("nobody"), find("late"));
    assert_eq!((&bad["status"], &bad["error"], &bad["key"]), (&json!(400), &json!("invalid_value"), &json!("ann")));
    assert_eq!(
        (&nobody["status"], &nobody["error"], nobody.get("key")),
        (&json!(401), &json!("invalid_api_key"), None)
    );
    assert_eq!((&late["status"], &late["error"]), (&json!(504), &json!("deadline_exceeded")));
    assert_eq!((&late["finish"], &late["cancelled_by"]), (&json!("timed_out"), &json!("deadline")));
    let (gone, last) = (find("gone"), find("last"));
    assert_eq!((&gone["status"], &gone["cancelled_by"], gone.get("error")), (&json!(200), &json!("client"), None));
    assert_eq!((&last["cancelled_by"], &last["error"]), (&json!("shutdown"), &json!("shutting_down")));
    for secret in ["the moon", "Secret"] {
        assert!(!said.contains(secret), "{said}");
    }
}
