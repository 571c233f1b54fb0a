//! The border between C and Rust: no panic crosses it, and every failure leaves its message.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::status::{
    Failure, TRTLLM_STATUS_INTERNAL, TRTLLM_STATUS_OK, TRTLLM_STATUS_WRONG_THREAD, remember, trtllm_status,
};

/// Runs the body of an exported function.
pub(crate) fn entry(body: impl FnOnce() -> Result<(), Failure>) -> trtllm_status {
    // What a panic may have left half-done lies behind locks that survive it, or is dropped with the call.
    let failure = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => return TRTLLM_STATUS_OK,
        Ok(Err(failure)) => failure,
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().copied().map(str::to_owned);
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
            // A payload may panic again when it is dropped.
            std::mem::forget(panic);
            Failure::new(TRTLLM_STATUS_INTERNAL, format!("this is a defect of the library, please report it: {text}"))
        }
    };
    remember(&failure.message);
    failure.status
}

thread_local! {
    static IN_CALLBACK: Cell<bool> = const { Cell::new(false) };
}

/// Runs a callback of the host, during which this thread must not wait for the engine.
pub(crate) fn callback<T>(call: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            IN_CALLBACK.set(self.0);
        }
    }
    let _restore = Restore(IN_CALLBACK.replace(true));
    call()
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
