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

// In reading order: output, output_queue, queues, ends, sequence, entry, arrivals, router.
mod arrivals;
mod ends;
mod entry;
mod output;
mod output_queue;
mod queues;
mod router;
mod sequence;

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{JoinHandle, ThreadId};
use std::time::Duration;

use text::stop_strings::StopStrings;
use text::text_stream::TextStream;
use text::tokenizer::LazyTokenizer;

use crate::executor::{EnqueueError, Executor, Request, RequestId, Shutdown};

pub use output::{Output, SequenceStats, StopReason};
pub use output_queue::{Awaited, OutputQueue};

use arrivals::Arrivals;
use entry::Entry;
use queues::Queues;

/// A request, and what is wanted beside its tokens.
pub struct Submission {
    /// What to run. Where it does not stream, each sequence has one output, at its end; stop strings stop it all the same.
    pub request: Request,
    /// Strings that end the text of a sequence. They match nothing without text.
    pub stop_strings: StopStrings,
    /// Whether texts leave special tokens out.
    pub skip_special_tokens: bool,
    /// Whether outputs carry text; without a tokenizer that can be opened they never do.
    pub text: bool,
    /// Where the outputs go.
    pub destination: Destination,
    /// Comes back with every output.
    pub tag: u64,
}

/// Where the outputs of a request go.
#[derive(Default)]
pub enum Destination {
    /// To whoever waits in [`Session::await_outputs`].
    #[default]
    Session,
    /// To a queue of [`Session::new_queue`]. Where that was abandoned, the request is cancelled.
    Queue(Arc<OutputQueue>),
    /// To a function, called on the session's thread. It may submit and cancel; what it must not do is wait for outputs. All
    /// other outputs wait until it returns. If it fails, it is called once more with that error, which ends the request. If it
    /// panics it is not called again, and the request is cancelled.
    Callback(OutputCallback),
    /// To nobody.
    Nowhere,
}

/// Takes the outputs of one request; dropped after the final one. An error is a sentence.
pub type OutputCallback = Box<dyn FnMut(Output) -> Result<(), String> + Send>;

impl Submission {
    /// A request whose outputs carry text and are waited for.
    pub fn new(request: Request) -> Self {
        Self {
            request,
            stop_strings: StopStrings::default(),
            skip_special_tokens: true,
            text: true,
            destination: Destination::Session,
            tag: 0,
        }
    }
}

impl fmt::Debug for Submission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submission").field("request", &self.request).finish_non_exhaustive()
    }
}

/// An executor and the thread that routes its outputs. All methods may be called from any thread.
pub struct Session {
    executor: Arc<dyn Executor>,
    tokenizer: Option<LazyTokenizer>,
    arrivals: Arc<Arrivals>,
    queues: Arc<Queues>,
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
    pub fn start(executor: Arc<dyn Executor>, tokenizer: Option<LazyTokenizer>) -> io::Result<Self> {
        let (arrivals, queues) = (Arc::new(Arrivals::default()), Arc::new(Queues::default()));
        let shared = (executor.clone(), arrivals.clone(), queues.clone());
        let router =
            system::threads::spawn("trtllm-session", move || router::run(shared.0.as_ref(), &shared.1, &shared.2))?;
        let router_id = router.thread().id();
        Ok(Self { executor, tokenizer, arrivals, queues, router: Mutex::new(Some(router)), router_id })
    }

    /// Queues a request.
    ///
    /// # Errors
    /// [`EnqueueError`]; the callback is then dropped without a call.
    pub fn submit(&self, submission: Submission) -> Result<RequestId, EnqueueError> {
        let Submission { mut request, stop_strings, skip_special_tokens, text, destination, tag } = submission;
        let tokenizer = self.tokenizer.as_ref().filter(|_| text).and_then(|tokenizer| tokenizer.get().ok());
        // To stop at the token that completes a stop string, the executor must stream. Beams never stream.
        let gathers = tokenizer.is_some() && !stop_strings.is_empty() && !request.spec().streaming;
        if gathers {
            request = request.streamed();
        }
        let request = request.with_own_post_processor();
        let spec = request.spec();
        let stream = tokenizer.map(|tokenizer| {
            let is_guided = spec.guided_decoding.is_some();
            TextStream::new(tokenizer, &spec.input_token_ids, is_guided, skip_special_tokens, stop_strings)
        });
        let entry = Entry::new(spec, stream, gathers, destination, tag);
        self.arrivals.submit(entry, || self.executor.enqueue(request))
    }

    /// Waits until there are outputs of requests whose destination is the session, and takes all of them; without a limit where
    /// `timeout` is `None`. Outputs that nobody takes are kept; thousands that wait are merged, those of a sequence into one.
    pub fn await_outputs(&self, timeout: Option<Duration>) -> Awaited {
        self.queues.shared.take(timeout)
    }

    /// The queue of [`Session::await_outputs`].
    pub fn queue(&self) -> &OutputQueue {
        &self.queues.shared
    }

    /// A queue for the outputs of some requests alone. It closes with the session.
    pub fn new_queue(&self) -> Arc<OutputQueue> {
        self.queues.add()
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
            // The thread catches its own panics.
            let _ = router.join();
        }
    }

    /// The executor.
    pub fn executor(&self) -> &dyn Executor {
        self.executor.as_ref()
    }

    /// The executor, for those that outlive a borrow of the session.
    pub fn shared_executor(&self) -> Arc<dyn Executor> {
        self.executor.clone()
    }

    /// The tokenizer, if there is one; parsed with the first request whose outputs carry text.
    pub fn tokenizer(&self) -> Option<&LazyTokenizer> {
        self.tokenizer.as_ref()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.shutdown(Shutdown::Cancel);
    }
}
