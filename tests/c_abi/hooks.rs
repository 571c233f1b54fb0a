//! The logits hook and the response callback.

use std::ffi::c_void;
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};

use trtllm::c_api::engine::{TRTLLM_SHUTDOWN_CANCEL, trtllm_close_engine, trtllm_engine, trtllm_shutdown_engine};
use trtllm::c_api::fail::trtllm_fail;
use trtllm::c_api::logits::trtllm_logits_context;
use trtllm::c_api::request::trtllm_request;
use trtllm::c_api::request_queue::trtllm_enqueue;
use trtllm::c_api::response::{TRTLLM_WAIT_FOREVER, trtllm_await_responses, trtllm_response};
use trtllm::c_api::status::{
    TRTLLM_STATUS_OK, TRTLLM_STATUS_REQUEST_FAILED, TRTLLM_STATUS_WRONG_THREAD, trtllm_status,
};
use trtllm::c_api::strings::trtllm_ids;

use crate::common;
use crate::support::{Host, copied, ids, is, last_error, request, text_of};

const PROMPT: [u32; 3] = [1, 2, 3];

fn of_prompt() -> trtllm_request {
    let mut request = request();
    request.token_ids = trtllm_ids { data: PROMPT.as_ptr(), len: PROMPT.len() };
    request.max_new_tokens = 6;
    request
}

/// Makes token `user_data + tokens so far` the most probable one.
unsafe extern "C" fn count_up(
    user_data: *mut c_void,
    context: *const trtllm_logits_context,
    logits: *mut f32,
    vocab_size: usize,
) -> i32 {
    // SAFETY: valid during the call.
    let (context, logits) = unsafe { (&*context, std::slice::from_raw_parts_mut(logits, vocab_size)) };
    // SAFETY: valid during the call.
    let tokens = unsafe { std::slice::from_raw_parts(context.token_ids.data, context.token_ids.len) };
    assert_eq!((context.num_prompt_tokens, &tokens[..3]), (3, &PROMPT[..]));
    logits[user_data.addr() + tokens.len()] = 1000.0;
    0
}

#[test]
fn a_hook_decides_what_is_generated() {
    let host = Host::parity("mistral-gqa");
    let mut request = of_prompt();
    request.ignore_eos = true.into();
    request.logits_post_processor = Some(count_up);
    request.user_data = ptr::without_provenance_mut(10);
    request.return_log_probs = true.into();
    host.enqueue(&request);
    let (mut tokens, mut sum) = (Vec::new(), 0.0);
    host.await_all(1, |response| {
        tokens.extend(ids(response));
        sum = response.cum_log_prob;
    });
    assert_eq!(tokens, [13, 14, 15, 16, 17, 18]);
    assert!(sum < -1.0, "log-probabilities are of the logits before the hook, not {sum}");

    request.beam_width = 2;
    request.num_return_sequences = 1;
    host.enqueue(&request);
    let mut best = Vec::new();
    host.await_all(1, |response| best.extend(ids(response)));
    assert_eq!(best, [13, 14, 15, 16, 17, 18]);
}

/// Fails in the way that `user_data` says, at the third token.
unsafe extern "C" fn fail(
    user_data: *mut c_void,
    context: *const trtllm_logits_context,
    logits: *mut f32,
    vocab_size: usize,
) -> i32 {
    // SAFETY: valid during the call.
    let (context, logits) = unsafe { (&*context, std::slice::from_raw_parts_mut(logits, vocab_size)) };
    if context.token_ids.len < 5 {
        return 0;
    }
    match user_data.addr() {
        1 => return 7,
        2 => logits[4] = f32::NAN,
        3 => logits[4] = f32::INFINITY,
        4 => logits.fill(f32::NEG_INFINITY),
        // SAFETY: the texts are constants. The last one counts, and the hook's answer does not.
        _ => unsafe {
            trtllm_fail(text_of("not this"));
            trtllm_fail(text_of("the host's table has no row 5"));
        },
    }
    0
}

#[test]
fn a_hook_that_fails_ends_its_request_and_no_other() {
    let host = Host::parity("mistral-gqa");
    let expected = [
        "returned 7",
        "NaN for token 4",
        "inf for token 4",
        "excluded every token",
        "failed: the host's table has no row 5",
    ];
    for sequences in [1, 3] {
        let plain = host.enqueue(&of_prompt());
        let mut failing = Vec::new();
        for way in 1..=5 {
            let mut request = of_prompt();
            request.logits_post_processor = Some(fail);
            request.user_data = ptr::without_provenance_mut(way);
            (request.num_return_sequences, request.temperature) = (sequences, 1.0);
            request.ignore_eos = true.into();
            failing.push(host.enqueue(&request));
        }
        let (mut errors, mut tokens) = (vec![String::new(); 5], Vec::new());
        host.await_all(6, |response| {
            if response.request_id == plain {
                assert_eq!(response.status, TRTLLM_STATUS_OK);
                tokens.extend(ids(response));
            } else if is(response.is_final) {
                assert_eq!(response.status, TRTLLM_STATUS_REQUEST_FAILED);
                let place = failing.iter().position(|&id| id == response.request_id).unwrap();
                errors[place] = copied(response.error);
            }
        });
        assert!(!tokens.is_empty());
        for (error, expected) in errors.iter().zip(expected) {
            assert!(error.contains(expected), "{error}");
        }
    }
}

unsafe extern "C" fn count_calls(
    user_data: *mut c_void,
    _context: *const trtllm_logits_context,
    _logits: *mut f32,
    _vocab_size: usize,
) -> i32 {
    // SAFETY: the test keeps the counter until the request has ended.
    unsafe { &*user_data.cast::<AtomicUsize>() }.fetch_add(1, Ordering::Relaxed);
    0
}

#[test]
fn a_hook_is_not_shown_logits_that_are_no_numbers_and_not_blamed_for_them() {
    let model = common::with_nan(&common::fixture("parity/mistral-gqa"), "model.norm.weight", 3);
    let host = Host::new(common::build(model.path(), 64));
    let calls = AtomicUsize::new(0);
    for beam_width in [1, 2] {
        let mut request = of_prompt();
        request.beam_width = beam_width;
        request.logits_post_processor = Some(count_calls);
        request.user_data = ptr::from_ref(&calls).cast_mut().cast();
        host.enqueue(&request);
        host.await_all(1, |response| {
            assert_eq!(response.status, TRTLLM_STATUS_REQUEST_FAILED);
            let error = copied(response.error);
            assert!(error.starts_with("the model's logits are not numbers") && !error.contains("processor"), "{error}");
        });
    }
    assert_eq!(calls.load(Ordering::Relaxed), 0);
}

/// Looks at everything that a callback must not do, and submits one more request.
struct Visitor {
    engine: *mut trtllm_engine,
    statuses: Mutex<Vec<trtllm_status>>,
    left: AtomicUsize,
    done: Sender<()>,
}

unsafe extern "C" fn visit(user_data: *mut c_void, response: *const trtllm_response) {
    // SAFETY: the test keeps the visitor until the engine is closed; the response is valid during the call.
    let (visitor, response) = unsafe { (&*user_data.cast::<Visitor>(), &*response) };
    if !is(response.is_final) {
        return;
    }
    let mut list = ptr::null_mut();
    // SAFETY: the place is valid.
    let awaited = unsafe { trtllm_await_responses(visitor.engine, TRTLLM_WAIT_FOREVER, &mut list) };
    let shut_down = trtllm_shutdown_engine(visitor.engine, TRTLLM_SHUTDOWN_CANCEL);
    visitor.statuses.lock().unwrap().extend([awaited, shut_down, trtllm_close_engine(visitor.engine)]);
    if visitor.left.fetch_sub(1, Ordering::Relaxed) == 1 {
        visitor.done.send(()).unwrap();
        return;
    }
    let mut next = of_prompt();
    next.on_response = Some(visit);
    next.user_data = user_data;
    let mut id = 0;
    // SAFETY: the request and the place are valid.
    assert_eq!(unsafe { trtllm_enqueue(visitor.engine, &next, &mut id) }, TRTLLM_STATUS_OK);
}

#[test]
fn a_callback_may_enqueue_and_may_not_wait() {
    let host = Host::parity("mistral-gqa");
    let (done, finished) = channel();
    let visitor = Visitor { engine: host.engine, statuses: Mutex::default(), left: AtomicUsize::new(50), done };
    let mut first = of_prompt();
    first.on_response = Some(visit);
    first.user_data = ptr::from_ref(&visitor).cast_mut().cast();
    host.enqueue(&first);
    finished.recv().unwrap();
    drop(host);
    let statuses = visitor.statuses.lock().unwrap();
    assert_eq!(*statuses, vec![TRTLLM_STATUS_WRONG_THREAD; 150]);
}

/// What a callback saw, and when it fails: at the response of this number.
struct Failing {
    at: usize,
    seen: Mutex<Vec<(trtllm_status, String)>>,
    done: Sender<()>,
}

unsafe extern "C" fn fail_at(user_data: *mut c_void, response: *const trtllm_response) {
    // SAFETY: the test keeps it until the last call; the response is valid during the call.
    let (failing, response) = unsafe { (&*user_data.cast::<Failing>(), &*response) };
    let mut seen = failing.seen.lock().unwrap();
    seen.push((response.status, copied(response.error)));
    if seen.len() == failing.at || is(response.is_final) {
        // SAFETY: the text is a constant.
        assert_eq!(unsafe { trtllm_fail(text_of("the client has gone")) }, TRTLLM_STATUS_OK);
    }
    if is(response.is_final) {
        failing.done.send(()).unwrap();
    }
}

#[test]
fn a_callback_that_fails_gets_its_message_as_the_end() {
    let host = Host::parity("mistral-gqa");
    for (at, expected) in [(1, 2), (3, 4), (6, 6), (100, 6)] {
        let (done, finished) = channel();
        let failing = Failing { at, seen: Mutex::default(), done };
        let mut request = of_prompt();
        request.ignore_eos = true.into();
        request.on_response = Some(fail_at);
        request.user_data = ptr::from_ref(&failing).cast_mut().cast();
        host.enqueue(&request);
        finished.recv().unwrap();
        // Another request's end: no further call was on its way.
        host.enqueue(&of_prompt());
        host.await_all(1, |_| ());
        let seen = failing.seen.lock().unwrap();
        assert_eq!(seen.len(), expected, "{seen:?}");
        let (status, message) = seen.last().unwrap();
        match at {
            1 | 3 => {
                assert_eq!((*status, message.as_str()), (TRTLLM_STATUS_REQUEST_FAILED, "the client has gone"));
            }
            // The final response was this request's end already.
            _ => assert_eq!(*status, TRTLLM_STATUS_OK),
        }
    }
}

#[test]
fn only_callbacks_fail() {
    // SAFETY: the text is a constant.
    assert_eq!(unsafe { trtllm_fail(text_of("too early")) }, TRTLLM_STATUS_WRONG_THREAD);
    assert!(last_error().contains("callbacks"), "{}", last_error());
}
