//! An executor that returns the log-probabilities of chosen tokens only, as TensorRT-LLM's where an engine does not gather logits.

use std::sync::Arc;
use std::time::Duration;

use engine_format::manifest::Limits;
use runner::executor::{EnqueueError, Executor, IterationStats, Load, Request, RequestId, Response, Shutdown};
use runner::session::Session;
use serde_json::{Value as Json, json};
use server::model::Parts;

use crate::common::client::{chat, complete};
use crate::common::engine::{open, shared};
use crate::common::in_process::InProcess;

struct ChosenOnly(Arc<dyn Executor>);

impl Executor for ChosenOnly {
    fn enqueue(&self, request: Request) -> Result<RequestId, EnqueueError> {
        if request.spec().output.top_log_probs > 0 {
            return Err(EnqueueError::Unsupported {
                executor: "this one",
                field: Some("top_log_probs"),
                feature: "top_log_probs".to_owned(),
            });
        }
        self.0.enqueue(request)
    }

    fn limits(&self) -> Limits {
        self.0.limits()
    }

    fn vocab_size(&self) -> usize {
        self.0.vocab_size()
    }

    fn await_responses(&self, timeout: Option<Duration>) -> Vec<Response> {
        self.0.await_responses(timeout)
    }

    fn cancel(&self, request: RequestId) {
        self.0.cancel(request);
    }

    fn cancel_sequence(&self, request: RequestId, sequence_index: usize) {
        self.0.cancel_sequence(request, sequence_index);
    }

    fn load(&self) -> Load {
        self.0.load()
    }

    fn iteration_stats(&self) -> Vec<IterationStats> {
        self.0.iteration_stats()
    }

    fn shutdown(&self, how: Shutdown) {
        self.0.shutdown(how);
    }

    fn cancel_all(&self) {
        self.0.cancel_all();
    }
}

fn serve() -> InProcess {
    let (engine, config) = open();
    let executor: Arc<dyn Executor> = Arc::new(ChosenOnly(engine.executor()));
    let session = Arc::new(Session::start(executor, engine.tokenizer().cloned()).unwrap());
    let tokens_per_block = config.kv_cache.tokens_per_block;
    InProcess::start(
        Parts { session, engine: Some(Arc::new(engine)), name: "engine".to_owned(), tokens_per_block },
        |_| (),
    )
}

/// The best two of a token, of which the first is wanted.
fn best(choice: &Json) -> Json {
    choice["logprobs"]["content"].as_array().map_or_else(
        || choice["logprobs"]["top_logprobs"].as_array().unwrap().iter().map(first).collect(),
        |content| content.iter().map(|token| token["top_logprobs"][0].clone()).collect(),
    )
}

fn first(top: &Json) -> Json {
    let first = top
        .as_object()
        .and_then(|top| top.iter().max_by(|a, b| a.1.as_f64().unwrap().total_cmp(&b.1.as_f64().unwrap())));
    json!(first)
}

#[test]
fn evaluations_get_their_most_probable_tokens_all_the_same() {
    let server = serve();
    // As lm-evaluation-harness asks.
    let mut body = json!({
        "prompt": [[1, 20, 30, 44]], "max_tokens": 1, "temperature": 0, "echo": true, "logprobs": 1, "seed": 1234,
    });
    let given = complete(server.address, &body).ok()["choices"][0].clone();
    assert_eq!(given["logprobs"]["top_logprobs"].as_array().unwrap().len(), 5);
    body["logprobs"] = json!(2);
    assert_eq!(best(&given), best(&complete(shared().address, &body).ok()["choices"][0]));

    let mut body = json!({
        "messages": [{ "role": "user", "content": "Mars" }], "max_tokens": 4, "temperature": 0, "logprobs": true, "top_logprobs": 1,
    });
    let given = chat(server.address, &body).ok()["choices"][0].clone();
    body["top_logprobs"] = json!(2);
    assert_eq!(best(&given), best(&chat(shared().address, &body).ok()["choices"][0]));
}

#[test]
fn what_is_not_the_chosen_token_is_refused() {
    let server = serve();
    let greedy = json!({ "prompt": "Mars is", "max_tokens": 2, "temperature": 0, "logprobs": 1 });
    complete(server.address, &greedy).ok();
    for (field, value) in [
        ("logprobs", json!(2)),
        ("temperature", json!(1)),
        ("repetition_penalty", json!(1.2)),
        ("presence_penalty", json!(0.5)),
        ("frequency_penalty", json!(0.5)),
        ("no_repeat_ngram_size", json!(2)),
        ("min_tokens", json!(1)),
        ("logit_bias", json!({ "5": 1 })),
        ("bad_words", json!(["moon"])),
        ("allowed_token_ids", json!([5, 6])),
        ("guided_regex", json!("a+")),
    ] {
        let mut body = greedy.clone();
        body[field] = value;
        assert_eq!(complete(server.address, &body).status, 400, "{field}");
    }
}
