//! What watches the executor: its statistics, its pace, its stalls, and its end.

use std::sync::Arc;
use std::time::Duration;

use runner::session::Awaited;

use crate::error::ApiError;
use crate::model::Model;
use crate::state::State;

use super::lifecycle::Phase;

/// How often statistics are taken.
const INTERVAL: Duration = Duration::from_millis(500);

/// How often it is looked for requests that have waited too long, where they may.
const SHORT_INTERVAL: Duration = Duration::from_millis(50);

/// Gives up what has waited too long.
fn shed(state: &State, model: &Model) {
    let Some(queue) = model.queue() else { return };
    let (queued, seconds) = (model.session().executor().load().num_queued_requests, state.settings.max_queue_wait);
    let refusal = || {
        let message =
            format!("the request has waited for more than {seconds} s (max_queue_wait): the server is overloaded");
        ApiError::overloaded("queue_full", message, model.admission().retry_after())
    };
    for _ in 0..queue.shed(queued, Duration::from_secs_f64(seconds), refusal) {
        state.metrics.count_rejection("wait");
    }
}

/// Runs until the session has ended. If nobody has ended it, the executor has failed.
pub fn watch(state: &Arc<State>) {
    let Some(model) = state.model() else { return };
    let (session, admission, metrics) = (model.session(), model.admission(), &state.metrics);
    let (mut generated, mut last_iteration) = (0, Duration::ZERO);
    let interval = if model.queue().is_some() { SHORT_INTERVAL } else { INTERVAL };
    loop {
        // No output goes there: it tells when the session has ended.
        let awaited = session.await_outputs(Some(interval));
        shed(state, model);
        metrics.take_iterations(session.executor());
        let now = metrics.generation_tokens.get();
        // An executor may be told to keep no statistics: then other tokens and another time of the last iteration are what shows.
        let iteration = session.executor().load().last_iteration;
        if admission.under_way().0 == 0 || now > generated || iteration != last_iteration {
            metrics.advance();
        }
        admission.note_tokens((now - generated) as usize);
        (generated, last_iteration) = (now, iteration);
        if awaited == Awaited::Closed {
            let ended = matches!(state.lifecycle.phase(), Phase::Cancelling);
            if !ended {
                tracing::error!("the executor has ended unexpectedly");
                state.lifecycle.enter(Phase::Failed("it ended unexpectedly".to_owned()));
            }
            return;
        }
    }
}
