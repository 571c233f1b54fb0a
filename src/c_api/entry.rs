//! The border between C and Rust: no panic crosses it, and every failure leaves its message.

use std::cell::{Cell, RefCell};

use engine_format::panics::caught;

use system::threads::in_default_floating_point_mode;

use super::fork;
use super::status::{
    Failure, TRTLLM_STATUS_INTERNAL, TRTLLM_STATUS_OK, TRTLLM_STATUS_WRONG_THREAD, remember, trtllm_status,
};

/// Runs the body of an exported function; not in the fork of a process that had an engine.
pub(crate) fn entry(body: impl FnOnce() -> Result<(), Failure>) -> trtllm_status {
    entry_in_forks(|| {
        fork::check()?;
        body()
    })
}

/// Runs the body of an exported function that touches nothing but its arguments, in the floating-point mode that all results are
/// computed in.
pub(crate) fn entry_in_forks(body: impl FnOnce() -> Result<(), Failure>) -> trtllm_status {
    let body = || {
        check_not_logging()?;
        body()
    };
    // What a panic may have left half-done lies behind locks that survive it, or is dropped with the call.
    let failure = match caught(|| in_default_floating_point_mode(body)) {
        Ok(Ok(())) => return TRTLLM_STATUS_OK,
        Ok(Err(failure)) => failure,
        Err(panic) => {
            Failure::new(TRTLLM_STATUS_INTERNAL, format!("this is a defect of the library, please report it: {panic}"))
        }
    };
    remember(&failure.message);
    failure.status
}

thread_local! {
    static IN_CALLBACK: Cell<bool> = const { Cell::new(false) };
    static LOGGING: Cell<bool> = const { Cell::new(false) };
    /// What the callback that runs has said with `trtllm_fail`.
    static FAILURE: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Runs a callback of the host, during which this thread must not wait for the engine: its result, and what it said with
/// `trtllm_fail`.
pub(crate) fn callback<T>(call: impl FnOnce() -> T) -> (T, Option<String>) {
    /// What was so before: a callback may run another one.
    struct Restore(bool, Option<String>);
    impl Drop for Restore {
        fn drop(&mut self) {
            IN_CALLBACK.set(self.0);
            FAILURE.replace(self.1.take());
        }
    }
    let _restore = Restore(IN_CALLBACK.replace(true), FAILURE.take());
    (call(), FAILURE.take())
}

/// Runs a log callback of the host, during which this thread may hold any lock of the library's.
pub(crate) fn logging(call: impl FnOnce()) {
    let before = LOGGING.replace(true);
    call();
    LOGGING.set(before);
}

/// Refuses to enter the library from a log callback.
pub(crate) fn check_not_logging() -> Result<(), Failure> {
    // A thread on its way out has no place for it, and is in no callback.
    if LOGGING.try_with(Cell::get).unwrap_or(false) {
        let problem = "functions of the library cannot be called from a log callback: call them from another thread";
        return Err(Failure::new(TRTLLM_STATUS_WRONG_THREAD, problem));
    }
    Ok(())
}

/// Notes why the callback that runs on this thread fails.
pub(crate) fn fail(message: &str) -> Result<(), Failure> {
    if !IN_CALLBACK.get() {
        let problem = "trtllm_fail is for response callbacks and logits post-processors, and none runs on this thread";
        return Err(Failure::new(TRTLLM_STATUS_WRONG_THREAD, problem));
    }
    FAILURE.replace(Some(message.to_owned()));
    Ok(())
}

/// Refuses to wait for an engine inside one of its callbacks, which would never end.
pub(crate) fn check_may_wait() -> Result<(), Failure> {
    if IN_CALLBACK.get() {
        return Err(Failure::new(
            TRTLLM_STATUS_WRONG_THREAD,
            "this function waits for the engine, so it cannot be called from a callback: call it from another thread",
        ));
    }
    Ok(())
}
