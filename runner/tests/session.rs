//! A session over an executor that answers before it has returned, ends twice, or does not end at all.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::Path;
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use runner::executor::{
    EnqueueError, Executor, FinishReason, IterationStats, Limits, Request, RequestId, RequestSpec, Response, Shutdown,
    TokenId, TokenResult,
};
use runner::session::{Awaited, Output, Session, Submission};
use text::stop_strings::StopStrings;
use text::tokenizer::Tokenizer;

const LIMITS: Limits = Limits { max_seq_len: 64, max_batch_size: 8, max_num_tokens: 64 };

/// What an executor answers to the request of an id.
type Script = fn(RequestId, &Request) -> Vec<Response>;

/// Answers inside `enqueue`, which then takes its time to return.
struct Hasty {
    script: Script,
    state: Mutex<(u64, Vec<Response>, Vec<RequestId>, bool)>,
    ready: Condvar,
}

impl Hasty {
    fn new(script: Script) -> Arc<Self> {
        Arc::new(Self { script, state: Mutex::default(), ready: Condvar::new() })
    }
}

impl Executor for Hasty {
    fn limits(&self) -> Limits {
        LIMITS
    }

    fn vocab_size(&self) -> usize {
        1 << 20
    }

    fn enqueue(&self, request: Request) -> Result<RequestId, EnqueueError> {
        let mut state = self.state.lock().unwrap();
        if state.3 {
            return Err(EnqueueError::ShutDown);
        }
        let id = RequestId(state.0);
        state.0 += 1;
        state.1.extend((self.script)(id, &request));
        drop(state);
        self.ready.notify_all();
        std::thread::sleep(Duration::from_millis(2));
        Ok(id)
    }

    fn await_responses(&self, _: Option<Duration>) -> Vec<Response> {
        let mut state = self.state.lock().unwrap();
        while state.1.is_empty() && !state.3 {
            state = self.ready.wait(state).unwrap();
        }
        std::mem::take(&mut state.1)
    }

    fn cancel(&self, request: RequestId) {
        self.state.lock().unwrap().2.push(request);
    }

    fn iteration_stats(&self) -> Vec<IterationStats> {
        Vec::new()
    }

    fn shutdown(&self, _: Shutdown) {
        self.state.lock().unwrap().3 = true;
        self.ready.notify_all();
    }

    fn cancel_all(&self) {
        self.shutdown(Shutdown::Cancel);
    }
}

fn tokenizer() -> Arc<Tokenizer> {
    Arc::new(Tokenizer::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/tokenizer")).unwrap())
}

fn ids(text: &str) -> Vec<TokenId> {
    let tokenizer = tokenizer();
    text.chars().flat_map(|c| tokenizer.encode(&c.to_string(), false).unwrap()).collect()
}

fn submission(sequences: usize, stops: &[&str]) -> Submission {
    let mut spec = RequestSpec::new(vec![5], 50);
    spec.sampling.num_return_sequences = sequences;
    let mut submission = Submission::new(Request::new(spec, LIMITS, 1 << 20).unwrap());
    submission.stop_strings = StopStrings::new(stops.iter().map(|&stop| stop.to_owned()).collect()).unwrap();
    submission
}

fn tokens(id: RequestId, sequence_index: usize, text: &str, end: Option<bool>) -> Response {
    Response::Result(TokenResult {
        output_token_ids: ids(text),
        finish_reason: end.map(|_| FinishReason::Length),
        is_sequence_final: end.is_some(),
        ..TokenResult::ended(id, sequence_index, FinishReason::Length, end == Some(true))
    })
}

/// Waits until `requests` have ended.
fn outputs(session: &Session, requests: usize) -> Vec<Output> {
    let mut all: Vec<Output> = Vec::new();
    while all.iter().filter(|output| output.response.is_final()).count() < requests {
        match session.await_outputs(Some(Duration::from_secs(20))) {
            Awaited::Outputs(outputs) => all.extend(outputs),
            other => panic!("{other:?}"),
        }
    }
    all
}

fn texts(outputs: &[Output], id: u64) -> String {
    outputs.iter().filter(|output| output.response.request_id().0 == id).map(|output| output.text.as_str()).collect()
}

#[test]
fn answers_that_come_before_submit_returns_are_not_lost() {
    let executor = Hasty::new(|id, _| vec![tokens(id, 0, "one ", None), tokens(id, 0, "two", Some(true))]);
    let session = Arc::new(Session::start(executor, Some(tokenizer())).unwrap());
    let submit = |number: u64| {
        let session = session.clone();
        std::thread::spawn(move || {
            for _ in 0..10 {
                session.submit(Submission { tag: number, ..submission(1, &[]) }).unwrap();
            }
        })
    };
    let threads: Vec<_> = (0..8).map(submit).collect();
    let all = outputs(&session, 80);
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    for id in 0..80 {
        assert_eq!(texts(&all, id), "one two");
    }
    for number in 0..8 {
        let of_one = all.iter().filter(|output| output.tag == number);
        assert_eq!(of_one.filter(|output| output.response.is_final()).count(), 10);
    }
}

#[test]
fn a_stop_string_ends_a_sequence_and_the_last_one_its_request() {
    let executor = Hasty::new(|id, _| {
        vec![
            tokens(id, 0, "say sto", None),
            tokens(id, 1, "go on", None),
            tokens(id, 0, "p and more", None),
            tokens(id, 0, "still more", None),
            tokens(id, 1, " to stop it", None),
            tokens(id, 1, "", Some(false)),
            tokens(id, 0, "", Some(true)),
        ]
    });
    let session = Session::start(executor.clone(), Some(tokenizer())).unwrap();
    session.submit(submission(2, &["stop"])).unwrap();
    let all = outputs(&session, 1);
    let of = |sequence: usize| {
        let results = all.iter().filter_map(|output| match &output.response {
            Response::Result(result) if result.sequence_index == sequence => Some((output, result)),
            _ => None,
        });
        let (outputs, results): (Vec<_>, Vec<_>) = results.unzip();
        let text: String = outputs.iter().map(|output| output.text.as_str()).collect();
        let ids: Vec<_> = results.iter().flat_map(|result| result.output_token_ids.clone()).collect();
        let stats = outputs.last().unwrap().stats.unwrap();
        assert_eq!(stats.output_tokens, ids.len());
        assert_eq!(results.last().unwrap().finish_reason, Some(FinishReason::StopWords));
        assert_eq!(results.iter().filter(|result| result.is_sequence_final).count(), 1);
        (text, ids)
    };
    assert_eq!(of(0), ("say ".to_owned(), ids("say stop")));
    assert_eq!(of(1), ("go on to ".to_owned(), ids("go on to stop")));
    assert!(all.last().unwrap().response.is_final());
    assert_eq!(session.await_outputs(Some(Duration::from_millis(20))), Awaited::TimedOut);
    assert_eq!(executor.state.lock().unwrap().2, [RequestId(0)]);
}

#[test]
fn a_request_that_the_executor_forgets_ends_with_the_session() {
    let executor = Hasty::new(|id, _| vec![tokens(id, 0, "begun", None)]);
    let session = Session::start(executor, None).unwrap();
    let (sender, receiver) = channel();
    let on_output = Box::new(move |output: Output| sender.send(output.response.is_final()).unwrap());
    session.submit(Submission { on_output: Some(on_output), ..submission(1, &[]) }).unwrap();
    session.submit(submission(1, &[])).unwrap();
    assert!(!receiver.recv().unwrap());
    session.shutdown(Shutdown::Cancel);
    assert!(receiver.recv().unwrap());
    assert!(receiver.recv().is_err(), "the callback is dropped after the final output");
    let Awaited::Outputs(all) = session.await_outputs(None) else { panic!("nothing came") };
    assert!(matches!(all.last().unwrap().response, Response::Error { .. }));
    assert_eq!(session.await_outputs(None), Awaited::Closed);
    assert_eq!(session.submit(submission(1, &[])), Err(EnqueueError::ShutDown));
}

#[test]
fn an_error_ends_every_sequence_once() {
    let executor = Hasty::new(|request_id, _| {
        let error = || Response::Error { request_id, message: "it broke".to_owned() };
        vec![tokens(request_id, 0, "a", None), error(), error(), tokens(request_id, 1, "b", Some(true))]
    });
    let session = Session::start(executor, Some(tokenizer())).unwrap();
    session.submit(submission(2, &[])).unwrap();
    let all = outputs(&session, 1);
    assert_eq!(all.len(), 2);
    assert_eq!(session.await_outputs(Some(Duration::from_millis(20))), Awaited::TimedOut);
}
