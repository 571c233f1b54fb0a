//! Whether TensorRT-LLM still works: a response is a sign of it, and so is an iteration, since a long request without streaming or a beam
//! search answers only at its end.

use std::time::Instant;

use super::owner::{Shared, State};
use crate::executor::{RequestId, Response, Shutdown};

/// TensorRT-LLM has given a sign of life. Tells the requests to ask the end of: they were given up when it stalled.
pub(super) fn alive(state: &mut State) -> Vec<u64> {
    state.heard = Instant::now();
    if state.stalled.take().is_none() {
        return Vec::new();
    }
    tracing::info!("TensorRT-LLM goes on, and takes requests again");
    let given_up = state.routes.iter().filter(|(_, route)| route.is_over && route.may_cancel());
    given_up.map(|(&id, _)| id).collect()
}

/// Ends requests that have been waited for too long.
pub(super) fn watch(shared: &Shared, state: &mut State, responses: &mut Vec<Response>) {
    if state.routes.is_empty() {
        return;
    }
    if state.stalled.is_none() && state.heard.elapsed() >= shared.stall_timeout {
        let seconds = shared.stall_timeout.as_secs();
        let message = format!("TensorRT-LLM has not answered for {seconds} s (stall_timeout)");
        tracing::error!("{message}");
        for (&id, route) in &mut state.routes {
            route.fail(RequestId(id), message.clone(), responses);
        }
        state.stalled = Some(message);
    }
    match (&state.stalled, state.closing) {
        // Nobody waits for anything any more, and whether it ever goes on is not known.
        (Some(message), Some(_)) => shared.fail(state, &message.clone(), responses),
        (None, Some((Shutdown::Cancel, since))) if since.elapsed() >= shared.shutdown_timeout => {
            let seconds = shared.shutdown_timeout.as_secs();
            let message = format!("TensorRT-LLM did not end cancelled requests within {seconds} s (shutdown_timeout)");
            shared.fail(state, &message, responses);
        }
        _ => {}
    }
}
