//! The threads that prepare requests: templates, tokenizer and guides take milliseconds, which streams are not to wait for.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

/// Jobs that may wait for each thread.
const WAITING: usize = 256;

/// Why a job has no result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Too many wait.
    #[error("too many requests wait to be prepared")]
    Full,
    /// It panicked.
    #[error("the preparation of the request ended unexpectedly")]
    Panicked,
}

/// A fixed number of threads and a bounded queue. The threads end when it is dropped and the queue is empty.
#[derive(Debug)]
pub struct Pool {
    jobs: SyncSender<Job>,
}

impl Pool {
    /// Starts the threads.
    ///
    /// # Errors
    /// One of them cannot be started.
    pub fn start(threads: usize) -> std::io::Result<Self> {
        let (jobs, queue) = sync_channel(WAITING * threads);
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..threads {
            let queue = queue.clone();
            system::threads::spawn("trtllm-prepare", move || work(&queue))?;
        }
        Ok(Self { jobs })
    }

    /// Runs a job. If the future is dropped before the job has begun it never does, and what comes of one that has is dropped.
    ///
    /// # Errors
    /// [`PoolError`].
    pub async fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> Result<T, PoolError> {
        let (sender, receiver) = oneshot::channel();
        let job = move || {
            if !sender.is_closed() {
                let _ = sender.send(job());
            }
        };
        self.jobs.try_send(Box::new(job)).map_err(|error| match error {
            TrySendError::Full(_) => PoolError::Full,
            TrySendError::Disconnected(_) => PoolError::Panicked,
        })?;
        receiver.await.map_err(|_| PoolError::Panicked)
    }
}

fn work(queue: &Mutex<Receiver<Job>>) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // Whoever waits for it is told, because the sender is dropped.
        let _ = catch_unwind(AssertUnwindSafe(job));
    }
}
