//! What the server is at.

use std::time::Duration;

use tokio::sync::watch;

use crate::error::ApiError;
use crate::generate::cell::Failure;

/// What the server is at. Each follows those above it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// The engine is being opened.
    Loading,
    /// Requests are served.
    Serving,
    /// Requests are served, and load balancers are told to move away.
    Draining,
    /// Requests are refused; those that run may end.
    Refusing,
    /// Those that run are cancelled.
    Cancelling,
    /// The executor has failed.
    Failed(String),
}

/// What the server is at, for all to see.
#[derive(Debug)]
pub struct Lifecycle(watch::Sender<Phase>);

impl Default for Lifecycle {
    fn default() -> Self {
        Self(watch::Sender::new(Phase::Loading))
    }
}

impl Lifecycle {
    /// Now.
    pub fn phase(&self) -> Phase {
        self.0.borrow().clone()
    }

    /// Tells who wants to know when it changes.
    pub fn subscribe(&self) -> watch::Receiver<Phase> {
        self.0.subscribe()
    }

    /// Goes on to a phase, unless the executor has failed, after which nothing comes.
    pub fn enter(&self, phase: Phase) {
        self.0.send_if_modified(|now| {
            let changes = !matches!(now, Phase::Failed(_)) && *now != phase;
            if changes {
                *now = phase;
            }
            changes
        });
    }

    /// Whether a generation request may be taken.
    ///
    /// # Errors
    /// It may not.
    pub fn check(&self) -> Result<(), ApiError> {
        match self.phase() {
            Phase::Serving | Phase::Draining => Ok(()),
            Phase::Loading => Err(ApiError::overloaded("loading", "the engine is being opened", 2)),
            Phase::Refusing | Phase::Cancelling => Err(ApiError::shutting_down()),
            Phase::Failed(problem) => Err(ApiError::engine_failed(problem)),
        }
    }

    /// Why a request was ended with an error. That the executor has failed may be told a moment later than that the request ended.
    pub async fn explain(&self, failure: Failure) -> ApiError {
        let message = match failure {
            Failure::Executor(message) => message,
            Failure::Refused(error) => return error,
        };
        let mut phases = self.subscribe();
        let failed = phases.wait_for(|phase| matches!(phase, Phase::Failed(_)));
        match tokio::time::timeout(Duration::from_millis(100), failed).await {
            Ok(Ok(_)) => ApiError::engine_failed(message),
            _ => ApiError::internal(message),
        }
    }
}
