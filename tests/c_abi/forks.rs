//! The child of a process that has an engine.

use std::ffi::c_int;
use std::ptr;

use trtllm::c_api::engine::{trtllm_close_engine, trtllm_open_engine};
use trtllm::c_api::request_queue::{trtllm_cancel, trtllm_enqueue};
use trtllm::c_api::response::{TRTLLM_WAIT_FOREVER, trtllm_await_responses};
use trtllm::c_api::status::{TRTLLM_STATUS_SHUT_DOWN, trtllm_status};
use trtllm::c_api::strings::trtllm_free_token_ids;
use trtllm::c_api::tokenizer::trtllm_encode;

use crate::support::{Host, last_error, ok, request, text_of};

unsafe extern "C" {
    fn fork() -> c_int;
    fn _exit(code: c_int) -> !;
    fn waitpid(pid: c_int, status: *mut c_int, options: c_int) -> c_int;
}

#[test]
fn every_handle_answers_shut_down_and_nothing_waits() {
    let host = Host::demo();
    let mut asked = request();
    asked.prompt = text_of("Jupiter is");
    asked.max_new_tokens = 400;
    asked.ignore_eos = true.into();
    // The engine computes while the process forks.
    let id = host.enqueue(&asked);
    let mut list = ptr::null_mut();
    // SAFETY: the place is valid.
    ok(unsafe { trtllm_encode(host.engine, text_of("Mars"), true.into(), &mut list) });

    // SAFETY: the child calls nothing but the library, which promises to wait for nothing there, and `_exit`.
    let child = unsafe { fork() };
    if child == 0 {
        let path = text_of(host.built.path.to_str().unwrap_or_default());
        let (mut number, mut responses, mut engine) = (0, ptr::null_mut(), ptr::null_mut());
        // SAFETY: the places are valid, and what is asked for lives through the calls.
        let answers: [trtllm_status; 7] = unsafe {
            [
                trtllm_enqueue(host.engine, &request(), &mut number),
                trtllm_await_responses(host.engine, TRTLLM_WAIT_FOREVER, &mut responses),
                trtllm_cancel(host.engine, id),
                trtllm_free_token_ids(list),
                trtllm_open_engine(path, ptr::null(), &mut engine),
                trtllm_close_engine(ptr::null_mut()),
                trtllm_close_engine(host.engine),
            ]
        };
        let expected =
            answers.iter().all(|&status| status == TRTLLM_STATUS_SHUT_DOWN) && last_error().contains("fork()");
        // SAFETY: it ends the child, and with it nothing of the parent.
        unsafe { _exit(if expected { 0 } else { 1 }) }
    }
    assert!(child > 0);
    let mut status = -1;
    // SAFETY: the place is valid.
    assert_eq!(unsafe { waitpid(child, &mut status, 0) }, child);
    assert_eq!(status, 0, "the child did not end as it should");

    // The parent's handles are as they were.
    ok(trtllm_cancel(host.engine, id));
    host.await_all(1, |_| ());
    ok(trtllm_free_token_ids(list));
}
