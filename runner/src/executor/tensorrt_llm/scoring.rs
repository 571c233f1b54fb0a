//! The thread that scores prompts, so that nobody waits for it but the requests whose prompts they are.
//!
//! A batch of responses with logits of a prompt goes to it whole, and it routes what is that request's. What comes of such a request
//! meanwhile follows through here, so that its responses keep their order.

use std::collections::HashSet;
use std::sync::mpsc::{self, Sender};
use std::thread::Scope;
use std::time::Instant;

use trtllm_sys::gpu::{GpuResponse, GpuResult, Responses};

use super::owner::{Shared, route_one};
use super::route::Route;
use crate::contained::contained;
use crate::inflight::PromptScores;

/// A batch of which the responses of some requests are not routed yet.
pub(super) struct Held {
    pub(super) batch: Responses,
    pub(super) requests: HashSet<u64>,
}

/// Where to send what is held. It is routed until the sender is dropped.
pub(super) struct Scoring<'a> {
    shared: &'a Shared,
    thread: Sender<Held>,
}

impl<'a> Scoring<'a> {
    pub(super) fn start<'scope>(scope: &'scope Scope<'scope, 'a>, shared: &'a Shared) -> Self {
        let (thread, held) = mpsc::channel();
        let run = move || held.into_iter().for_each(|held| finish(shared, &held));
        if let Err(error) = system::threads::spawn_scoped(scope, "trtllm-score", run) {
            tracing::warn!("prompts are scored while others wait: no thread can be started for it: {error}");
        }
        Self { shared, thread }
    }

    pub(super) fn send(&self, held: Held) {
        // Without the thread it is done here.
        if let Err(mpsc::SendError(held)) = self.thread.send(held) {
            finish(self.shared, &held);
        }
    }
}

/// Routes what was held of a batch.
fn finish(shared: &Shared, held: &Held) {
    for response in held.batch.iter().filter(|response| held.requests.contains(&response.request_id)) {
        let scores = score(shared, &response);
        let mut responses = Vec::new();
        let delivery = shared.delivery();
        let mut state = shared.lock();
        state.heard = Instant::now();
        if let Some(route) = state.routes.get_mut(&response.request_id) {
            route.held -= 1;
        }
        let is_unwanted = route_one(shared, &mut state, &response, scores, &mut responses);
        drop(state);
        shared.outbox.put(&mut responses);
        drop(delivery);
        if is_unwanted {
            shared.ask_for_end(response.request_id);
        }
    }
}

/// Scores the prompt whose logits a response brings; no lock is held meanwhile.
fn score(shared: &Shared, response: &GpuResponse<'_>) -> Option<Result<PromptScores, String>> {
    let Ok(GpuResult { context_logits: Some((logits, columns)), .. }) = response.result else { return None };
    let unscored = shared.lock().routes.get_mut(&response.request_id).and_then(Route::take_unscored)?;
    let scored = contained(|| unscored.score(logits, columns));
    Some(scored.unwrap_or_else(|panic| Err(format!("scoring the prompt failed: {}", panic.unwrap_or_default()))))
}
