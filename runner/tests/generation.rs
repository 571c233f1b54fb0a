//! Completions over an executor that says what a test wants, in the order that the test wants.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper of a test fails as the test does")]

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use runner::executor::{
    EnqueueError, Executor, FinishReason, IterationStats, Limits, OutputConfig, Request, RequestId, RequestSpec,
    Response, Shutdown, TokenId, TokenLogProb, TokenResult,
};
use runner::generation::{Completion, Event, GenerationError, Job, generate};
use text::stop_strings::StopStrings;
use text::tokenizer::Tokenizer;

const LIMITS: Limits = Limits { max_seq_len: 64, max_batch_size: 8, max_num_tokens: 64 };

/// Takes requests until there is a refusal, then hands out `script`, one response at a time.
struct Scripted {
    /// By number of the request: why it is not taken.
    refusals: Mutex<BTreeMap<u64, EnqueueError>>,
    script: Mutex<VecDeque<Response>>,
    enqueued: Mutex<u64>,
    cancelled: Mutex<Vec<RequestId>>,
}

impl Scripted {
    fn new(script: impl IntoIterator<Item = Response>) -> Self {
        Self {
            refusals: Mutex::default(),
            script: Mutex::new(script.into_iter().collect()),
            enqueued: Mutex::new(0),
            cancelled: Mutex::default(),
        }
    }

    fn refusing(self, number: u64, error: EnqueueError) -> Self {
        self.refusals.lock().unwrap().insert(number, error);
        self
    }
}

impl Executor for Scripted {
    fn limits(&self) -> Limits {
        LIMITS
    }

    fn vocab_size(&self) -> usize {
        1 << 20
    }

    fn enqueue(&self, _: Request) -> Result<RequestId, EnqueueError> {
        let mut enqueued = self.enqueued.lock().unwrap();
        if let Some(error) = self.refusals.lock().unwrap().remove(&*enqueued) {
            return Err(error);
        }
        *enqueued += 1;
        Ok(RequestId(*enqueued - 1))
    }

    fn await_responses(&self, _: Option<Duration>) -> Vec<Response> {
        self.script.lock().unwrap().pop_front().into_iter().collect()
    }

    fn cancel(&self, request: RequestId) {
        self.cancelled.lock().unwrap().push(request);
    }

    fn iteration_stats(&self) -> Vec<IterationStats> {
        Vec::new()
    }

    fn shutdown(&self, _: Shutdown) {}

    fn cancel_all(&self) {}
}

fn tokenizer() -> Tokenizer {
    Tokenizer::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/tokenizer")).unwrap()
}

/// One token a character.
fn ids(tokenizer: &Tokenizer, text: &str) -> Vec<TokenId> {
    text.chars().flat_map(|c| tokenizer.encode(&c.to_string(), false).unwrap()).collect()
}

fn job(index: usize, n: usize, stops: &[&str], change: impl FnOnce(&mut RequestSpec)) -> Job {
    let mut spec = RequestSpec::new(vec![5], 50);
    spec.sampling.num_return_sequences = n;
    change(&mut spec);
    let stop_strings = StopStrings::new(stops.iter().map(|&stop| stop.to_owned()).collect()).unwrap();
    Job { index, request: Request::new(spec, LIMITS, 1 << 20).unwrap(), stop_strings }
}

fn more(request: u64, sequence_index: usize, output_token_ids: Vec<TokenId>) -> TokenResult {
    TokenResult {
        request_id: RequestId(request),
        sequence_index,
        output_token_ids,
        log_probs: None,
        top_log_probs: None,
        cum_log_prob: None,
        prompt_log_probs: None,
        perf_metrics: None,
        finish_reason: None,
        is_sequence_final: false,
        is_final: false,
    }
}

fn last(result: TokenResult, reason: FinishReason, is_final: bool) -> TokenResult {
    TokenResult { finish_reason: Some(reason), is_sequence_final: true, is_final, ..result }
}

/// What came of it: the completions in the order of their ends, and the text of each sequence as it was streamed.
type Outcome = (Result<(), GenerationError>, Vec<Completion>, BTreeMap<(usize, usize), String>);

fn run(executor: &Scripted, tokenizer: &Tokenizer, jobs: Vec<Job>) -> Outcome {
    let (mut completions, mut streamed) = (Vec::new(), BTreeMap::<_, String>::new());
    let result = generate(executor, Some(tokenizer), jobs, |event| match event {
        Event::Text { index, sequence_index, text, .. } => {
            assert!(!completions.iter().any(|done: &Completion| is(done, index, sequence_index)), "text after the end");
            streamed.entry((index, sequence_index)).or_default().push_str(text);
        }
        Event::Finished(completion) => completions.push(completion),
    });
    for completion in &completions {
        let place = (completion.index, completion.sequence_index.unwrap_or(0));
        assert_eq!(completion.text.as_deref(), Some(streamed.get(&place).map_or("", String::as_str)));
    }
    (result, completions, streamed)
}

fn is(completion: &Completion, index: usize, sequence_index: usize) -> bool {
    (completion.index, completion.sequence_index.unwrap_or(0)) == (index, sequence_index)
}

#[test]
fn a_stop_string_ends_its_own_sequence_only() {
    let tokenizer = tokenizer();
    let text = |text: &str| ids(&tokenizer, text);
    let script = [
        more(0, 0, text("ab")),
        more(0, 1, text("xy")),
        // Ends sequence 0 after "ab"; the rest of it is dropped.
        more(0, 0, text("##c")),
        more(0, 0, text("dd")),
        more(0, 1, text("#z")),
        more(0, 1, text("w##")),
    ];
    let executor = Scripted::new(script.map(Response::Result));
    let (result, completions, _) = run(&executor, &tokenizer, vec![job(0, 2, &["##"], |_| ())]);
    result.unwrap();
    let found: Vec<_> = completions.iter().map(|done| (done.sequence_index, done.text.as_deref().unwrap())).collect();
    assert_eq!(found, [(Some(0), "ab"), (Some(1), "xy#zw")]);
    assert!(completions.iter().all(|done| done.finish_reason == FinishReason::StopWords));
    assert_eq!(completions[0].output_ids, text("ab##"));
    assert_eq!(*executor.cancelled.lock().unwrap(), [RequestId(0)], "once, when the last sequence had stopped");
    assert!(executor.script.lock().unwrap().is_empty(), "the request was given up too early");
}

#[test]
fn sequences_end_on_their_own() {
    let tokenizer = tokenizer();
    let text = |text: &str| ids(&tokenizer, text);
    let script = [
        more(0, 1, text("b")),
        last(more(0, 2, text("c")), FinishReason::EndId, false),
        last(more(0, 0, text("a#")), FinishReason::Length, false),
        last(more(0, 1, vec![]), FinishReason::TimedOut, true),
    ];
    let executor = Scripted::new(script.map(Response::Result));
    let (result, completions, _) = run(&executor, &tokenizer, vec![job(4, 3, &["##"], |_| ())]);
    result.unwrap();
    let found: Vec<_> = completions
        .iter()
        .map(|done| (done.sequence_index, done.text.as_deref().unwrap(), done.finish_reason))
        .collect();
    let expected = [
        (Some(2), "c", FinishReason::EndId),
        (Some(0), "a#", FinishReason::Length),
        (Some(1), "b", FinishReason::TimedOut),
    ];
    assert_eq!(found, expected);
    assert!(executor.cancelled.lock().unwrap().is_empty());
}

#[test]
fn a_single_sequence_has_no_number_and_a_beam_has() {
    let tokenizer = tokenizer();
    let end = |request| last(more(request, 0, vec![7]), FinishReason::Length, true);
    let executor = Scripted::new([end(0), end(1)].map(Response::Result));
    let jobs = vec![job(0, 1, &[], |_| ()), job(1, 1, &[], |spec| spec.sampling.beam_width = 2)];
    let (result, completions, _) = run(&executor, &tokenizer, jobs);
    result.unwrap();
    let numbers: Vec<_> = completions.iter().map(|done| done.sequence_index).collect();
    assert_eq!(numbers, [None, Some(0)]);
}

#[test]
fn log_probabilities_are_those_of_the_ids_that_are_kept() {
    let tokenizer = tokenizer();
    let text = |text: &str| ids(&tokenizer, text);
    let top = |token_id| vec![TokenLogProb { token_id, log_prob: -0.25 }];
    let first = TokenResult {
        log_probs: Some(vec![-1.0, -2.0, -4.0]),
        top_log_probs: Some(vec![top(1), top(2), top(3)]),
        prompt_log_probs: Some(vec![-8.0]),
        ..more(0, 0, text("a#b"))
    };
    let second = TokenResult {
        log_probs: Some(vec![-0.5]),
        top_log_probs: Some(vec![top(4)]),
        cum_log_prob: Some(-0.5),
        ..last(more(0, 1, text("c")), FinishReason::EndId, true)
    };
    let executor = Scripted::new([first, second].map(Response::Result));
    let output = OutputConfig {
        return_log_probs: true,
        top_log_probs: 1,
        return_prompt_log_probs: true,
        return_perf_metrics: false,
    };
    let (result, completions, _) = run(&executor, &tokenizer, vec![job(0, 2, &["#"], |spec| spec.output = output)]);
    result.unwrap();
    let [cut, whole] = &completions[..] else { panic!("{completions:?}") };
    assert_eq!((cut.log_probs.as_deref(), cut.cum_log_prob), (Some(&[-1.0, -2.0][..]), Some(-3.0)));
    assert_eq!(cut.top_log_probs, Some(vec![top(1), top(2)]));
    assert_eq!((whole.log_probs.as_deref(), whole.cum_log_prob), (Some(&[-0.5][..]), Some(-0.5)));
    assert_eq!(whole.top_log_probs, Some(vec![top(4)]));
    assert!(completions.iter().all(|done| done.prompt_log_probs.as_deref() == Some(&[-8.0][..])));
}

#[test]
fn a_refused_prompt_is_named_and_the_others_are_cancelled() {
    let tokenizer = tokenizer();
    let guide = EnqueueError::Guide { kind: "regex", problem: "odd".into() };
    let executor = Scripted::new([]).refusing(2, guide.clone());
    let jobs = (0..4).map(|index| job(index, 1, &[], |_| ())).collect();
    let (result, completions, _) = run(&executor, &tokenizer, jobs);
    match result.unwrap_err() {
        GenerationError::Enqueue { index, source } => assert_eq!((index, source), (2, guide)),
        other => panic!("{other}"),
    }
    assert!(completions.is_empty());
    let mut cancelled = executor.cancelled.lock().unwrap().clone();
    cancelled.sort();
    assert_eq!(cancelled, [RequestId(0), RequestId(1)]);
}

#[test]
fn a_full_queue_is_waited_for() {
    let tokenizer = tokenizer();
    let end = |request| last(more(request, 0, vec![7]), FinishReason::Length, true);
    let executor =
        Scripted::new([0, 1].map(end).map(Response::Result)).refusing(1, EnqueueError::QueueFull { max_queue_size: 1 });
    let jobs = (0..2).map(|index| job(index, 1, &[], |_| ())).collect();
    let (result, completions, _) = run(&executor, &tokenizer, jobs);
    result.unwrap();
    assert_eq!(completions.iter().map(|done| done.index).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn an_executor_that_ends_or_fails_is_an_error() {
    let tokenizer = tokenizer();
    let (result, ..) = run(&Scripted::new([]), &tokenizer, vec![job(0, 2, &[], |_| ())]);
    assert!(matches!(result, Err(GenerationError::ExecutorGone { unfinished: 1 })), "{result:?}");
    let failure = Response::Error { request_id: RequestId(0), message: "no luck".into() };
    let executor = Scripted::new([failure]);
    let (result, ..) = run(&executor, &tokenizer, vec![job(3, 2, &[], |_| ()), job(4, 1, &[], |_| ())]);
    assert_eq!(result.unwrap_err().to_string(), "prompt 3 failed: no luck");
    assert_eq!(*executor.cancelled.lock().unwrap(), [RequestId(1)]);
}
