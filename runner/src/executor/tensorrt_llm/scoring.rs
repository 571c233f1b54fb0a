//! The threads that score logits, so that nobody waits for it but the requests whose logits they are: a long prompt takes seconds, a
//! generated token less than a millisecond.
//!
//! Batches of responses with such logits go to them whole, and they route what is theirs. What comes of such a request meanwhile
//! follows through the same thread, so that its responses keep their order.

use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::Scope;
use std::time::Instant;

use trtllm_sys::gpu::{GpuResponse, Responses};

use super::owner::{Shared, route_one};
use super::route::Route;
use super::token_scores::TokenScores;
use crate::contained::contained;
use crate::inflight::PromptScores;

/// Which thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Of prompts.
    Prompts,
    /// Of generated tokens.
    Tokens,
}

/// What was made of the logits of a response.
#[derive(Debug, Default)]
pub(super) struct Scores {
    pub(super) prompt: Option<PromptScores>,
    pub(super) tokens: Option<TokenScores>,
}

/// Responses of a batch that are not routed yet, by their places.
#[derive(Default)]
pub(super) struct Held {
    prompts: Vec<usize>,
    tokens: Vec<usize>,
}

impl Held {
    pub(super) fn put(&mut self, lane: Lane, place: usize) {
        match lane {
            Lane::Prompts => self.prompts.push(place),
            Lane::Tokens => self.tokens.push(place),
        }
    }
}

/// Some of a batch.
type Part = (Arc<Responses>, Vec<usize>);

/// Where to send what is held. It is routed until the senders are dropped.
pub(super) struct Scoring<'a> {
    shared: &'a Shared,
    prompts: Sender<Part>,
    tokens: Sender<Part>,
}

impl<'a> Scoring<'a> {
    pub(super) fn start<'scope>(scope: &'scope Scope<'scope, 'a>, shared: &'a Shared) -> Self {
        let start = |name| {
            let (thread, parts) = mpsc::channel::<Part>();
            let run = move || parts.into_iter().for_each(|part| finish(shared, &part));
            if let Err(error) = system::threads::spawn_scoped(scope, name, run) {
                tracing::warn!("logits are scored while others wait: no thread can be started for it: {error}");
            }
            thread
        };
        Self { shared, prompts: start("trtllm-prompts"), tokens: start("trtllm-logits") }
    }

    pub(super) fn send(&self, batch: Responses, held: Held) {
        let batch = Arc::new(batch);
        for (thread, places) in [(&self.prompts, held.prompts), (&self.tokens, held.tokens)] {
            if places.is_empty() {
                continue;
            }
            // Without the thread it is done here.
            if let Err(mpsc::SendError(part)) = thread.send((batch.clone(), places)) {
                finish(self.shared, &part);
            }
        }
    }
}

/// Routes what was held of a batch.
fn finish(shared: &Shared, (batch, places): &Part) {
    for response in places.iter().filter_map(|&place| batch.get(place)) {
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

/// Scores the logits that a response brings; no lock is held meanwhile.
fn score(shared: &Shared, response: &GpuResponse<'_>) -> Result<Scores, String> {
    let Ok(result) = &response.result else { return Ok(Scores::default()) };
    let asked = |route: &mut Route| (route.take_unscored(result), route.scorer());
    let (unscored, scorer) = shared.lock().routes.get_mut(&response.request_id).map(asked).unwrap_or_default();
    let scored = contained(|| {
        let prompt = unscored.zip(result.context_logits).map(|(unscored, logits)| unscored.score(logits));
        let tokens = scorer.zip(result.outputs.first()).map(|(scorer, output)| scorer.score(output));
        Ok(Scores { prompt: prompt.transpose()?, tokens: tokens.transpose()? })
    });
    scored.unwrap_or_else(|panic| Err(format!("scoring the logits failed: {}", panic.unwrap_or_default())))
}
