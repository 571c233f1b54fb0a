//! How long work tells how far it is, and how it is told to stop.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{BuildError, Result};

/// Receives how far a long task is, and what there is to say about it. Called from any thread, a few times for every hundred megabytes.
pub trait Progress: Sync {
    /// A task of `total_bytes` begins; `what` is a noun phrase such as `writing rank0.weights`.
    fn begin(&self, what: &str, total_bytes: u64);
    /// A task of `steps` steps begins, whose size in bytes nobody knows: TensorRT's.
    fn begin_steps(&self, what: &str, steps: u64);
    /// `done` more bytes, or steps, are done.
    fn advance(&self, done: u64);
    /// The task is done, or has failed.
    fn end(&self);
    /// A sentence about what was found, chosen or done.
    fn note(&self, text: &str);
    /// A sentence for those who want to know more.
    fn detail(&self, text: &str);
    /// A result that was asked for on standard output, whole.
    ///
    /// # Errors
    /// It cannot be written there; by default there is no standard output.
    fn output(&self, _text: &str) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// Says nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn begin(&self, _what: &str, _total_bytes: u64) {}
    fn begin_steps(&self, _what: &str, _steps: u64) {}
    fn advance(&self, _done: u64) {}
    fn end(&self) {}
    fn note(&self, _text: &str) {}
    fn detail(&self, _text: &str) {}
}

/// A wish to stop, looked at a few times for every hundred megabytes of work.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// No wish yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// A second handle to the same wish, for a signal handler.
    pub fn handle(&self) -> Self {
        self.clone()
    }

    /// Asks to stop.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether [`Interrupt::set`] was called.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Whether to go on.
    ///
    /// # Errors
    /// [`BuildError::Interrupted`] once [`Interrupt::set`] was called.
    pub fn check(&self) -> Result<()> {
        if self.is_set() { Err(BuildError::Interrupted) } else { Ok(()) }
    }
}
