//! Status codes, and why the last call failed.

use std::cell::RefCell;
use std::ffi::{CStr, c_char};

use super::views::trtllm_str;

/// What a function returns: `TRTLLM_STATUS_OK`, or why it did nothing. Out-parameters are written only with
/// `TRTLLM_STATUS_OK`. Later versions may return codes that this header does not list.
pub type trtllm_status = i32;

/// Done.
pub const TRTLLM_STATUS_OK: trtllm_status = 0;
/// An argument or a field is wrong: NULL, out of its range, not UTF-8, a struct of an impossible size.
pub const TRTLLM_STATUS_INVALID_ARGUMENT: trtllm_status = 1;
/// A handle is NULL, of another kind, or was freed.
pub const TRTLLM_STATUS_INVALID_HANDLE: trtllm_status = 2;
/// Nothing came in time.
pub const TRTLLM_STATUS_TIMED_OUT: trtllm_status = 3;
/// The engine was shut down: it takes no more requests, and has no more responses. In a `fork()` of the process that opened it, every
/// handle is answered so.
pub const TRTLLM_STATUS_SHUT_DOWN: trtllm_status = 4;
/// Too many requests wait already.
pub const TRTLLM_STATUS_QUEUE_FULL: trtllm_status = 5;
/// The engine, or the executor behind it, does not have what was asked for.
pub const TRTLLM_STATUS_UNSUPPORTED: trtllm_status = 6;
/// This machine lacks what was asked for: a GPU, a library, an instruction set.
pub const TRTLLM_STATUS_UNAVAILABLE: trtllm_status = 7;
/// A model or an engine directory is invalid, or is not there.
pub const TRTLLM_STATUS_INVALID_FILES: trtllm_status = 8;
/// The system refused something: a file, memory, a thread, the network.
pub const TRTLLM_STATUS_SYSTEM: trtllm_status = 9;
/// A callback asked to stop.
pub const TRTLLM_STATUS_CANCELLED: trtllm_status = 10;
/// The function waits, and must not be called from a callback that the library runs; or it is for callbacks only.
pub const TRTLLM_STATUS_WRONG_THREAD: trtllm_status = 11;
/// In a response: the request failed while it ran.
pub const TRTLLM_STATUS_REQUEST_FAILED: trtllm_status = 12;
/// A defect of the library: it caught a panic of its own.
pub const TRTLLM_STATUS_INTERNAL: trtllm_status = 13;
/// A TensorRT engine is being built in this process and another was to be opened, or the reverse: one process does one of the two at a
/// time.
pub const TRTLLM_STATUS_BUSY: trtllm_status = 14;

/// A failure on its way to C.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: trtllm_status,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(status: trtllm_status, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    /// A failure with an error's message and those of its causes.
    pub(crate) fn from_error(status: trtllm_status, error: &(dyn std::error::Error + 'static)) -> Self {
        Self::new(status, engine_format::error::with_causes(error))
    }

    pub(crate) fn argument(message: impl Into<String>) -> Self {
        Self::new(TRTLLM_STATUS_INVALID_ARGUMENT, message)
    }
}

thread_local! {
    /// With a NUL at its end, so that it can be printed as a C string.
    static LAST_ERROR: RefCell<String> = RefCell::new("\0".to_owned());
}

/// Remembers why a call of this thread failed.
pub(crate) fn remember(message: &str) {
    // A thread on its way out has no place for it.
    let _ = LAST_ERROR.try_with(|last| {
        let mut last = last.borrow_mut();
        last.clear();
        last.push_str(&message.replace('\0', "\u{fffd}"));
        last.push('\0');
    });
}

/// Why the last call of this thread that failed did so: a sentence that names what was wrong, where, and where possible
/// what to do about it. Empty where none has failed.
///
/// The text is NUL-terminated, belongs to the library, and is valid until the next call of this thread fails.
/// Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn trtllm_last_error() -> trtllm_str {
    LAST_ERROR
        .try_with(|last| {
            let last = last.borrow();
            trtllm_str { data: last.as_ptr().cast(), len: last.len() - 1 }
        })
        .unwrap_or(trtllm_str::EMPTY)
}

/// The name of a status, for example `TRTLLM_STATUS_OK`; `unknown status` for a number that is none. A NUL-terminated
/// text that is always valid. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn trtllm_status_name(status: trtllm_status) -> *const c_char {
    let name: &CStr = match status {
        TRTLLM_STATUS_OK => c"TRTLLM_STATUS_OK",
        TRTLLM_STATUS_INVALID_ARGUMENT => c"TRTLLM_STATUS_INVALID_ARGUMENT",
        TRTLLM_STATUS_INVALID_HANDLE => c"TRTLLM_STATUS_INVALID_HANDLE",
        TRTLLM_STATUS_TIMED_OUT => c"TRTLLM_STATUS_TIMED_OUT",
        TRTLLM_STATUS_SHUT_DOWN => c"TRTLLM_STATUS_SHUT_DOWN",
        TRTLLM_STATUS_QUEUE_FULL => c"TRTLLM_STATUS_QUEUE_FULL",
        TRTLLM_STATUS_UNSUPPORTED => c"TRTLLM_STATUS_UNSUPPORTED",
        TRTLLM_STATUS_UNAVAILABLE => c"TRTLLM_STATUS_UNAVAILABLE",
        TRTLLM_STATUS_INVALID_FILES => c"TRTLLM_STATUS_INVALID_FILES",
        TRTLLM_STATUS_SYSTEM => c"TRTLLM_STATUS_SYSTEM",
        TRTLLM_STATUS_CANCELLED => c"TRTLLM_STATUS_CANCELLED",
        TRTLLM_STATUS_WRONG_THREAD => c"TRTLLM_STATUS_WRONG_THREAD",
        TRTLLM_STATUS_REQUEST_FAILED => c"TRTLLM_STATUS_REQUEST_FAILED",
        TRTLLM_STATUS_INTERNAL => c"TRTLLM_STATUS_INTERNAL",
        TRTLLM_STATUS_BUSY => c"TRTLLM_STATUS_BUSY",
        _ => c"unknown status",
    };
    name.as_ptr()
}
