//! The thread that reads prompts, makes requests of them and submits them, while those before them run.
//!
//! So many prompts are under way at most: one more is read when one is over, and, where texts are printed in order, printed.
//! That bounds the memory of a run, however many prompts it has.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use anyhow::anyhow;
use args::Failure;
use runner::executor::EnqueueError;
use runner::session::{Destination, Output, Session, Submission};

use super::completions::Running;

/// One prompt to complete.
pub(super) struct Job {
    /// Number of the prompt, from 0; comes back with everything about it.
    pub index: usize,
    /// What messages call it.
    pub name: Option<String>,
    /// What to run, or why there is nothing.
    pub submission: Result<Submission, Failure>,
    /// What its user may not expect.
    pub warnings: Vec<String>,
}

/// What happens to prompts.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly everything is an output, and a box would cost each an allocation"
)]
pub(super) enum Fed {
    /// A prompt is about to be submitted.
    Started(Running),
    /// The executor has made more of one, whose number is the tag.
    Output(Output),
    /// A prompt does not run.
    Refused {
        /// Number of the prompt.
        index: usize,
        /// Why not, with the prompt's name.
        failure: Failure,
    },
    /// A prompt does not run, because the executor takes no more.
    Closed {
        /// Number of the prompt.
        index: usize,
    },
    /// No more prompts come. An error is about all of them.
    End(Result<(), Failure>),
    /// No more prompts are wanted.
    Stop,
}

/// The thread, as who takes in what it says sees it.
pub(super) struct Feed {
    fed: Receiver<Fed>,
    sender: Sender<Fed>,
    permits: Sender<()>,
}

impl Feed {
    /// Starts the thread. Of the prompts, `window` are under way at most.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn start(
        session: Arc<Session>,
        jobs: impl Iterator<Item = Result<Job, Failure>> + Send + 'static,
        window: usize,
    ) -> io::Result<Self> {
        let (sender, fed) = mpsc::channel();
        let (permits, taken) = mpsc::channel();
        let feed = Self { fed, sender: sender.clone(), permits };
        (0..window).for_each(|_| feed.allow_another());
        let feeder = Feeder { session, sender, permits: taken };
        std::thread::Builder::new().name("prompts".into()).spawn(move || {
            let end = catch_unwind(AssertUnwindSafe(|| feeder.run(jobs)));
            let end = end.unwrap_or_else(|_| Err(Failure::Other(anyhow!("reading the prompts ended unexpectedly"))));
            feeder.send(Fed::End(end));
        })?;
        Ok(feed)
    }

    /// Waits for the next thing that happens.
    pub(super) fn next(&self) -> Option<Fed> {
        self.fed.recv().ok()
    }

    /// Says that a prompt is over, so that another may take its place.
    pub(super) fn allow_another(&self) {
        // The thread may be over.
        let _ = self.permits.send(());
    }

    /// What tells that no more prompts are wanted. The thread itself may wait for a line that never comes, and is left alone.
    pub(super) fn stopper(&self) -> impl Fn() + Send + Sync + 'static {
        let sender = std::sync::Mutex::new(self.sender.clone());
        move || {
            if let Ok(sender) = sender.lock() {
                let _ = sender.send(Fed::Stop);
            }
        }
    }
}

struct Feeder {
    session: Arc<Session>,
    sender: Sender<Fed>,
    permits: Receiver<()>,
}

impl Feeder {
    fn run(&self, jobs: impl Iterator<Item = Result<Job, Failure>>) -> Result<(), Failure> {
        for job in jobs {
            let job = job?;
            if self.permits.recv().is_err() || !self.submit(job)? {
                break;
            }
        }
        Ok(())
    }

    /// Whether further prompts can be submitted.
    fn submit(&self, job: Job) -> Result<bool, Failure> {
        let Job { index, name, submission, warnings } = job;
        let submission = match submission {
            Ok(submission) => submission,
            Err(failure) => {
                self.send(Fed::Refused { index, failure: failure.of(name.as_deref()) });
                return Ok(true);
            }
        };
        let has_text = submission.text && self.session.tokenizer().is_some_and(|tokenizer| tokenizer.get().is_ok());
        self.send(Fed::Started(Running::new(index, name.clone(), submission.request.spec(), has_text, warnings)));
        loop {
            let error = match self.session.submit(self.copy(&submission, index)) {
                Ok(_) => return Ok(true),
                Err(error) => error,
            };
            match error {
                // What is under way goes on; with one prompt less at a time, until the queue holds them.
                EnqueueError::QueueFull { .. } => {
                    if self.permits.recv().is_err() {
                        return Ok(false);
                    }
                }
                EnqueueError::ShutDown => {
                    self.send(Fed::Closed { index });
                    return Ok(false);
                }
                EnqueueError::Failed { .. } => {
                    self.send(Fed::Closed { index });
                    return Err(Failure::Other(error.into()));
                }
                error => {
                    self.send(Fed::Refused { index, failure: Failure::Input(error.into()).of(name.as_deref()) });
                    return Ok(true);
                }
            }
        }
    }

    fn copy(&self, submission: &Submission, index: usize) -> Submission {
        let sender = self.sender.clone();
        let on_output = move |output| {
            // Who listened may have left: the run is over.
            let _ = sender.send(Fed::Output(output));
            Ok(())
        };
        Submission {
            stop_strings: submission.stop_strings.clone(),
            text: submission.text,
            tag: index as u64,
            destination: Destination::Callback(Box::new(on_output)),
            skip_special_tokens: submission.skip_special_tokens,
            ..Submission::new(submission.request.clone())
        }
    }

    fn send(&self, fed: Fed) {
        // Who listened may have left: the run is over.
        let _ = self.sender.send(fed);
    }
}
