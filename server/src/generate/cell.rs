//! Where the outputs of a flight wait to be taken: a cell that the session's thread appends to and one reader empties.
//!
//! An append costs a lock, and a wake-up where the cell was empty; nothing waits for the reader, and what a slow reader leaves is one
//! piece for each sequence, which its `max_tokens` bounds.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use runner::executor::{FinishReason, PerfMetrics, Response, TokenId, TokenLogProb};
use runner::session::{Output, StopReason};

use crate::error::ApiError;

/// What came for one sequence since it was last taken.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Delta {
    /// New text, certain and whole.
    pub text: String,
    /// New tokens.
    pub tokens: Vec<TokenId>,
    /// Their log-probabilities, where they were asked for.
    pub log_probs: Vec<f32>,
    /// The most probable tokens at their positions, where these were asked for.
    pub top_log_probs: Vec<Vec<TokenLogProb>>,
    /// Set with the last tokens.
    pub finish: Option<Finish>,
}

/// How a sequence ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Finish {
    /// The executor's reason.
    pub reason: FinishReason,
    /// What ended it, where something did.
    pub stop: Option<StopReason>,
    /// Tokens of the sequence.
    pub output_tokens: usize,
}

/// What the model makes of a prompt.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PromptScores {
    /// Of each token after the first.
    pub log_probs: Vec<f32>,
    /// The most probable at each of these positions.
    pub top_log_probs: Vec<Vec<TokenLogProb>>,
    /// The rank of each of these tokens, where the executor knows it.
    pub ranks: Vec<usize>,
}

/// How a request of a flight went.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Went {
    /// The executor's times.
    pub metrics: PerfMetrics,
    /// Whether there was any token.
    pub has_tokens: bool,
    /// Whether nothing more comes.
    pub is_over: bool,
    /// Whether a sequence of it was cancelled, or its time was over.
    pub was_cut: bool,
}

/// Why a flight has no end.
#[derive(Debug, Clone, PartialEq)]
pub enum Failure {
    /// The executor's words.
    Executor(String),
    /// The server has given it up.
    Refused(ApiError),
}

/// How a flight went so far.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Of each request.
    pub went: Vec<Went>,
    /// Of each sequence that has ended.
    pub reasons: Vec<FinishReason>,
    /// Tokens of all sequences.
    pub tokens: usize,
    /// When the first of them came.
    pub first_token: Option<Instant>,
    /// What ended it.
    pub failure: Option<Failure>,
}

/// What was taken out of a cell.
#[derive(Debug, Default)]
pub struct Taken {
    /// By sequence, those with news only.
    pub deltas: Vec<(usize, Delta)>,
    /// What ended the flight.
    pub error: Option<Failure>,
    /// Whether nothing more will come.
    pub is_over: bool,
}

/// The cell of a flight of `prompts` requests, of `each` sequences.
#[derive(Debug)]
pub struct Cell {
    each: usize,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    deltas: Vec<Delta>,
    /// Sequences with news, in the order in which it came, and whether one is among them.
    fresh: Vec<usize>,
    is_fresh: Vec<bool>,
    scores: Vec<Option<PromptScores>>,
    went: Vec<Went>,
    reasons: Vec<FinishReason>,
    error: Option<Failure>,
    /// Requests that have not ended.
    open: usize,
    /// Tokens that have come, of all sequences.
    tokens: usize,
    first_token: Option<Instant>,
    waker: Option<Waker>,
}

impl Cell {
    /// An empty cell.
    pub fn new(prompts: usize, each: usize) -> Arc<Self> {
        let inner = Inner {
            deltas: vec![Delta::default(); prompts * each],
            fresh: Vec::new(),
            is_fresh: vec![false; prompts * each],
            scores: vec![None; prompts],
            went: vec![Went::default(); prompts],
            reasons: Vec::new(),
            error: None,
            open: prompts,
            tokens: 0,
            first_token: None,
            waker: None,
        };
        Arc::new(Self { each, inner: Mutex::new(inner) })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends an output of the request of prompt number `prompt`: whether it joins one that was not taken yet.
    pub fn append(&self, prompt: usize, output: Output) -> bool {
        let mut inner = self.lock();
        let mut joins = false;
        let is_final = output.response.is_final();
        match output.response {
            Response::Error { message, .. } => {
                inner.error.get_or_insert(Failure::Executor(message));
            }
            Response::Result(result) => {
                let index = prompt * self.each + result.sequence_index;
                inner.tokens += result.output_token_ids.len();
                if !result.output_token_ids.is_empty() {
                    inner.first_token.get_or_insert_with(Instant::now);
                    inner.went[prompt].has_tokens = true;
                }
                if result.prompt_log_probs.is_some() || result.prompt_top_log_probs.is_some() {
                    inner.scores[prompt].get_or_insert(PromptScores {
                        log_probs: result.prompt_log_probs.unwrap_or_default(),
                        top_log_probs: result.prompt_top_log_probs.unwrap_or_default(),
                        ranks: result.prompt_ranks.unwrap_or_default(),
                    });
                }
                if let Some(metrics) = result.perf_metrics {
                    inner.went[prompt].metrics = *metrics;
                }
                if let Some(delta) = inner.deltas.get_mut(index) {
                    delta.text.push_str(&output.text);
                    delta.tokens.extend(result.output_token_ids);
                    delta.log_probs.extend(result.log_probs.unwrap_or_default());
                    delta.top_log_probs.extend(result.top_log_probs.unwrap_or_default());
                    if let Some(reason) = result.finish_reason.filter(|_| result.is_sequence_final) {
                        let output_tokens = output.stats.map_or(0, |stats| stats.output_tokens);
                        let stop = output.stop_reason.map(|stop| *stop);
                        delta.finish = Some(Finish { reason, stop, output_tokens });
                        inner.reasons.push(reason);
                        inner.went[prompt].was_cut |=
                            matches!(reason, FinishReason::Cancelled | FinishReason::TimedOut);
                    }
                    joins = std::mem::replace(&mut inner.is_fresh[index], true);
                    if !joins {
                        inner.fresh.push(index);
                    }
                }
            }
        }
        inner.open -= usize::from(is_final && inner.open > 0);
        inner.went[prompt].is_over |= is_final;
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
        joins
    }

    /// Gives the flight up: whoever takes from it next is told.
    pub fn fail(&self, error: ApiError) {
        let mut inner = self.lock();
        inner.error.get_or_insert(Failure::Refused(error));
        let waker = inner.waker.take();
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Whether the request of prompt number `prompt` has neither a token nor an end.
    pub fn waits(&self, prompt: usize) -> bool {
        let inner = self.lock();
        inner.error.is_none() && inner.went.get(prompt).is_some_and(|went| !went.has_tokens && !went.is_over)
    }

    /// How it went so far.
    pub fn summary(&self) -> Summary {
        let inner = self.lock();
        Summary {
            went: inner.went.clone(),
            reasons: inner.reasons.clone(),
            tokens: inner.tokens,
            first_token: inner.first_token,
            failure: inner.error.clone(),
        }
    }

    /// All that there is, as soon as there is something.
    pub fn poll_take(&self, context: &Context<'_>) -> Poll<Taken> {
        let mut inner = self.lock();
        let is_over = inner.error.is_some() || inner.open == 0;
        if inner.fresh.is_empty() && !is_over {
            inner.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(inner.take(is_over))
    }

    /// All that there is, once everything is there or the flight has failed.
    pub fn poll_all(&self, context: &Context<'_>) -> Poll<Taken> {
        let mut inner = self.lock();
        if inner.error.is_none() && inner.open > 0 {
            inner.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(inner.take(true))
    }

    /// What the model made of prompt number `prompt`, once; there before the first of its sequences is taken.
    pub fn scores(&self, prompt: usize) -> Option<PromptScores> {
        self.lock().scores.get_mut(prompt).and_then(Option::take)
    }

    /// How the requests went, those that ended.
    pub fn went(&self) -> Vec<Went> {
        self.lock().went.clone()
    }

    /// Requests that have not ended.
    pub fn open(&self) -> usize {
        self.lock().open
    }

    /// Tokens that have come.
    pub fn tokens(&self) -> usize {
        self.lock().tokens
    }

    /// When the first of them came.
    pub fn first_token(&self) -> Option<Instant> {
        self.lock().first_token
    }
}

impl Inner {
    fn take(&mut self, is_over: bool) -> Taken {
        let mut deltas = Vec::with_capacity(self.fresh.len());
        for index in self.fresh.drain(..) {
            self.is_fresh[index] = false;
            deltas.push((index, std::mem::take(&mut self.deltas[index])));
        }
        Taken { deltas, error: self.error.clone(), is_over }
    }
}
