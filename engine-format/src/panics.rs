//! Panics that become errors, in silence.
//!
//! A panic calls the process's panic hook before anything can catch it, and the default hook prints. The first [`caught`] of a
//! process therefore puts a hook in front of the one that it finds. It is silent for a panic inside [`caught`], on that thread
//! alone, and hands every other panic on to the hook behind it, so that a host's hook hears what it heard before. A host that
//! sets a hook of its own later replaces both: it then hears of caught panics too.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

thread_local! {
    /// How many calls of [`caught`] this thread is in.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// Runs `run`, in which another's code may panic, and prints nothing. What it leaves half-changed is not to be used again.
///
/// Code of a host does not belong here: its panics are for its own hook.
///
/// # Errors
/// It panicked; the panic's message.
pub fn caught<T>(run: impl FnOnce() -> T) -> Result<T, String> {
    install_hook();
    DEPTH.set(DEPTH.get() + 1);
    let ended = catch_unwind(AssertUnwindSafe(run));
    DEPTH.set(DEPTH.get() - 1);
    ended.map_err(|payload| {
        let message = payload.downcast_ref::<String>().cloned();
        let message = message.or_else(|| payload.downcast_ref::<&str>().map(|&text| text.to_owned()));
        if message.is_none() {
            // To drop a payload may panic again, outside of every catch.
            std::mem::forget(payload);
        }
        message.unwrap_or_else(|| "no reason was given".to_owned())
    })
}

fn install_hook() {
    static INSTALLED: Once = Once::new();
    // The hook cannot be changed while a panic unwinds this thread; a later call changes it.
    if INSTALLED.is_completed() || std::thread::panicking() {
        return;
    }
    INSTALLED.call_once(|| {
        let behind = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            if DEPTH.get() == 0 {
                behind(panic);
            }
        }));
    });
}
