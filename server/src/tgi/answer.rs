//! Answers: what a client of TGI's reads.

use std::sync::Arc;

use http::{Response, StatusCode};

use crate::error::ApiError;
use crate::generate::cell::{Cell, Delta, PromptScores};
use crate::http::reply::{self, Body};
use crate::http::routes::Call;
use crate::http::sse;
use crate::openai::answer as openai;
use crate::openai::logprobs::{Entry, Names, finite};
use crate::openai::request::Wanted;
use crate::openai::sequence::{Ended, Sequence};
use crate::openai::start::{Started, StartedPrompt};
use crate::state::State;

use super::assembly::Assembly;
use super::error::of_generation;
use super::frames::Frames;
use super::request::Own;
use super::shape::{BestOfSequence, Details, Generation, PrefillToken, SequenceDetails, Token};

/// What the sequences of an answer have in common.
pub(super) struct Context {
    pub(super) state: Arc<State>,
    pub(super) wanted: Wanted,
    pub(super) own: Own,
    pub(super) prompt: StartedPrompt,
    pub(super) is_guided: bool,
}

impl Context {
    fn names(&self) -> Names<'_> {
        let tokenizer = self.state.model().and_then(|model| model.tokenizer("").ok());
        Names { tokenizer, as_ids: false }
    }

    pub(super) fn sequence(&self) -> Sequence {
        let mut sequence = Sequence::default();
        if let (Some(tokenizer), Some(_)) = (self.names().tokenizer, self.wanted.logprobs) {
            sequence.track(tokenizer, &self.prompt.ids, self.is_guided, true);
        }
        sequence
    }

    fn is_special(&self, id: u32) -> bool {
        self.names().tokenizer.is_some_and(|tokenizer| tokenizer.is_special(id))
    }

    /// A generated token. A special one is no part of the text, and is shown by its name.
    pub(super) fn token(&self, entry: &Entry, text: String) -> Token {
        let special = self.is_special(entry.id);
        let text = if special && text.is_empty() { self.names().lossy(entry.id) } else { text };
        Token { id: entry.id, text, logprob: finite(entry.log_prob.unwrap_or_default()), special }
    }

    /// The most probable tokens in the place of one.
    pub(super) fn top(&self, entry: &Entry) -> Vec<Token> {
        let top = entry.top.iter().take(self.wanted.logprobs.unwrap_or(0));
        let token = |top: &runner::executor::TokenLogProb| Token {
            id: top.token_id,
            text: self.names().lossy(top.token_id),
            logprob: finite(top.log_prob),
            special: self.is_special(top.token_id),
        };
        top.map(token).collect()
    }

    fn prefill(&self, scores: &PromptScores) -> Vec<PrefillToken> {
        let one = |(index, &id): (usize, &u32)| {
            let log_prob = index.checked_sub(1).and_then(|before| scores.log_probs.get(before).copied());
            PrefillToken { id, text: self.names().lossy(id), logprob: log_prob.map(finite) }
        };
        self.prompt.ids.iter().enumerate().map(one).collect()
    }

    /// The seed of a sequence, where tokens are drawn: alone it gives the sequence again.
    pub(super) fn seed(&self, index: usize) -> Option<u64> {
        self.own.seed.map(|seed| seed.wrapping_add(index as u64))
    }
}

/// Why a sequence ended, by TGI's names.
pub(super) fn finish_reason(ended: &Ended) -> &'static str {
    match (ended.finish_reason, &ended.stop_reason) {
        ("length", _) => "length",
        (_, None) => "eos_token",
        (_, Some(_)) => "stop_sequence",
    }
}

/// Answers with what comes of a request under way; `in_a_list` as POST `/` does.
///
/// # Errors
/// It failed before the answer began.
pub async fn respond(
    state: &Arc<State>,
    call: &Call,
    started: Started<Own>,
    in_a_list: bool,
) -> Result<Response<Body>, ApiError> {
    let prepared = call.arrived.elapsed();
    let told = openai::Told::of(&started);
    let Started { flight, wanted, mut prompts, is_guided, own, .. } = started;
    let prompt = prompts.pop().ok_or_else(|| ApiError::internal("a request without a prompt was started"))?;
    let (characters, streams) = (own.characters, wanted.stream);
    let context = Context { state: state.clone(), wanted, own, prompt, is_guided };
    let mut response = if streams {
        sse::response(state, flight, Frames::new(context))
    } else {
        let cell = flight.cell();
        let taken = std::future::poll_fn(|polling| cell.poll_all(polling)).await;
        if let Some(failure) = taken.error {
            return Err(of_generation(state.lifecycle.explain(failure).await));
        }
        let generation = whole(&context, cell, taken.deltas).map_err(of_generation)?;
        let mut response = match in_a_list {
            true => reply::json(StatusCode::OK, &[generation]),
            false => reply::json(StatusCode::OK, &generation),
        };
        let total = call.arrived.elapsed();
        openai::times(&mut response, cell, total);
        reply::header(&mut response, "x-validation-time", &prepared.as_millis().to_string());
        reply::header(&mut response, "x-compute-time", &total.as_secs_f64().to_string());
        response
    };
    told.write(&mut response);
    reply::header(&mut response, "x-compute-characters", &characters.to_string());
    reply::header(&mut response, "x-compute-type", state.model().map_or("", |model| model.compute_type()));
    Ok(response)
}

fn whole(context: &Context, cell: &Cell, deltas: Vec<(usize, Delta)>) -> Result<Generation, ApiError> {
    let prefill = match context.wanted.prompt_logprobs {
        // Of a prompt of one token there is nothing to score, and an executor may say so by nothing.
        Some(_) => context.prefill(&cell.scores(0).unwrap_or_default()),
        None => Vec::new(),
    };
    let mut best: Option<(f32, BestOfSequence)> = None;
    let mut others = Vec::new();
    for (index, delta) in deltas {
        let mut sequence = context.sequence();
        let mut piece = sequence.take(delta, cell.tokens(), &[])?;
        let generated_text = format!("{}{}", context.own.prefix, piece.text);
        let (mut tokens, mut top_tokens) = (Vec::new(), Vec::new());
        for (entry, text) in Assembly::default().take(&mut piece) {
            if context.wanted.logprobs > Some(0) {
                top_tokens.push(context.top(&entry));
            }
            tokens.push(context.token(&entry, text));
        }
        let of = SequenceDetails {
            finish_reason: piece.ended.as_ref().map_or("length", finish_reason),
            generated_tokens: sequence.tokens,
            seed: context.seed(index),
            prefill: prefill.clone(),
            tokens,
            top_tokens,
        };
        let one = (sequence.mean_log_prob(), BestOfSequence { generated_text, of });
        match &best {
            Some((log_prob, _)) if one.0 <= *log_prob => others.push(one.1),
            _ => others.extend(best.replace(one).map(|(_, lesser)| lesser)),
        }
    }
    let (_, BestOfSequence { generated_text, of }) =
        best.ok_or_else(|| ApiError::internal("the request ended without an output"))?;
    let best_of_sequences = (context.wanted.best_of > 1).then_some(others);
    let details = context.own.details.then_some(Details { of, best_of_sequences });
    Ok(Generation { generated_text, details })
}
