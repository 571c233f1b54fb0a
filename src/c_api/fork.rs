//! Forks. The child of a `fork()` has none of the library's threads, and finds its locks as they happened to be: whatever waits
//! for either waits for ever. So once this process has an engine, its children are told so before they touch anything.

use std::ffi::c_int;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use super::status::{Failure, TRTLLM_STATUS_SHUT_DOWN, TRTLLM_STATUS_SYSTEM};

static IS_FORK: AtomicBool = AtomicBool::new(false);

/// What `pthread_atfork` answered.
static WATCHED: OnceLock<c_int> = OnceLock::new();

/// Runs in the child, where little is allowed.
extern "C" fn mark() {
    IS_FORK.store(true, Ordering::Relaxed);
}

/// From now on, children of this process answer `TRTLLM_STATUS_SHUT_DOWN`.
///
/// # Errors
/// There is no memory for it.
pub(crate) fn watch() -> Result<(), Failure> {
    // In here, where the maker of trtllm.h does not look.
    type Handler = Option<extern "C" fn()>;
    unsafe extern "C" {
        fn pthread_atfork(prepare: Handler, parent: Handler, child: Handler) -> c_int;
    }
    // SAFETY: the handler lives as long as the library, touches one atomic flag, and does not unwind.
    match WATCHED.get_or_init(|| unsafe { pthread_atfork(None, None, Some(mark)) }) {
        0 => Ok(()),
        error => {
            let error = std::io::Error::from_raw_os_error(*error);
            Err(Failure::new(TRTLLM_STATUS_SYSTEM, format!("cannot watch for forks of this process: {error}")))
        }
    }
}

/// Refuses to go on in the child of a process that had an engine.
pub(crate) fn check() -> Result<(), Failure> {
    if !IS_FORK.load(Ordering::Relaxed) {
        return Ok(());
    }
    Err(Failure::new(
        TRTLLM_STATUS_SHUT_DOWN,
        "this process is a fork() of one that had opened or built an engine, and has none of the library's threads: fork before \
         that, or exec() another program",
    ))
}
