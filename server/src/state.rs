//! What every request can reach.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::config::Settings;
use crate::error::ApiError;
use crate::generate::pool::Pool;
use crate::http::listener::Address;
use crate::keys::Keys;
use crate::metrics::Metrics;
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

    /// Whether there is work and the executor has not advanced for too long.
    pub fn is_stalled(&self) -> bool {
        let works = self.model().is_some_and(|model| model.admission().under_way().0 > 0);
        works && self.metrics.since_advance() > Duration::from_secs_f64(self.settings.stall_timeout)
    }
}

/// Processors that the process may use.
pub fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}
