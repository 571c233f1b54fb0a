//! What the log says of a request: one line when its answer has ended, or its client has gone.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::keys::Charged;

/// What is known of a request, which is logged when it is dropped: whoever works on the answer holds it.
#[derive(Debug)]
pub struct Record {
    id: String,
    /// The id that the body has.
    body_id: OnceLock<String>,
    /// When its head came.
    pub arrived: Instant,
    method: &'static str,
    route: &'static str,
    is_generation: bool,
    key: OnceLock<String>,
    known: Mutex<Known>,
}

/// What became of it.
#[derive(Debug, Default)]
struct Known {
    status: Option<u16>,
    error: Option<&'static str>,
    outcome: Option<Outcome>,
    charged: Option<Charged>,
}

/// How its generation went.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// Why its sequences ended, each reason once.
    pub finish: String,
    /// Tokens of all prompts.
    pub prompt_tokens: usize,
    /// Tokens of all outputs.
    pub generated_tokens: usize,
    /// In the executor's queue; of several prompts the longest.
    pub queue: Duration,
    /// When the first token came.
    pub first_token: Option<Instant>,
    /// What ended it early.
    pub cancelled_by: Option<&'static str>,
}

impl Record {
    /// A request that has just come to a route, with its caller's own id or one made here.
    pub fn new(id: String, method: &'static str, route: &'static str, is_generation: bool) -> Self {
        let arrived = Instant::now();
        let body_id = OnceLock::new();
        Self { id, body_id, arrived, method, route, is_generation, key: OnceLock::new(), known: Mutex::default() }
    }

    /// The request's id: the body's, once it has been read, or the head's, or one made here.
    pub fn id(&self) -> &str {
        self.body_id.get().unwrap_or(&self.id)
    }

    /// The body has an id.
    pub fn set_id(&self, id: String) {
        let _ = self.body_id.set(id);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whose key it came with.
    pub fn set_key(&self, name: &str) {
        let _ = self.key.set(name.to_owned());
    }

    /// The status of its answer, which begins.
    pub fn set_status(&self, status: u16) {
        self.known().status = Some(status);
    }

    /// The error that it ended with.
    pub fn fail(&self, code: &'static str) {
        self.known().error = Some(code);
    }

    /// Whether it has ended with an error.
    pub fn has_failed(&self) -> bool {
        self.known().error.is_some()
    }

    /// What it took of its key's tokens; what it has not used by its end is given back.
    pub fn set_charged(&self, charged: Charged) {
        self.known().charged = Some(charged);
    }

    /// Its generation has ended.
    pub fn end(&self, outcome: Outcome) {
        self.known().outcome = Some(outcome);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let seconds = self.arrived.elapsed().as_secs_f64();
        let (key, id, method, route) = (self.key.get(), self.id(), self.method, self.route);
        let Known { status, error, outcome, charged } = std::mem::take(&mut *self.known());
        if let Some(charged) = charged {
            charged.settle(outcome.as_ref().map_or(0, |outcome| outcome.prompt_tokens + outcome.generated_tokens));
        }
        // Nobody was there to be answered.
        let gone = (status.is_none() && outcome.is_none()).then_some("client");
        if !self.is_generation {
            tracing::debug!(request = %id, key, method, route, status, error, cancelled_by = gone, seconds, "answered");
            return;
        }
        let Some(outcome) = outcome else {
            tracing::info!(request = %id, key, method, route, status, error, cancelled_by = gone, seconds, "answered");
            return;
        };
        tracing::info!(
            request = %id,
            key,
            method,
            route,
            status,
            error,
            finish = outcome.finish,
            prompt_tokens = outcome.prompt_tokens,
            generated_tokens = outcome.generated_tokens,
            queue_seconds = outcome.queue.as_secs_f64(),
            ttft_seconds = outcome.first_token.map(|first| first.duration_since(self.arrived).as_secs_f64()),
            cancelled_by = outcome.cancelled_by,
            seconds,
            "answered"
        );
    }
}
