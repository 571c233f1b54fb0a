//! Overload, and work beside streams: what is counted is work, not time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use runner::scripted_model::Script;
use serde_json::json;

use crate::common::client::{Client, complete, metric};
use crate::common::{scripted, until};

/// Holds who comes until it is opened, and says whether anybody has come.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<(bool, bool)>, Condvar)>);

impl Gate {
    fn pass(&self) {
        let mut state = self.0.0.lock().unwrap();
        state.1 = true;
        while !state.0 {
            state = self.0.1.wait(state).unwrap();
        }
    }

    fn open(&self) {
        self.0.0.lock().unwrap().0 = true;
        self.0.1.notify_all();
    }

    fn has_somebody(&self) -> bool {
        self.0.0.lock().unwrap().1
    }
}

/// A script that goes on when the gate is open, and counts the tokens that it computes.
fn gated(gate: &Gate, computed: &Arc<AtomicUsize>) -> Script {
    let (gate, computed) = (gate.clone(), computed.clone());
    let next_token = move |_: &[runner::executor::TokenId]| {
        gate.pass();
        computed.fetch_add(1, Ordering::Relaxed);
        100
    };
    Script { next_token: Box::new(next_token), ..scripted::slow(Duration::ZERO) }
}

/// Offers so many requests at once to a server of which four run and four wait: the tokens and iterations that it cost.
fn offered(count: usize) -> (usize, f64) {
    const ADMITTED: usize = 8;
    let (gate, computed) = (Gate::default(), Arc::new(AtomicUsize::new(0)));
    let server = scripted::start(gated(&gate, &computed), 4, |settings| settings.max_queued_requests = 4);
    let body = json!({ "prompt": [5], "max_tokens": 16 }).to_string();
    let send = || {
        let mut client = Client::new(server.address);
        client.send("POST", "/v1/completions", &[], &body);
        client
    };
    let under_way = || server.state.model().unwrap().admission().under_way().0;
    let mut admitted = vec![send()];
    until("the first is worked on", || gate.has_somebody());
    admitted.extend((1..ADMITTED).map(|_| send()));
    let with_the_executor = || {
        let load = server.state.model().unwrap().session().executor().load();
        load.num_queued_requests + load.num_active_requests
    };
    until("so many are admitted", || (under_way(), with_the_executor()) == (ADMITTED, ADMITTED));
    let refused: Vec<_> = (ADMITTED..count).map(|_| send()).collect();
    for mut client in refused {
        let reply = client.receive(true).unwrap();
        reply.error(503, "queue_full", None);
        assert!(reply.headers.contains_key("retry-after"));
    }
    gate.open();
    for mut client in admitted {
        assert_eq!(client.receive(true).unwrap().ok()["usage"]["completion_tokens"], 16);
    }
    until("nothing runs", || under_way() == 0 && metric(server.address, "trtllm_num_requests_running{") == 0.0);
    let line = "serve_admission_rejections_total{model_name=\"scripted\",reason=\"queue\"}";
    assert_eq!(metric(server.address, line), (count - ADMITTED) as f64);
    (computed.load(Ordering::Relaxed), metric(server.address, "trtllm_iteration_latency_seconds_count{"))
}

#[test]
fn s10_overload_sheds_and_what_is_admitted_costs_what_it_would_alone() {
    let alone = offered(8);
    assert_eq!(alone.0, 8 * 16);
    assert_eq!(offered(80), alone);
}

#[test]
fn s28_streams_go_on_while_no_request_can_be_prepared() {
    let (gate, computed) = (Gate::default(), Arc::new(AtomicUsize::new(0)));
    let server = scripted::start(gated(&gate, &computed), 4, |settings| settings.prepare_threads = 2);
    let mut streams: Vec<_> = (0..3)
        .map(|_| {
            let mut client = Client::new(server.address);
            let body = json!({ "prompt": [5], "max_tokens": 200, "stream": true });
            client.send("POST", "/v1/completions", &[], &body.to_string());
            assert_eq!(client.head().unwrap().0, 200);
            client
        })
        .collect();
    // Preparations that take as long as the test says, on every thread for them.
    let held = Gate::default();
    let (begin, begun) = std::sync::mpsc::channel();
    for _ in 0..2 {
        let (state, held, begin) = (server.state.clone(), held.clone(), begin.clone());
        server.http.runtime().spawn(async move {
            let job = move || {
                begin.send(()).unwrap();
                held.pass();
            };
            state.pool.run(job).await
        });
        begun.recv().unwrap();
    }
    let mut waiting = Client::new(server.address);
    waiting.send("POST", "/v1/completions", &[], &json!({ "prompt": [5], "max_tokens": 1 }).to_string());
    until("it is to be prepared", || server.state.metrics.preparing.get() == 1);
    gate.open();
    for stream in &mut streams {
        let mut text = String::new();
        while let Some(chunk) = stream.chunk().filter(|chunk| !chunk.is_empty()) {
            text += &chunk;
        }
        assert!(text.contains("\"finish_reason\":\"length\"") && text.ends_with("data: [DONE]\n\n"), "{text}");
    }
    assert_eq!(computed.load(Ordering::Relaxed), 3 * 200, "nothing but the streams was worked on");
    held.open();
    waiting.receive(true).unwrap().ok();
    complete(server.address, &json!({ "prompt": [5], "max_tokens": 1 })).ok();
}
