//! Ctrl-C and SIGTERM.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::exit::INTERRUPTED;

/// A signal that a program listens to. SIGHUP ends a program that ends with its terminal; a server reads its keys again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
    /// SIGHUP: the terminal has gone.
    Hangup,
}

/// From now on `handler` is called for every such signal, on a thread of its own.
///
/// # Errors
/// The signals cannot be watched.
pub fn on_signal(mut handler: impl FnMut(Signal) + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        for signal in signals.forever() {
            handler(match signal {
                SIGINT => Signal::Interrupt,
                SIGHUP => Signal::Hangup,
                _ => Signal::Terminate,
            });
        }
    })?;
    Ok(())
}

/// Says whether a signal, which may be another after a first, needs nothing more: the process ends at once if not.
type Handler = Arc<dyn Fn(Signal, bool) -> bool + Send + Sync>;

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
        let on_each = move |signal| {
            let again = happened.swap(true, Ordering::SeqCst);
            let handler = handler.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if !handler.is_some_and(|handler| handler(signal, again)) {
                exit_interrupted();
            }
        };
        on_signal(on_each).context("cannot watch for signals")?;
        Ok(interrupt)
    }

    fn set(&self, handler: Handler) {
        *self.handler.lock().unwrap_or_else(PoisonError::into_inner) = Some(handler);
    }

    /// From now on, a first signal calls `handler`, which ends the run in order. It is called on a thread of its own.
    pub fn watch(&self, handler: impl Fn() + Send + Sync + 'static) {
        self.set(Arc::new(move |_, again| {
            if !again {
                handler();
            }
            !again
        }));
    }

    /// From now on, every signal calls `handler`, which says whether the run goes on. It is called on a thread of its own.
    pub fn watch_each(&self, handler: impl Fn(Signal) -> bool + Send + Sync + 'static) {
        self.set(Arc::new(move |signal, _| handler(signal)));
    }

    /// Ends the run as a first signal would.
    pub fn stop(&self) {
        let handler = self.handler.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(handler) = handler {
            handler(Signal::Interrupt, false);
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
    // Nothing is flushed: who prints may hold standard output for as long as nobody reads it.
    std::process::exit(INTERRUPTED.into())
}
