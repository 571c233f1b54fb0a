//! The order of the server's end.

use std::time::Duration;

use serde_json::{Value as Json, json};
use server::operations::{Outcome, Phase, Signal};

use crate::common::client::{Client, complete, get};
use crate::common::in_process::InProcess;
use crate::common::{scripted, until};

fn send(server: &InProcess, body: &Json) -> Client {
    let mut client = Client::new(server.address);
    client.send("POST", "/v1/completions", &[], &body.to_string());
    client
}

#[test]
fn s25_readiness_falls_first_and_requests_are_served_in_the_grace() {
    let server = scripted::start(scripted::slow(Duration::from_millis(5)), 4, |settings| settings.drain_grace = 1.0);
    let mut idle = Client::new(server.address);
    assert_eq!(idle.request("GET", "/live", &[], "").status, 200);
    server.signals.send(Signal::Terminate).unwrap();
    until("it is not ready", || get(server.address, "/ready").status == 503);
    assert_eq!(get(server.address, "/health").status, 503);
    complete(server.address, &json!({ "prompt": [5], "max_tokens": 2 })).ok();
    assert_eq!(server.ended(), Outcome::Drained);
    assert!(idle.receive(true).is_none(), "an idle connection is closed");
}

#[test]
fn s26_what_runs_ends_and_what_comes_is_refused() {
    let server = scripted::start(scripted::slow(Duration::from_millis(10)), 4, |_| {});
    let mut running = send(&server, &json!({ "prompt": [5], "max_tokens": 60, "stream": true }));
    assert_eq!(running.head().unwrap().0, 200);
    let mut other = Client::new(server.address);
    assert_eq!(other.request("GET", "/live", &[], "").status, 200);
    server.signals.send(Signal::Terminate).unwrap();
    until("it refuses", || server.state.lifecycle.phase() == Phase::Refusing);
    let reply = complete(server.address, &json!({ "prompt": [5] }));
    reply.error(503, "shutting_down", None);
    assert_eq!(reply.headers["connection"], "close");
    let mut text = String::new();
    while let Some(chunk) = running.chunk().filter(|chunk| !chunk.is_empty()) {
        text += &chunk;
    }
    assert!(text.contains("\"finish_reason\":\"length\"") && text.ends_with("data: [DONE]\n\n"), "{text}");
    assert_eq!(server.ended(), Outcome::Drained);
}

#[test]
fn s26_what_has_not_ended_in_time_is_cancelled_with_an_error() {
    let server = scripted::start(scripted::slow(Duration::from_millis(10)), 4, |settings| settings.drain_timeout = 0.2);
    let mut stream = send(&server, &json!({ "prompt": [5], "max_tokens": 10_000, "stream": true }));
    let mut whole = send(&server, &json!({ "prompt": [5], "max_tokens": 10_000 }));
    assert_eq!(stream.head().unwrap().0, 200);
    until("both run", || server.state.model().unwrap().session().executor().load().num_active_requests == 2);
    server.signals.send(Signal::Terminate).unwrap();
    let mut text = String::new();
    while let Some(chunk) = stream.chunk().filter(|chunk| !chunk.is_empty()) {
        text += &chunk;
    }
    assert!(text.contains("\"code\":\"shutting_down\"") && text.ends_with("data: [DONE]\n\n"), "{text}");
    whole.receive(true).unwrap().error(503, "shutting_down", None);
    assert_eq!(server.ended(), Outcome::Drained);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let server =
        scripted::start(scripted::slow(Duration::from_millis(10)), 4, |settings| settings.drain_timeout = 1000.0);
    let mut whole = send(&server, &json!({ "prompt": [5], "max_tokens": 10_000 }));
    until("it runs", || server.state.model().unwrap().session().executor().load().num_active_requests == 1);
    server.signals.send(Signal::Interrupt).unwrap();
    until("it refuses", || server.state.lifecycle.phase() == Phase::Refusing);
    server.signals.send(Signal::Interrupt).unwrap();
    whole.receive(true).unwrap().error(503, "shutting_down", None);
    assert_eq!(server.ended(), Outcome::Interrupted);
}
