//! An engine that is being closed: what its callbacks and other threads may still do.

use std::ffi::c_void;
use std::ptr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use trtllm::c_api::engine::{trtllm_close_engine, trtllm_describe_engine, trtllm_engine, trtllm_engine_info};
use trtllm::c_api::request_queue::{trtllm_cancel, trtllm_enqueue};
use trtllm::c_api::response::trtllm_response;
use trtllm::c_api::status::{
    TRTLLM_STATUS_INVALID_HANDLE, TRTLLM_STATUS_OK, TRTLLM_STATUS_SHUT_DOWN, TRTLLM_STATUS_WRONG_THREAD, trtllm_status,
};

use crate::support::{Host, is, request, text_of};

/// What a callback waits for, and where it tells what it was answered.
struct Callback {
    engine: usize,
    entered: Sender<()>,
    go_on: Receiver<()>,
    answers: Vec<trtllm_status>,
    finals: usize,
}

/// Calls an engine in every way that a callback may, or may not.
fn call(engine: *mut trtllm_engine, id: u64) -> Vec<trtllm_status> {
    let mut more = request();
    more.prompt = text_of("Mars");
    let (mut none, mut info) = (0, std::mem::MaybeUninit::<trtllm_engine_info>::zeroed());
    // SAFETY: the places are valid, and the size of the struct is set.
    unsafe {
        (*info.as_mut_ptr()).struct_size = size_of::<trtllm_engine_info>();
        vec![
            trtllm_cancel(engine, id),
            trtllm_enqueue(engine, &more, &mut none),
            trtllm_describe_engine(engine, info.as_mut_ptr()),
        ]
    }
}

unsafe extern "C" fn take(user_data: *mut c_void, response: *const trtllm_response) {
    // SAFETY: both are valid during the call, and nobody else looks at the first before the engine is closed.
    let (callback, response) = unsafe { (&mut *user_data.cast::<Callback>(), &*response) };
    callback.finals += usize::from(is(response.is_final));
    if callback.answers.is_empty() {
        callback.entered.send(()).unwrap();
        callback.go_on.recv().unwrap();
        let engine = ptr::without_provenance_mut(callback.engine);
        callback.answers = call(engine, response.request_id);
        callback.answers.push(trtllm_close_engine(engine));
    }
}

#[test]
fn calls_keep_their_meaning_until_the_engine_is_closed() {
    let mut host = Host::demo();
    let (entered, has_entered) = channel();
    let (go_on, goes_on) = channel();
    let mut callback = Callback { engine: host.engine.addr(), entered, go_on: goes_on, answers: Vec::new(), finals: 0 };
    let mut long = request();
    long.prompt = text_of("Jupiter is");
    long.max_new_tokens = 400;
    long.ignore_eos = true.into();
    long.on_response = Some(take);
    long.user_data = ptr::from_mut(&mut callback).cast();
    let id = host.enqueue(&long);
    has_entered.recv().unwrap();

    let engine = std::mem::replace(&mut host.engine, ptr::null_mut());
    let number = engine.addr();
    let closer = std::thread::spawn(move || trtllm_close_engine(ptr::without_provenance_mut(number)));
    // The close waits for the callback, which waits for us. Once it has begun, nothing more is taken.
    let deadline = Instant::now() + Duration::from_secs(60);
    while call(engine, id)[1] != TRTLLM_STATUS_SHUT_DOWN {
        assert!(Instant::now() < deadline, "the engine is not being closed");
    }
    assert_eq!(call(engine, id), [TRTLLM_STATUS_OK, TRTLLM_STATUS_SHUT_DOWN, TRTLLM_STATUS_OK]);
    assert_eq!(trtllm_close_engine(engine), TRTLLM_STATUS_INVALID_HANDLE);
    assert!(!closer.is_finished());
    go_on.send(()).unwrap();
    assert_eq!(closer.join().unwrap(), TRTLLM_STATUS_OK);

    let expected = [TRTLLM_STATUS_OK, TRTLLM_STATUS_SHUT_DOWN, TRTLLM_STATUS_OK, TRTLLM_STATUS_WRONG_THREAD];
    assert_eq!((callback.answers.as_slice(), callback.finals), (&expected[..], 1));
    assert_eq!(call(engine, id), [TRTLLM_STATUS_INVALID_HANDLE; 3]);
    assert_eq!(trtllm_close_engine(engine), TRTLLM_STATUS_INVALID_HANDLE);
}
