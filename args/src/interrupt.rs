//! Ctrl-C and SIGTERM.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;

use crate::exit::INTERRUPTED;

/// What a first signal does.
type Handler = Arc<dyn Fn() + Send + Sync>;

/// Ctrl-C and SIGTERM: the first ends the run in order, the second at once.
pub struct Interrupt {
    happened: Arc<AtomicBool>,
    handler: Arc<Mutex<Option<Handler>>>,
}

impl Interrupt {
    /// Watches for signals from now on.
    pub fn install() -> anyhow::Result<Self> {
        let interrupt = Self { happened: Arc::default(), handler: Arc::default() };
        let (happened, handler) = (interrupt.happened.clone(), interrupt.handler.clone());
        let on_signal = move || {
            let again = happened.swap(true, Ordering::SeqCst);
            let handler = handler.lock().unwrap_or_else(PoisonError::into_inner).clone();
            match handler {
                Some(handler) if !again => handler(),
                _ => exit_interrupted(),
            }
        };
        ctrlc::set_handler(on_signal).context("cannot watch for signals")?;
        Ok(interrupt)
    }

    /// From now on, a signal calls `handler`, which ends the run in order. It is called on a thread of its own.
    pub fn watch(&self, handler: impl Fn() + Send + Sync + 'static) {
        *self.handler.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(handler));
    }

    /// Ends the run as a first signal would.
    pub fn stop(&self) {
        let handler = self.handler.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(handler) = handler {
            handler();
        }
    }

    /// Whether a signal came.
    pub fn happened(&self) -> bool {
        self.happened.load(Ordering::SeqCst)
    }
}

/// Ends the process where nothing has to be put away.
#[expect(clippy::exit, reason = "a second signal, or one before anything runs, must end the process from its handler")]
fn exit_interrupted() -> ! {
    let _ = io::stdout().flush();
    std::process::exit(INTERRUPTED.into())
}
