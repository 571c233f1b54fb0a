//! A session over an executor that answers before it has returned, ends twice, or does not end at all.

#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::path::Path;
use std::sync::mpsc::channel;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use runner::executor::{
    EnqueueError, Executor, FinishReason, IterationStats, Limits, Load, Logits, LogitsPostProcessor, Request,
    RequestId, RequestSpec, Response, Shutdown, TokenId, TokenResult,
};
use runner::session::{Awaited, Destination, Output, Session, StopReason, Submission};
use text::stop_strings::StopStrings;
use text::tokenizer::LazyTokenizer;

mod hooks;
mod queues;

const LIMITS: Limits = Limits { max_seq_len: 64, max_batch_size: 8, max_num_tokens: 64 };

/// What an executor answers to the request of an id.
type Script = fn(RequestId, &Request) -> Vec<Response>;

/// Answers inside `enqueue`, which then takes its time to return.
struct Hasty {
    script: Script,
    state: Mutex<State>,
    ready: Condvar,
}

#[derive(Default)]
struct State {
    enqueued: u64,
    responses: Vec<Response>,
    /// Whole requests, or sequences of them.
    cancelled: Vec<(RequestId, Option<usize>)>,
    is_shut_down: bool,
    /// Whether requests were asked to stream.
    streaming: Vec<bool>,
    /// The logits post-processors of requests.
    hooks: Vec<LogitsPostProcessor>,
    /// Whether it panics as soon as it is asked for the responses of a request.
    is_broken: bool,
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
        if state.is_shut_down {
            return Err(EnqueueError::ShutDown);
        }
        state.streaming.push(request.spec().streaming);
        state.hooks.extend(request.spec().logits_post_processor.clone());
        let id = RequestId(state.enqueued);
        state.enqueued += 1;
        state.responses.extend((self.script)(id, &request));
        drop(state);
        self.ready.notify_all();
        std::thread::sleep(Duration::from_millis(2));
        Ok(id)
    }

    fn await_responses(&self, _: Option<Duration>) -> Vec<Response> {
        let mut state = self.state.lock().unwrap();
        while state.responses.is_empty() && !state.is_shut_down {
            state = self.ready.wait(state).unwrap();
        }
        let (responses, is_broken) = (std::mem::take(&mut state.responses), state.is_broken);
        drop(state);
        if is_broken {
            std::thread::sleep(Duration::from_millis(20));
            panic!("the executor is broken");
        }
        responses
    }

    fn cancel(&self, request: RequestId) {
        self.state.lock().unwrap().cancelled.push((request, None));
    }

    fn cancel_sequence(&self, request: RequestId, sequence_index: usize) {
        self.state.lock().unwrap().cancelled.push((request, Some(sequence_index)));
    }

    fn load(&self) -> Load {
        Load::default()
    }

    fn iteration_stats(&self) -> Vec<IterationStats> {
        Vec::new()
    }

    fn shutdown(&self, _: Shutdown) {
        self.state.lock().unwrap().is_shut_down = true;
        self.ready.notify_all();
    }

    fn cancel_all(&self) {
        self.shutdown(Shutdown::Cancel);
    }
}

fn tokenizer() -> LazyTokenizer {
    LazyTokenizer::of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/tokenizer"))
}

fn ids(text: &str) -> Vec<TokenId> {
    let tokenizer = tokenizer();
    let tokenizer = tokenizer.get().unwrap();
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
    assert_eq!(executor.state.lock().unwrap().cancelled, [(RequestId(0), Some(0)), (RequestId(0), None)]);
}

#[test]
fn a_request_that_the_executor_forgets_ends_with_the_session() {
    let executor = Hasty::new(|id, _| vec![tokens(id, 0, "begun", None)]);
    let session = Session::start(executor, None).unwrap();
    let (sender, receiver) = channel();
    let on_output = Box::new(move |output: Output| {
        sender.send(output.response.is_final()).unwrap();
        Ok(())
    });
    let destination = Destination::Callback(on_output);
    session.submit(Submission { destination, ..submission(1, &[]) }).unwrap();
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
    assert_eq!(all[1].sequence_index, 0);
    assert_eq!(session.await_outputs(Some(Duration::from_millis(20))), Awaited::TimedOut);
}

#[test]
fn an_error_names_the_first_sequence_that_it_ends() {
    let executor = Hasty::new(|request_id, _| {
        let error = Response::Error { request_id, message: "it broke".to_owned() };
        vec![tokens(request_id, 0, "a", Some(false)), tokens(request_id, 1, "b", None), error]
    });
    let session = Session::start(executor, Some(tokenizer())).unwrap();
    session.submit(submission(3, &[])).unwrap();
    let all = outputs(&session, 1);
    let last = all.last().unwrap();
    assert!(matches!(last.response, Response::Error { .. }));
    assert_eq!(last.sequence_index, 1);
}

#[test]
fn what_ended_a_sequence_is_named() {
    let of = |change: fn(&mut RequestSpec), seed, stops: &[&str]| {
        // The seed tells the executor why the sequence is to end.
        let executor = Hasty::new(|request_id, request| {
            let Response::Result(result) = tokens(request_id, 0, "abc", Some(true)) else { unreachable!() };
            let reasons = [FinishReason::Length, FinishReason::EndId, FinishReason::StopWords];
            let reason = reasons[request.spec().sampling.seed as usize];
            vec![Response::Result(TokenResult { finish_reason: Some(reason), ..result })]
        });
        let session = Session::start(executor, Some(tokenizer())).unwrap();
        let mut submission = submission(1, stops);
        let mut spec = submission.request.spec().clone();
        change(&mut spec);
        spec.sampling.seed = seed;
        submission.request = Request::new(spec, LIMITS, 1 << 20).unwrap();
        session.submit(submission).unwrap();
        outputs(&session, 1).remove(0).stop_reason.map(|reason| *reason)
    };
    let c = ids("c");
    assert_eq!(of(|spec| spec.end_ids = ids("xc"), 1, &[]), Some(StopReason::Tokens(c.clone())));
    let words = |spec: &mut RequestSpec| spec.stop_words = vec![ids("c"), ids("x"), ids("bc")];
    assert_eq!(of(words, 2, &[]), Some(StopReason::Tokens(ids("bc"))));
    // A word may begin in the prompt, which is the token 5.
    let across = |spec: &mut RequestSpec| spec.stop_words = vec![[vec![5], ids("abc")].concat()];
    assert_eq!(of(across, 2, &[]), Some(StopReason::Tokens([vec![5], ids("abc")].concat())));
    assert_eq!(of(words, 0, &["b"]), Some(StopReason::Text("b".to_owned())));
    assert_eq!(of(|_| {}, 0, &["z"]), None);
    // A guide that must end, without an end id.
    assert_eq!(of(|_| {}, 1, &[]), None);
}

/// A submission that does not stream.
fn whole(sequences: usize, stops: &[&str]) -> Submission {
    let spec = submission(sequences, &[]).request.spec().clone();
    let request = Request::new(RequestSpec { streaming: false, ..spec }, LIMITS, 1 << 20).unwrap();
    Submission { request, ..submission(sequences, stops) }
}

fn result(output: &Output) -> &TokenResult {
    match &output.response {
        Response::Result(result) => result,
        Response::Error { message, .. } => panic!("{message}"),
    }
}

#[test]
fn a_stop_string_stops_without_streaming_too() {
    let executor = Hasty::new(|id, _| {
        let mut first = tokens(id, 0, "say ", None);
        if let Response::Result(result) = &mut first {
            result.log_probs = Some(vec![-1.0; 4]);
            result.prompt_log_probs = Some(vec![-3.0]);
            result.generation_logits = Some(Logits { vocab_size: 2, values: vec![0.5; 8] });
        }
        let mut second = tokens(id, 0, "stop and more", None);
        if let Response::Result(result) = &mut second {
            result.log_probs = Some(vec![-0.5; 13]);
            result.generation_logits =
                Some(Logits { vocab_size: 2, values: (0..26).map(|number| number as f32).collect() });
        }
        vec![first, second]
    });
    let session = Session::start(executor.clone(), Some(tokenizer())).unwrap();
    session.submit(whole(1, &["stop"])).unwrap();
    let all = outputs(&session, 1);
    let [output] = &all[..] else { panic!("one output, not {}", all.len()) };
    assert_eq!((output.text.as_str(), &result(output).output_token_ids), ("say ", &ids("say stop")));
    assert_eq!(result(output).finish_reason, Some(FinishReason::StopWords));
    assert_eq!(result(output).log_probs.as_ref().map(Vec::len), Some(8));
    assert_eq!(result(output).cum_log_prob, Some(-6.0), "of the tokens that are kept");
    assert_eq!(result(output).prompt_log_probs, Some(vec![-3.0]));
    let logits = result(output).generation_logits.as_ref().unwrap();
    assert_eq!((logits.rows(), logits.values.last()), (8, Some(&7.0)), "those of the tokens that are kept");
    assert_eq!(output.stats.unwrap().output_tokens, 8);
    let state = executor.state.lock().unwrap();
    assert_eq!((&state.streaming[..], &state.cancelled[..]), (&[true][..], &[(RequestId(0), None)][..]));
}

#[test]
fn without_stop_strings_the_executor_is_asked_as_the_host_asks() {
    let executor = Hasty::new(|id, _| vec![tokens(id, 0, "all of it", Some(true))]);
    let session = Session::start(executor.clone(), Some(tokenizer())).unwrap();
    session.submit(whole(1, &[])).unwrap();
    session.submit(submission(1, &["x"])).unwrap();
    outputs(&session, 2);
    assert_eq!(executor.state.lock().unwrap().streaming, [false, true]);
}

#[test]
fn a_callback_that_panics_ends_its_own_request_only() {
    let executor = Hasty::new(|id, _| vec![tokens(id, 0, "one ", None), tokens(id, 0, "two", Some(true))]);
    let session = Session::start(executor.clone(), Some(tokenizer())).unwrap();
    struct Loud;
    impl Drop for Loud {
        fn drop(&mut self) {
            panic!("what the callback owns panics as it is dropped");
        }
    }
    let loud = Loud;
    let destination = Destination::Callback(Box::new(move |_| {
        let _owned = &loud;
        panic!("the callback panics");
    }));
    let panicking = session.submit(Submission { destination, ..submission(1, &[]) }).unwrap();
    // What it panics with may panic as it is dropped.
    let destination = Destination::Callback(Box::new(|_| std::panic::panic_any(Loud)));
    let louder = session.submit(Submission { destination, ..submission(1, &[]) }).unwrap();
    let other = session.submit(submission(1, &[])).unwrap();
    assert_eq!(texts(&outputs(&session, 1), other.0), "one two");
    assert_eq!(executor.state.lock().unwrap().cancelled, [(panicking, None), (louder, None)]);
    session.submit(submission(1, &[])).unwrap();
    outputs(&session, 1);
}

#[test]
fn a_session_whose_thread_has_died_says_so() {
    let executor = Hasty::new(|id, _| vec![tokens(id, 0, "lost", None)]);
    executor.state.lock().unwrap().is_broken = true;
    let session = Session::start(executor.clone(), Some(tokenizer())).unwrap();
    let queue = session.new_queue();
    session.submit(Submission { destination: Destination::Queue(queue.clone()), ..submission(1, &[]) }).unwrap();
    let Awaited::Outputs(all) = queue.take(Some(Duration::from_secs(20))) else { panic!("the request has no end") };
    let Response::Error { message, .. } = &all[0].response else { panic!("{all:?}") };
    assert!(message.contains("ended unexpectedly"), "{message}");
    assert_eq!(queue.take(None), Awaited::Closed);
    assert_eq!(session.await_outputs(None), Awaited::Closed);
    assert!(executor.state.lock().unwrap().is_shut_down, "nobody would take what the executor makes");
    match session.submit(submission(1, &[])) {
        Err(EnqueueError::Failed { executor: "the session", problem }) => assert!(problem.contains("unexpectedly")),
        other => panic!("{other:?}"),
    }
    assert_eq!(session.new_queue().take(None), Awaited::Closed);
}
