//! Completions over an executor that says what a test wants, in the order that the test wants.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use runner::executor::{
    EnqueueError, Executor, IterationStats, Limits, Load, OutputConfig, Request, RequestId, Shutdown, TokenResult,
};
use runner::session::{Session, Submission};
use text::stop_strings::StopStrings;
use text::tokenizer::Tokenizer;

use super::super::feed::Job;
use super::*;

const LIMITS: Limits = Limits { max_seq_len: 64, max_batch_size: 8, max_num_tokens: 64 };

/// Takes `expected` requests, then hands out `script`, one response at a time, each when its request was taken.
struct Scripted {
    expected: u64,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// By number of the request: why it is not taken.
    refusals: BTreeMap<u64, EnqueueError>,
    script: VecDeque<Response>,
    enqueued: u64,
    cancelled: Vec<(RequestId, Option<usize>)>,
    is_shut_down: bool,
}

impl Scripted {
    fn new(expected: u64, script: impl IntoIterator<Item = Response>) -> Self {
        let state = State { script: script.into_iter().collect(), ..State::default() };
        Self { expected, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn refusing(self, number: u64, error: EnqueueError) -> Self {
        self.state.lock().unwrap().refusals.insert(number, error);
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
        let mut state = self.state.lock().unwrap();
        let number = state.enqueued;
        if let Some(error) = state.refusals.remove(&number) {
            return Err(error);
        }
        state.enqueued += 1;
        self.changed.notify_all();
        Ok(RequestId(number))
    }

    fn await_responses(&self, _: Option<Duration>) -> Vec<Response> {
        let mut state = self.state.lock().unwrap();
        loop {
            let next = state.script.front().map_or(self.expected - 1, |response| response.request_id().0);
            if state.is_shut_down || state.enqueued > next {
                return state.script.pop_front().into_iter().collect();
            }
            state = self.changed.wait(state).unwrap();
        }
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
        self.cancel_all();
    }

    fn cancel_all(&self) {
        self.state.lock().unwrap().is_shut_down = true;
        self.changed.notify_all();
    }
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
    let request = Request::new(spec, LIMITS, 1 << 20).unwrap();
    let submission = Ok(Submission { stop_strings, ..Submission::new(request) });
    Job { index, name: Some(format!("prompt {index}")), submission, warnings: Vec::new() }
}

fn more(request: u64, sequence_index: usize, output_token_ids: Vec<TokenId>) -> TokenResult {
    TokenResult {
        request_id: RequestId(request),
        sequence_index,
        output_token_ids,
        log_probs: None,
        top_log_probs: None,
        cum_log_prob: None,
        generation_logits: None,
        prompt_log_probs: None,
        prompt_top_log_probs: None,
        prompt_ranks: None,
        context_logits: None,
        perf_metrics: None,
        finish_reason: None,
        is_sequence_final: false,
        is_final: false,
    }
}

fn last(result: TokenResult, reason: FinishReason, is_final: bool) -> TokenResult {
    TokenResult { finish_reason: Some(reason), is_sequence_final: true, is_final, ..result }
}

/// What came of it.
struct Ran {
    result: Result<Outcome, Failure>,
    /// In the order of their ends.
    completions: Vec<Completion>,
    /// Prompts that failed, and why.
    failures: Vec<(usize, String)>,
    /// Prompts in the order of their ends.
    ended: Vec<usize>,
}

fn run(executor: Scripted, jobs: Vec<Job>) -> Ran {
    run_shared(Arc::new(executor), jobs, 100)
}

fn run_shared(executor: Arc<Scripted>, jobs: Vec<Job>, window: usize) -> Ran {
    let session = Arc::new(Session::start(executor, Some(tokenizer().into())).unwrap());
    let feed = Feed::start(session.clone(), jobs.into_iter().map(Ok), window).unwrap();
    let (mut completions, mut streamed) = (Vec::new(), BTreeMap::<_, String>::new());
    let (mut failures, mut ended) = (Vec::new(), Vec::new());
    let result = complete(&feed, |event| match event {
        Event::Started { index, .. } => assert!(!ended.contains(&index)),
        Event::Text { index, sequence_index, text, .. } => {
            assert!(!completions.iter().any(|done: &Completion| is(done, index, sequence_index)), "text after the end");
            streamed.entry((index, sequence_index)).or_default().push_str(text);
        }
        Event::Finished(completion) => completions.push(completion),
        Event::Failed { index, failure } => failures.push((index, failure.message())),
        Event::Ended { index } => {
            assert!(!ended.contains(&index), "twice");
            ended.push(index);
            feed.allow_another();
        }
    });
    for completion in &completions {
        let place = (completion.index, completion.sequence_index.unwrap_or(0));
        assert_eq!(completion.text.as_deref(), Some(streamed.get(&place).map_or("", String::as_str)));
    }
    Ran { result, completions, failures, ended }
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
    let executor = Arc::new(Scripted::new(1, script.map(Response::Result)));
    let Ran { result, completions, .. } = run_shared(executor.clone(), vec![job(0, 2, &["##"], |_| ())], 100);
    result.unwrap();
    let found: Vec<_> = completions.iter().map(|done| (done.sequence_index, done.text.as_deref().unwrap())).collect();
    assert_eq!(found, [(Some(0), "ab"), (Some(1), "xy#zw")]);
    assert!(completions.iter().all(|done| done.finish_reason == FinishReason::StopWords));
    assert_eq!(completions[0].output_ids, text("ab##"));
    let state = executor.state.lock().unwrap();
    assert_eq!(state.cancelled, [(RequestId(0), Some(0)), (RequestId(0), None)], "each as soon as it had stopped");
    assert!(state.script.is_empty(), "the request was given up too early");
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
    let executor = Arc::new(Scripted::new(1, script.map(Response::Result)));
    let Ran { result, completions, .. } = run_shared(executor.clone(), vec![job(0, 3, &["##"], |_| ())], 100);
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
    assert!(executor.state.lock().unwrap().cancelled.is_empty());
}

#[test]
fn a_single_sequence_has_no_number_and_a_beam_has() {
    let executor = Scripted::new(2, [end(0), end(1)]);
    let jobs = vec![job(0, 1, &[], |_| ()), job(1, 1, &[], |spec| spec.sampling.beam_width = 2)];
    let Ran { result, completions, .. } = run(executor, jobs);
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
        prompt_top_log_probs: Some(vec![top(9)]),
        ..more(0, 0, text("a#b"))
    };
    let second = TokenResult {
        log_probs: Some(vec![-0.5]),
        top_log_probs: Some(vec![top(4)]),
        cum_log_prob: Some(-0.5),
        ..last(more(0, 1, text("c")), FinishReason::EndId, true)
    };
    let executor = Scripted::new(1, [first, second].map(Response::Result));
    let output = OutputConfig {
        return_log_probs: true,
        top_log_probs: 1,
        return_prompt_log_probs: true,
        prompt_top_log_probs: 1,
        ..OutputConfig::default()
    };
    let Ran { result, completions, .. } = run(executor, vec![job(0, 2, &["#"], |spec| spec.output = output)]);
    result.unwrap();
    let [cut, whole] = &completions[..] else { panic!("{completions:?}") };
    assert_eq!(cut.log_probs.as_deref(), Some(&[-1.0, -2.0][..]));
    assert_eq!(cut.top_log_probs, Some(vec![top(1), top(2)]));
    assert_eq!(whole.log_probs.as_deref(), Some(&[-0.5][..]));
    assert_eq!(whole.top_log_probs, Some(vec![top(4)]));
    assert!(completions.iter().all(|done| done.prompt_log_probs.as_deref() == Some(&[-8.0][..])));
    assert!(completions.iter().all(|done| done.prompt_top_log_probs == Some(vec![top(9)])));
}

fn end(request: u64) -> Response {
    Response::Result(last(more(request, 0, vec![7]), FinishReason::Length, true))
}

#[test]
fn a_prompt_that_fails_ends_no_other() {
    let guide = EnqueueError::Guide { kind: "regex", problem: "odd".into() };
    let failure = Response::Error { request_id: RequestId(1), message: "no luck".into() };
    // The executor refuses the third of those that it is given, and the second fails as it runs. One was no request at all.
    let executor = Scripted::new(3, [end(2), failure, end(0)]).refusing(2, guide);
    let mut jobs: Vec<_> = (0..5).map(|index| job(index, 1, &[], |_| ())).collect();
    jobs[2].submission = Err(Failure::Input(anyhow!("no prompt")));
    let ran = run(executor, jobs);
    let Outcome { prompts, failed, is_cut } = ran.result.unwrap();
    assert_eq!((prompts, failed, is_cut), (5, 3, false));
    let mut done: Vec<_> = ran.completions.iter().map(|done| done.index).collect();
    done.sort_unstable();
    assert_eq!(done, [0, 4]);
    let mut failures = ran.failures;
    failures.sort();
    let failures: Vec<_> = failures.iter().map(|(index, why)| (*index, why.as_str())).collect();
    let expected =
        [(1, "prompt 1: no luck"), (2, "prompt 2: no prompt"), (3, "prompt 3: the regex cannot be used: odd")];
    assert_eq!(failures, expected);
    assert_eq!(ran.ended.len(), 5);
}

#[test]
fn so_many_prompts_are_under_way_and_no_more() {
    const WINDOW: u64 = 3;
    let executor = Arc::new(Scripted::new(20, (0..20).map(end)));
    let made = Arc::new(AtomicU64::new(0));
    let (watched, count) = (executor.clone(), made.clone());
    let jobs = (0..20).map(move |index| {
        count.fetch_add(1, Ordering::SeqCst);
        Ok(job(index, 1, &[], |_| ()))
    });
    let session = Arc::new(Session::start(executor, None).unwrap());
    let feed = Feed::start(session, jobs, WINDOW as usize).unwrap();
    let mut over = 0;
    let outcome = complete(&feed, |event| {
        if let Event::Ended { .. } = event {
            // One more is read ahead.
            let (enqueued, made) = (watched.state.lock().unwrap().enqueued, made.load(Ordering::SeqCst));
            assert!(enqueued <= over + WINDOW && made <= over + WINDOW + 1, "{enqueued} {made} {over}");
            over += 1;
            feed.allow_another();
        }
    });
    assert_eq!((over, outcome.unwrap().prompts), (20, 20));
}

#[test]
fn a_full_queue_is_waited_for() {
    let executor = Scripted::new(2, [0, 1].map(end)).refusing(1, EnqueueError::QueueFull { max_queue_size: 1 });
    let jobs = (0..2).map(|index| job(index, 1, &[], |_| ())).collect();
    let ran = run(executor, jobs);
    assert_eq!(ran.result.unwrap().failed, 0);
    assert_eq!(ran.completions.iter().map(|done| done.index).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn what_ends_all_prompts_is_an_error() {
    // A session ends the requests that its executor forgot. Once it has an answer of one, that was submitted.
    let ran = run(Scripted::new(1, [Response::Result(more(0, 0, vec![7]))]), vec![job(0, 2, &[], |_| ())]);
    assert_eq!(ran.failures, [(0, "prompt 0: the executor ended without ending the request".to_owned())]);
    assert_eq!(ran.result.unwrap().failed, 1);

    let failed = EnqueueError::Failed { executor: "it", problem: "it broke".into() };
    let mut ran =
        run(Scripted::new(2, [end(0)]).refusing(1, failed), (0..9).map(|index| job(index, 1, &[], |_| ())).collect());
    assert_eq!(ran.result.unwrap_err().message(), "it has failed: it broke");
    ran.ended.sort_unstable();
    assert_eq!((ran.completions.len(), ran.failures.len(), ran.ended), (1, 0, vec![0, 1]));

    let executor = Arc::new(Scripted::new(2, [end(0)]).refusing(1, EnqueueError::ShutDown));
    let ran = run_shared(executor.clone(), (0..9).map(|index| job(index, 1, &[], |_| ())).collect(), 100);
    assert!(ran.result.unwrap().is_cut);

    let session = Arc::new(Session::start(Arc::new(Scripted::new(1, [end(0)])), None).unwrap());
    let unreadable = || Err(Failure::Input(anyhow!("the disk is gone")));
    let jobs = [0, 1].map(|index| if index == 1 { unreadable() } else { Ok(job(index, 1, &[], |_| ())) });
    let feed = Feed::start(session, jobs.into_iter(), 100).unwrap();
    let mut done = 0;
    let result = complete(&feed, |event| done += usize::from(matches!(event, Event::Finished(_))));
    assert_eq!((result.unwrap_err().message().as_str(), done), ("the disk is gone", 1));
}

#[test]
fn prompts_that_never_come_are_not_waited_for() {
    let (never, lines) = std::sync::mpsc::channel::<Result<Job, Failure>>();
    let session = Arc::new(Session::start(Arc::new(Scripted::new(1, [end(0)])), None).unwrap());
    let feed = Feed::start(session, lines.into_iter(), 100).unwrap();
    never.send(Ok(job(0, 1, &[], |_| ()))).unwrap();
    let stop = feed.stopper();
    let outcome = complete(&feed, |event| {
        if let Event::Ended { .. } = event {
            stop();
        }
    });
    let outcome = outcome.unwrap();
    assert_eq!((outcome.prompts, outcome.is_cut), (1, true));
}
