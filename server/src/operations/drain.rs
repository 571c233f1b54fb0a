//! The order of the server's end.
//!
//! After SIGTERM the server is not ready at once, serves on for a grace in which load balancers move away, then refuses what comes,
//! lets what runs end, and cancels what has not ended in time. A second signal cancels at once.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep, timeout};

use crate::state::State;

use super::Signal;
use super::lifecycle::Phase;

/// How the server ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// After a signal, in order.
    Drained,
    /// After a second signal.
    Interrupted,
    /// The executor has failed.
    Failed(String),
}

/// How long answers may take to go out when everything has ended.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How often it is looked whether everything has ended.
const LOOK: Duration = Duration::from_millis(10);

/// Waits for a signal or for the executor's failure, and ends the server in order. The executor is shut down by the caller.
pub async fn drain(state: &Arc<State>, signals: &mut UnboundedReceiver<Signal>) -> Outcome {
    let mut phases = state.lifecycle.subscribe();
    let signal = tokio::select! {
        signal = first(state, signals) => signal,
        problem = failure(&mut phases) => {
            // Whoever ends the server meanwhile need not wait for it.
            let grace = sleep(Duration::from_secs_f64(state.settings.fail_grace));
            tokio::select! {
                () = grace => {}
                _ = first(state, signals) => {}
            }
            return Outcome::Failed(problem);
        }
    };
    tracing::info!("a signal came: the server is not ready any more");
    state.lifecycle.enter(Phase::Draining);
    let grace = if signal == Signal::Interrupt { 0.0 } else { state.settings.drain_grace };
    let ended = tokio::select! {
        () = end(state, grace) => Outcome::Drained,
        _ = first(state, signals) => Outcome::Interrupted,
    };
    state.lifecycle.enter(Phase::Cancelling);
    if let Some(model) = state.model() {
        model.session().executor().cancel_all();
    }
    // Every answer gets its end, and its reader the time to take it.
    let gone = async {
        while state.metrics.connections.get() > 0 {
            sleep(LOOK).await;
        }
    };
    let _ = timeout(LAST_WORDS, gone).await;
    match state.lifecycle.phase() {
        Phase::Failed(problem) => Outcome::Failed(problem),
        _ => ended,
    }
}

/// The next signal that ends the server.
async fn first(state: &State, signals: &mut UnboundedReceiver<Signal>) -> Signal {
    loop {
        match signals.recv().await {
            Some(Signal::Hangup) => match state.keys.reload() {
                Ok(count) => tracing::info!("read {count} API keys again"),
                Err(problem) => tracing::error!("{problem}; the keys that were read before stay"),
            },
            Some(signal) => return signal,
            None => std::future::pending().await,
        }
    }
}

async fn failure(phases: &mut tokio::sync::watch::Receiver<Phase>) -> String {
    let failed = phases.wait_for(|phase| matches!(phase, Phase::Failed(_))).await.map(|phase| phase.clone());
    match failed {
        Ok(Phase::Failed(problem)) => problem,
        _ => std::future::pending().await,
    }
}

/// Serves on for a while, then refuses, and returns when all that runs has ended or the time for it is over.
async fn end(state: &State, grace: f64) {
    sleep(Duration::from_secs_f64(grace)).await;
    state.lifecycle.enter(Phase::Refusing);
    let deadline = Instant::now() + Duration::from_secs_f64(state.settings.drain_timeout);
    let under_way = || state.model().map_or(0, |model| model.admission().under_way().0);
    while under_way() > 0 && Instant::now() < deadline {
        sleep(LOOK).await;
    }
}
