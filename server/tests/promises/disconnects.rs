//! A client that has gone leaves nothing behind.

use std::net::Shutdown;
use std::time::Duration;

use serde_json::{Value as Json, json};

use crate::common::client::{Client, metric};
use crate::common::in_process::InProcess;
use crate::common::{scripted, until};

fn send(server: &InProcess, body: &Json) -> Client {
    let mut client = Client::new(server.address);
    client.send("POST", "/v1/completions", &[], &body.to_string());
    client
}

fn under_way(server: &InProcess) -> usize {
    server.state.model().unwrap().admission().under_way().0
}

fn active(server: &InProcess) -> usize {
    server.state.model().unwrap().session().executor().load().num_active_requests
}

#[test]
fn s05_a_client_that_goes_ends_its_request_streaming_or_not() {
    let server = scripted::start(scripted::slow(Duration::from_millis(5)), 4, |_| {});
    for (number, stream) in [true, false].into_iter().enumerate() {
        let body = json!({ "prompt": [[5], [6]], "max_tokens": 10_000, "stream": stream });
        let client = send(&server, &body);
        until("both requests run", || active(&server) == 2);
        drop(client);
        until("both requests have ended", || under_way(&server) == 0 && active(&server) == 0);
        let cancelled = metric(server.address, "serve_cancelled_total{model_name=\"scripted\",cause=\"client\"}");
        assert_eq!(cancelled, 2.0 * (number + 1) as f64);
    }
    assert_eq!(metric(server.address, "serve_sse_streams{"), 0.0);
}

#[test]
fn a_client_that_closes_its_half_has_gone() {
    let server = scripted::start(scripted::slow(Duration::from_millis(5)), 4, |_| {});
    let client = send(&server, &json!({ "prompt": [5], "max_tokens": 10_000 }));
    until("the request runs", || active(&server) == 1);
    client.socket.get_ref().shutdown(Shutdown::Write).unwrap();
    until("the request has ended", || under_way(&server) == 0);
}

#[test]
fn s06_a_client_that_goes_while_its_request_waits_frees_its_place() {
    let server = scripted::start(scripted::slow(Duration::from_millis(20)), 1, |_| {});
    let running = send(&server, &json!({ "prompt": [5], "max_tokens": 10_000, "stream": true }));
    until("one runs", || active(&server) == 1);
    let waiting: Vec<_> = (0..3).map(|_| send(&server, &json!({ "prompt": [5], "max_tokens": 10_000 }))).collect();
    until("three wait", || server.state.model().unwrap().session().executor().load().num_queued_requests == 3);
    drop(waiting);
    until("nobody waits", || under_way(&server) == 1);
    assert_eq!(server.state.model().unwrap().session().executor().load().num_queued_requests, 0);
    drop(running);
    until("nothing is left", || under_way(&server) == 0);
}
