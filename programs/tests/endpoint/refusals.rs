//! Servers without room, without a key, without a model, or without being there.

use std::net::TcpListener;

use serde_json::json;

use crate::scripted::{Received, Scripted, obliging, whole};
use crate::{bench_engine, measured, number, refused, text};

#[test]
fn a_full_server_is_a_result() {
    let server = Scripted::start(|number, received| match number {
        2 | 3 => whole(
            503,
            &["Retry-After: 4"],
            &json!({ "error": { "message": "the queue is full", "code": "queue_full" } }),
        ),
        5 => whole(429, &["Retry-After: 9"], &json!({ "error": { "message": "too many" } })),
        _ => obliging(received),
    });
    let arguments = ["--requests", "8", "--concurrency", "1", "--output-len", "2"];
    let report = measured(server.address, &arguments);
    let run = &report["runs"][0];
    assert_eq!((number(run, "/answered"), number(run, "/refused"), number(run, "/failed")), (5.0, 3.0, 0.0));
    assert_eq!((number(run, "/retry_after/min"), number(run, "/retry_after/max")), (4.0, 9.0));
    assert_eq!(number(run, "/time_to_first_token/count"), 5.0);
    assert!((number(run, "/requests_per_second") - 5.0 / number(run, "/seconds")).abs() < 1e-6);
    assert_eq!(
        run["problems"],
        json!([
            { "count": 2, "status": 503, "message": "status 503: the queue is full" },
            { "count": 1, "status": 429, "message": "status 429: too many" },
        ])
    );

    // As a table, and where nobody is answered.
    let server = Scripted::start(|number, received| match number {
        0 => obliging(received),
        _ => whole(503, &["Retry-After: 2"], &json!({ "error": { "message": "the queue is full" } })),
    });
    let output = bench_engine(server.address, &arguments).output().unwrap();
    let table = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(table.contains("1 at a time, 8 requests: status 503: the queue is full"), "{table}");
    assert!(table.contains("2 to 2"), "{table}");
}

#[test]
fn the_key_is_sent_and_never_told() {
    let wants_key = |received: &Received| match received.header("authorization") {
        Some("Bearer k-secret") => obliging(received),
        _ => whole(401, &[], &json!({ "error": { "message": "no such key" } })),
    };
    let server = Scripted::start(move |_, received| wants_key(received));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    std::fs::write(&path, "k-secret\n").unwrap();
    let file = ["--api-key-file", path.to_str().unwrap(), "--requests", "2"];
    let report = measured(server.address, &file);
    assert!(!report.to_string().contains("k-secret"));
    let by_variable = bench_engine(server.address, &["--requests", "2"]).env("OPENAI_API_KEY", "k-secret").output();
    let output = by_variable.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(!text(&output.stdout).contains("k-secret") && !text(&output.stderr).contains("k-secret"));
    refused(server.address, &[], 2, &["status 401: no such key", "--api-key-file", "OPENAI_API_KEY"]);
    std::fs::write(&path, "").unwrap();
    refused(server.address, &file, 2, &["holds no key"]);
}

#[test]
fn what_stands_in_the_way_of_all_is_said_once() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    refused(nobody, &[], 1, &[&format!("http://{nobody}/v1/models"), "is the server running?"]);
    let server =
        Scripted::start(|_, _| whole(404, &[], &json!({ "error": { "message": "the model `x` does not exist" } })));
    refused(server.address, &["--model", "x"], 2, &["warm-up", "status 404: the model `x` does not exist"]);
    let server =
        Scripted::start(|_, _| whole(503, &[], &json!({ "error": { "message": "the engine is being opened" } })));
    refused(server.address, &[], 1, &["warm-up", "the engine is being opened"]);
    // Every form is refused: the first refusal is the telling one.
    let server =
        Scripted::start(|number, _| whole(400, &[], &json!({ "error": { "message": format!("refusal {number}") } })));
    refused(server.address, &[], 2, &["status 400: refusal 0"]);
}
