//! What every request can reach.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::config::Settings;
use crate::error::ApiError;
use crate::generate::pool::{Pool, PoolError};
use crate::http::listener::Address;
use crate::keys::Keys;
use crate::metrics::{Histogram, Metrics};
use crate::model::{Model, Parts};
use crate::operations::{Lifecycle, Phase};

/// What every request can reach.
#[derive(Debug)]
pub struct State {
    /// As they were given.
    pub settings: Settings,
    /// Where the server listens.
    pub address: Address,
    /// What the server is at.
    pub lifecycle: Lifecycle,
    /// Who may ask.
    pub keys: Keys,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where requests are prepared.
    pub pool: Pool,
    /// Threads of it.
    pub prepare_threads: usize,
    model: OnceLock<Model>,
}

impl State {
    /// A server that has no engine yet.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn new(settings: Settings, keys: Keys, address: Address) -> std::io::Result<Arc<Self>> {
        let threads = match settings.prepare_threads {
            0 => (processors() / 2).max(2),
            threads => threads,
        };
        Ok(Arc::new(Self {
            pool: Pool::start(threads)?,
            prepare_threads: threads,
            settings,
            address,
            lifecycle: Lifecycle::default(),
            keys,
            metrics: Arc::default(),
            model: OnceLock::new(),
        }))
    }

    /// The engine is open: requests are served from now on, and the executor is watched.
    ///
    /// # Errors
    /// The thread that watches cannot be started.
    pub fn open(self: &Arc<Self>, parts: Parts) -> std::io::Result<()> {
        let _ = self.model.set(Model::new(parts, &self.settings, &self.metrics));
        self.metrics.advance();
        let state = self.clone();
        system::threads::spawn("trtllm-watch", move || crate::operations::watch(&state))?;
        self.lifecycle.enter(Phase::Serving);
        Ok(())
    }

    /// The engine, once it is open.
    pub fn model(&self) -> Option<&Model> {
        self.model.get()
    }

    /// The engine, for a request that may be served.
    ///
    /// # Errors
    /// It is not open, or requests are not taken any more.
    pub fn serving(&self) -> Result<&Model, ApiError> {
        self.lifecycle.check()?;
        self.model().ok_or_else(|| ApiError::overloaded("loading", "the engine is being opened", 2))
    }

    /// An error as it is answered: with the status that the settings have for a full server.
    pub fn answered(&self, error: ApiError) -> ApiError {
        let full = http::StatusCode::from_u16(self.settings.overload_status).ok();
        let status = full.filter(|_| error.code == "queue_full").unwrap_or(error.status);
        ApiError { status, ..error }
    }

    /// Runs a job on a thread that prepares, unless its client has gone before.
    ///
    /// # Errors
    /// The job's; or too many wait.
    pub async fn prepare<T: Send + 'static>(
        self: &Arc<Self>,
        job: impl FnOnce(&Self) -> Result<T, ApiError> + Send + 'static,
    ) -> Result<T, ApiError> {
        self.metrics.preparing.add(1);
        let mut preparing = Preparing(self.clone(), Instant::now(), |metrics| &metrics.prepare_queue);
        let job = move || {
            preparing.begin();
            job(&preparing.0)
        };
        let done = self.pool.run(job).await;
        done.map_err(|error| match error {
            PoolError::Full => {
                self.metrics.count_rejection("preparation");
                ApiError::overloaded("queue_full", error.to_string(), 1)
            }
            PoolError::Panicked => ApiError::internal(error.to_string()),
        })?
    }

    /// Whether there is work and the executor has not advanced for too long.
    pub fn is_stalled(&self) -> bool {
        let works = self.model().is_some_and(|model| model.admission().under_way().0 > 0);
        works && self.metrics.since_advance() > Duration::from_secs_f64(self.settings.stall_timeout)
    }
}

/// Counts a request as in preparation, from when it began to wait for it or to be prepared.
struct Preparing(Arc<State>, Instant, fn(&Metrics) -> &Histogram);

impl Preparing {
    fn begin(&mut self) {
        (self.2)(&self.0.metrics).observe_time(self.1.elapsed());
        self.1 = Instant::now();
        self.2 = |metrics| &metrics.prepare_work;
    }
}

impl Drop for Preparing {
    fn drop(&mut self) {
        self.0.metrics.preparing.sub(1);
        (self.2)(&self.0.metrics).observe_time(self.1.elapsed());
    }
}

/// Processors that the process may use.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
