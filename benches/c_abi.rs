//! What a token costs on its way through the C ABI: an executor that makes tokens for nothing, 256 streams at once.
//!
//! `cargo bench -p trtllm --bench c_abi`

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a benchmark prints its result, and fails by panicking")]

use std::ffi::c_void;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use trtllm::c_api::engine::{adopt, trtllm_close_engine, trtllm_engine};
use trtllm::c_api::request::{trtllm_init_request, trtllm_request};
use trtllm::c_api::request_queue::trtllm_enqueue;
use trtllm::c_api::response::{
    TRTLLM_WAIT_FOREVER, trtllm_await_responses, trtllm_free_responses, trtllm_response, trtllm_view_responses,
};
use trtllm::c_api::strings::trtllm_ids;
use trtllm::runner::executor::{
    EnqueueError, Executor, FinishReason, IterationStats, Limits, Load, Request, RequestId, RequestSpec, Response,
    Shutdown, TokenResult,
};
use trtllm::runner::session::{Awaited, Session, Submission};
use trtllm::text::tokenizer::LazyTokenizer;

const STREAMS: usize = 256;
const TOKENS: usize = 2000;
const TURNS: usize = 5;
const PROMPT: [u32; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

/// Gives every stream a token whenever it is asked.
#[derive(Default)]
struct FreeExecutor {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    next: u64,
    /// Requests and the tokens that they have had. Starts when all streams are there.
    live: Vec<(RequestId, usize)>,
    waiting: usize,
    closed: bool,
}

impl Executor for FreeExecutor {
    fn limits(&self) -> Limits {
        Limits { max_seq_len: 1 << 20, max_batch_size: STREAMS, max_num_tokens: 1 << 20 }
    }

    fn vocab_size(&self) -> usize {
        1024
    }

    fn enqueue(&self, _request: Request) -> Result<RequestId, EnqueueError> {
        let mut state = self.state.lock().unwrap();
        let id = RequestId(state.next);
        state.next += 1;
        state.waiting += 1;
        if state.waiting == STREAMS {
            state.waiting = 0;
            state.live = (0..STREAMS as u64).map(|back| (RequestId(id.0 - back), 0)).collect();
            self.changed.notify_all();
        }
        Ok(id)
    }

    fn await_responses(&self, _timeout: Option<Duration>) -> Vec<Response> {
        let mut state = self.state.lock().unwrap();
        while state.live.is_empty() && !state.closed {
            state = self.changed.wait(state).unwrap();
        }
        let mut responses = Vec::with_capacity(state.live.len());
        for (request_id, count) in &mut state.live {
            *count += 1;
            let is_last = *count == TOKENS;
            let reason = FinishReason::Length;
            responses.push(Response::Result(TokenResult {
                output_token_ids: vec![(*count % 1000) as u32],
                finish_reason: is_last.then_some(reason),
                is_sequence_final: is_last,
                ..TokenResult::ended(*request_id, 0, reason, is_last)
            }));
        }
        if state.live.first().is_some_and(|(_, count)| *count == TOKENS) {
            state.live.clear();
        }
        responses
    }

    fn cancel(&self, _request: RequestId) {}

    fn cancel_sequence(&self, _: RequestId, _: usize) {}

    fn load(&self) -> Load {
        Load::default()
    }

    fn iteration_stats(&self) -> Vec<IterationStats> {
        Vec::new()
    }

    fn shutdown(&self, _how: Shutdown) {
        self.state.lock().unwrap().closed = true;
        self.changed.notify_all();
    }

    fn cancel_all(&self) {
        self.shutdown(Shutdown::Cancel);
    }
}

fn request() -> Request {
    let executor = FreeExecutor::default();
    Request::new(RequestSpec::new(PROMPT.to_vec(), TOKENS), executor.limits(), executor.vocab_size()).unwrap()
}

fn tokens_of(response: &Response) -> (usize, bool) {
    match response {
        Response::Result(result) => (result.output_token_ids.len(), result.is_final),
        Response::Error { message, .. } => panic!("{message}"),
    }
}

/// The executor's own interface, without text.
fn rust_executor() {
    let executor = FreeExecutor::default();
    for _ in 0..STREAMS {
        executor.enqueue(request()).unwrap();
    }
    let (mut tokens, mut ended) = (0, 0);
    while ended < STREAMS {
        for response in executor.await_responses(None) {
            let (new, is_final) = tokens_of(&response);
            tokens += new;
            ended += usize::from(is_final);
        }
    }
    assert_eq!(tokens, STREAMS * TOKENS);
}

/// The session, with text where there is a tokenizer.
fn rust_session(tokenizer: Option<LazyTokenizer>) {
    let session = Session::start(Arc::new(FreeExecutor::default()), tokenizer).unwrap();
    for _ in 0..STREAMS {
        session.submit(Submission::new(request())).unwrap();
    }
    let (mut tokens, mut ended) = (0, 0);
    while ended < STREAMS {
        let Awaited::Outputs(outputs) = session.await_outputs(None) else { panic!("the session ended") };
        for output in outputs {
            let (new, is_final) = tokens_of(&output.response);
            tokens += new;
            ended += usize::from(is_final);
        }
    }
    assert_eq!(tokens, STREAMS * TOKENS);
}

fn open(tokenizer: Option<LazyTokenizer>) -> *mut trtllm_engine {
    adopt(Session::start(Arc::new(FreeExecutor::default()), tokenizer).unwrap()).unwrap()
}

fn enqueue_all(engine: *mut trtllm_engine, change: impl Fn(&mut trtllm_request)) {
    let mut request = std::mem::MaybeUninit::uninit();
    // SAFETY: the place has that size, and a success initialises it; what the request points to lives on.
    unsafe {
        assert_eq!(trtllm_init_request(request.as_mut_ptr(), size_of::<trtllm_request>()), 0);
        let request = request.assume_init_mut();
        request.token_ids = trtllm_ids { data: PROMPT.as_ptr(), len: PROMPT.len() };
        request.max_new_tokens = TOKENS;
        change(request);
        let mut id = 0;
        for _ in 0..STREAMS {
            assert_eq!(trtllm_enqueue(engine, request, &mut id), 0);
        }
    }
}

/// Whether a flag of C is set.
fn is(flag: trtllm::c_api::strings::CBool) -> bool {
    flag == true.into()
}

/// The C ABI, by waiting.
fn c_waiting(tokenizer: Option<LazyTokenizer>) {
    let engine = open(tokenizer);
    enqueue_all(engine, |_| ());
    let (mut tokens, mut ended) = (0, 0);
    while ended < STREAMS {
        let (mut list, mut array, mut count) = (ptr::null_mut(), ptr::null(), 0);
        // SAFETY: the places are valid, and what they then say is until the list is freed.
        unsafe {
            assert_eq!(trtllm_await_responses(engine, TRTLLM_WAIT_FOREVER, &mut list), 0);
            assert_eq!(trtllm_view_responses(list, &mut array, &mut count), 0);
            for &response in std::slice::from_raw_parts(array, count) {
                tokens += (*response).token_ids.len;
                ended += usize::from(is((*response).is_final));
            }
        }
        assert_eq!(trtllm_free_responses(list), 0);
    }
    assert_eq!(tokens, STREAMS * TOKENS);
    assert_eq!(trtllm_close_engine(engine), 0);
}

#[derive(Default)]
struct Seen {
    tokens: AtomicUsize,
    ended: Mutex<usize>,
    changed: Condvar,
}

unsafe extern "C" fn see(user_data: *mut c_void, response: *const trtllm_response) {
    // SAFETY: both are valid during the call.
    let (seen, response) = unsafe { (&*user_data.cast::<Seen>(), &*response) };
    seen.tokens.fetch_add(response.token_ids.len, Ordering::Relaxed);
    if is(response.is_final) {
        *seen.ended.lock().unwrap() += 1;
        seen.changed.notify_one();
    }
}

/// The C ABI, by callbacks.
fn c_callbacks(tokenizer: Option<LazyTokenizer>) {
    let engine = open(tokenizer);
    let seen = Seen::default();
    enqueue_all(engine, |request| {
        request.on_response = Some(see);
        request.user_data = ptr::from_ref(&seen).cast_mut().cast();
    });
    let mut ended = seen.ended.lock().unwrap();
    while *ended < STREAMS {
        ended = seen.changed.wait(ended).unwrap();
    }
    drop(ended);
    assert_eq!(seen.tokens.load(Ordering::Relaxed), STREAMS * TOKENS);
    assert_eq!(trtllm_close_engine(engine), 0);
}

/// Nanoseconds a token, best of several turns.
fn nanoseconds(run: impl Fn()) -> f64 {
    let turn = || {
        let began = Instant::now();
        run();
        began.elapsed().as_secs_f64() * 1e9 / (STREAMS * TOKENS) as f64
    };
    (0..TURNS).map(|_| turn()).fold(f64::INFINITY, f64::min)
}

fn main() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/demo-model");
    let tokenizer = LazyTokenizer::of(&demo);
    println!("{STREAMS} streams of {TOKENS} tokens, one token a response; ns a token, best of {TURNS}");
    let executor = nanoseconds(rust_executor);
    let row = |name: &str, time: f64, base: f64| println!("{name:<42} {time:>7.0}   {:>+7.0}", time - base);
    println!("{:<42} {:>7}   {:>7}", "", "ns", "over");
    row("ids: Rust, executor", executor, executor);
    row("ids: Rust, session", nanoseconds(|| rust_session(None)), executor);
    row("ids: C, waiting", nanoseconds(|| c_waiting(None)), executor);
    row("ids: C, callbacks", nanoseconds(|| c_callbacks(None)), executor);
    let session = nanoseconds(|| rust_session(Some(tokenizer.clone())));
    row("text: Rust, session", session, session);
    row("text: C, waiting", nanoseconds(|| c_waiting(Some(tokenizer.clone()))), session);
    row("text: C, callbacks", nanoseconds(|| c_callbacks(Some(tokenizer.clone()))), session);
}
