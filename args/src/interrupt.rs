//! Ctrl-C and SIGTERM.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;

use runner::executor::Executor;

use crate::exit::INTERRUPTED;

/// Ctrl-C and SIGTERM: the first ends the run in order, the second at once.
pub struct Interrupt {
    happened: Arc<AtomicBool>,
    executor: Arc<Mutex<Option<Arc<dyn Executor>>>>,
}

impl Interrupt {
    /// Watches for signals from now on.
    pub fn install() -> anyhow::Result<Self> {
        let interrupt = Self { happened: Arc::default(), executor: Arc::default() };
        let (happened, executor) = (interrupt.happened.clone(), interrupt.executor.clone());
        let handler = move || {
            let again = happened.swap(true, Ordering::SeqCst);
            let executor = executor.lock().unwrap_or_else(PoisonError::into_inner).clone();
            match executor {
                Some(executor) if !again => executor.cancel_all(),
                _ => exit_interrupted(),
            }
        };
        ctrlc::set_handler(handler).context("cannot watch for signals")?;
        Ok(interrupt)
    }

    /// From now on, a signal ends what `executor` runs, in order.
    pub fn watch(&self, executor: &Arc<dyn Executor>) {
        *self.executor.lock().unwrap_or_else(PoisonError::into_inner) = Some(executor.clone());
    }

    /// Ends the run as a first signal would.
    pub fn stop(&self) {
        if let Some(executor) = &*self.executor.lock().unwrap_or_else(PoisonError::into_inner) {
            executor.cancel_all();
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
