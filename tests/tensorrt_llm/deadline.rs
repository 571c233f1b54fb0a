//! Nothing may hang.

use std::sync::mpsc;
use std::time::Duration;

use trtllm::runner::executor::{Executor, Request, RequestId, RequestSpec, Response};

/// Runs `test` on a thread of its own, and fails when it takes longer than `seconds`.
pub(crate) fn within(seconds: u64, test: impl FnOnce() + Send + 'static) {
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        test();
        sender.send(()).unwrap();
    });
    match receiver.recv_timeout(Duration::from_secs(seconds)) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("hangs: not done after {seconds} s"),
        _ => thread.join().unwrap(),
    }
}

pub(crate) fn request(executor: &dyn Executor, spec: RequestSpec) -> Request {
    Request::new(spec, executor.limits(), executor.vocab_size()).unwrap()
}

pub(crate) fn enqueue(executor: &dyn Executor, spec: RequestSpec) -> RequestId {
    executor.enqueue(request(executor, spec)).unwrap()
}

/// All responses up to `finals` final ones.
pub(crate) fn gather(executor: &dyn Executor, finals: usize) -> Vec<Response> {
    let mut all = Vec::new();
    while all.iter().filter(|response: &&Response| response.is_final()).count() < finals {
        let responses = executor.await_responses(Some(Duration::from_secs(20)));
        assert!(!responses.is_empty(), "nothing came for 20 s: {} responses so far", all.len());
        all.extend(responses);
    }
    all
}
