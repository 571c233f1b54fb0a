//! What watches the executor: its statistics, its pace, its stalls, and its end.

use std::sync::Arc;
use std::time::Duration;

use runner::session::Awaited;

use crate::state::State;

use super::lifecycle::Phase;

/// How often statistics are taken.
const INTERVAL: Duration = Duration::from_millis(500);

/// Runs until the session has ended. If nobody has ended it, the executor has failed.
pub fn watch(state: &Arc<State>) {
    let Some(model) = state.model() else { return };
    let (session, admission, metrics) = (model.session(), model.admission(), &state.metrics);
    let mut generated = 0;
    loop {
        // No output goes there: it tells when the session has ended.
        let awaited = session.await_outputs(Some(INTERVAL));
        metrics.take_iterations(session.executor());
        if admission.under_way().0 == 0 {
            metrics.advance();
        }
        let now = metrics.generation_tokens.get();
        admission.note_tokens((now - generated) as usize);
        generated = now;
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
