//! An executor as the threads of a host share it: requests go in from any of them, and one thread of the session turns
//! tokens into text and brings every output to the request's callback, or to whoever waits in
//! [`Session::await_outputs`].
//!
//! ```no_run
//! use runner::engine::Engine;
//! use runner::executor::{Executor, ExecutorConfig, Request, RequestSpec};
//! use runner::session::{Awaited, Session, Submission};
//!
//! let engine = Engine::open("engine".as_ref(), &ExecutorConfig::default())?;
//! let executor = engine.executor().clone();
//! let session = Session::start(executor.clone(), engine.tokenizer().cloned())?;
//! let request = Request::new(RequestSpec::new(vec![1, 2, 3], 16), executor.limits(), executor.vocab_size())?;
//! session.submit(Submission::new(request))?;
//! while let Awaited::Outputs(outputs) = session.await_outputs(None) {
//!     if outputs.iter().any(|output| output.response.is_final()) {
//!         break;
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod router;
mod sequence;

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, ThreadId};
use std::time::Duration;

use crate::executor::{EnqueueError, Executor, Request, RequestId, Response, Shutdown};
use crate::outbox::{Outbox, Taken};
use text::stop_strings::StopStrings;
use text::tokenizer::Tokenizer;

use router::{Doorstep, Entry};

/// A request, and what is wanted beside its tokens.
pub struct Submission {
    /// What to run.
    pub request: Request,
    /// Strings that end the text of a sequence; they are not part of it. They match nothing without text.
    pub stop_strings: StopStrings,
    /// Whether outputs carry text; without a tokenizer they never do.
    pub text: bool,
    /// Takes the request's outputs, on the session's thread, instead of [`Session::await_outputs`]. It may submit and
    /// cancel; what it must not do is wait for outputs. All other outputs wait until it returns.
    pub on_output: Option<OutputCallback>,
    /// Comes back with every output.
    pub tag: u64,
}

/// Takes the outputs of one request; dropped after the final one.
pub type OutputCallback = Box<dyn FnMut(Output) + Send>;

impl Submission {
    /// A request whose outputs carry text and are waited for.
    pub fn new(request: Request) -> Self {
        Self { request, stop_strings: StopStrings::default(), text: true, on_output: None, tag: 0 }
    }
}

impl fmt::Debug for Submission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submission").field("request", &self.request).finish_non_exhaustive()
    }
}

/// What an executor's response says, as text too.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// The response. Where a stop string ended the sequence, tokens after the one that completed it are cut off, and the
    /// finish reason is `stop_words`.
    pub response: Response,
    /// The text that is new and certain: whole characters, without special tokens and what a stop string cuts off.
    pub text: String,
    /// With the last output of a sequence.
    pub stats: Option<SequenceStats>,
    /// The submission's.
    pub tag: u64,
}

/// What waiting for outputs led to.
#[derive(Debug, Clone, PartialEq)]
pub enum Awaited {
    /// At least one, in order.
    Outputs(Vec<Output>),
    /// None came in time.
    TimedOut,
    /// The session was shut down and every output has been taken.
    Closed,
}

/// How one sequence went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SequenceStats {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Tokens generated.
    pub output_tokens: usize,
    /// From submission to the first token; `None` when there was none.
    pub time_to_first_token: Option<Duration>,
    /// From the first token to the last.
    pub generation_time: Duration,
}

/// An executor and the thread that routes its outputs. All methods may be called from any thread.
pub struct Session {
    executor: Arc<dyn Executor>,
    tokenizer: Option<Arc<Tokenizer>>,
    doorstep: Arc<Doorstep>,
    outbox: Arc<Outbox<Output>>,
    router: Mutex<Option<JoinHandle<()>>>,
    router_id: ThreadId,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    /// Starts the session's thread. The executor is the session's alone: responses that others wait for would be lost.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(executor: Arc<dyn Executor>, tokenizer: Option<Arc<Tokenizer>>) -> io::Result<Self> {
        let (doorstep, outbox) = (Arc::new(Doorstep::default()), Arc::new(Outbox::default()));
        let shared = (executor.clone(), doorstep.clone(), outbox.clone());
        let router = std::thread::Builder::new()
            .name("session".into())
            .spawn(move || router::run(shared.0.as_ref(), &shared.1, &shared.2))?;
        let router_id = router.thread().id();
        Ok(Self { executor, tokenizer, doorstep, outbox, router: Mutex::new(Some(router)), router_id })
    }

    /// Queues a request.
    ///
    /// # Errors
    /// [`EnqueueError`]; the callback is then dropped without a call.
    pub fn submit(&self, submission: Submission) -> Result<RequestId, EnqueueError> {
        let Submission { request, stop_strings, text, on_output, tag } = submission;
        let tokenizer = self.tokenizer.as_deref().filter(|_| text);
        let entry = Entry::new(request.spec(), tokenizer, stop_strings, on_output, tag);
        self.doorstep.submit(entry, || self.executor.enqueue(request))
    }

    /// Waits until there are outputs of requests without a callback and takes all of them, in order; without a limit where
    /// `timeout` is `None`. Outputs that nobody takes are kept in memory.
    pub fn await_outputs(&self, timeout: Option<Duration>) -> Awaited {
        match self.outbox.take(timeout) {
            Taken::Items(outputs) => Awaited::Outputs(outputs),
            Taken::TimedOut => Awaited::TimedOut,
            Taken::Closed => Awaited::Closed,
        }
    }

    /// Ends a request early; it still ends with a final output. An unknown id is ignored.
    pub fn cancel(&self, request: RequestId) {
        self.executor.cancel(request);
    }

    /// Takes no more requests, ends those that there are and returns when all have ended and every callback has returned;
    /// called from a callback, it does not wait for that one. Outputs can still be taken. Not to be called from a
    /// [`LogitsPostProcessor`](crate::executor::LogitsPostProcessor), for which it would wait.
    pub fn shutdown(&self, how: Shutdown) {
        self.executor.shutdown(how);
        if std::thread::current().id() == self.router_id {
            return;
        }
        // The lock is held while joining, so that a second caller waits too.
        let mut router = self.router.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(router) = router.take() {
            // A callback that panicked has already been reported by the panic hook.
            let _ = router.join();
        }
    }

    /// The executor.
    pub fn executor(&self) -> &dyn Executor {
        self.executor.as_ref()
    }

    /// The tokenizer, if there is one.
    pub fn tokenizer(&self) -> Option<&Tokenizer> {
        self.tokenizer.as_deref()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shutdown(Shutdown::Cancel);
    }
}
