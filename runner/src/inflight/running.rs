//! What the owner knows of one sequence: how its tokens are chosen, what of it has been delivered.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use cpu_kernels::Kernels;

use super::beam::{BeamSearch, Branches, Finished};
use super::prompt_scores::PromptScores;
use super::sampler::{Sampler, top_log_probs};
use super::stop::is_stopped;
use crate::executor::{
    FinishReason, Logits, LogitsContext, Request, RequestId, RequestSpec, TokenId, TokenLogProb, TokenResult,
};
use crate::logits::copied;
use text::guide::{Guide, GuideError};

/// A sequence that waits or runs, or all beams of a search.
#[derive(Debug)]
pub(super) struct Running {
    pub request_id: RequestId,
    pub sequence_index: usize,
    request: Arc<Request>,
    sampler: Sampler,
    search: Option<BeamSearch>,
    cancelled_beams: BTreeSet<usize>,
    guide: Option<Guide>,
    generated: usize,
    has_computed_prompt: bool,
    new: Undelivered,
    cum_log_prob: f32,
    has_responded: bool,
}

/// What follows a sequence's tokens.
#[derive(Debug)]
pub(super) enum Chosen {
    /// A token; the reason is given when it is the last.
    Token(TokenId, Option<FinishReason>),
    /// The beams to go on with.
    Branches(Vec<(usize, TokenId)>),
    /// The beams that the search ended with, best first.
    Beams(Vec<Finished>),
    /// Nothing: none was asked for.
    Nothing,
    /// Nothing: the guide cannot be followed, or the logits post-processor failed.
    Failed(String),
}

/// What was generated and not delivered yet.
#[derive(Debug, Default)]
struct Undelivered {
    tokens: Vec<TokenId>,
    log_probs: Vec<f32>,
    top_log_probs: Vec<Vec<TokenLogProb>>,
    generation_logits: Logits,
}

impl Running {
    pub(super) fn new(
        request_id: RequestId,
        sequence_index: usize,
        request: Arc<Request>,
        guide: Option<Guide>,
        sampler: Sampler,
    ) -> Self {
        let spec = request.spec();
        Self {
            request_id,
            sequence_index,
            guide,
            search: (spec.sampling.beam_width > 1 && spec.max_tokens > 0).then(|| BeamSearch::new(sampler.clone())),
            sampler,
            cancelled_beams: BTreeSet::new(),
            generated: 0,
            has_computed_prompt: false,
            new: Undelivered::default(),
            cum_log_prob: 0.0,
            has_responded: false,
            request,
        }
    }

    /// Chooses what follows from raw logits, `[beams, vocab_size]`, which are changed; `tokens` are prompt and output of
    /// a beam, or of the sequence as beam 0.
    pub(super) fn choose<'a>(
        &mut self,
        kernels: Kernels,
        logits: &mut [f32],
        tokens: impl Fn(usize) -> &'a [TokenId],
    ) -> Chosen {
        self.has_computed_prompt = true;
        if self.request.spec().max_tokens == 0 {
            return Chosen::Nothing;
        }
        let chosen = match &mut self.search {
            None => self.draw(kernels, logits, tokens(0)),
            Some(search) => {
                self.generated += 1;
                let post_process = |beam: usize, tokens: &[TokenId], logits: &mut [f32]| {
                    post_process(&self.request, self.request_id, beam, tokens, logits)
                };
                search.advance(kernels, self.request.spec(), logits, tokens, post_process).map(
                    |branches| match branches {
                        Branches::GoOn(next) => Chosen::Branches(next),
                        Branches::Done(finished) => Chosen::Beams(finished),
                    },
                )
            }
        };
        chosen.unwrap_or_else(Chosen::Failed)
    }

    fn draw(&mut self, kernels: Kernels, logits: &mut [f32], tokens: &[TokenId]) -> Result<Chosen, String> {
        let spec = self.request.spec();
        let (wants_one, wants_top) = (spec.output.return_log_probs, spec.output.top_log_probs);
        let log_sum_exp = (wants_one || wants_top > 0).then(|| kernels.log_sum_exp(logits));
        if let Some(log_sum_exp) = log_sum_exp.filter(|_| wants_top > 0) {
            self.new.top_log_probs.push(top_log_probs(kernels, logits, log_sum_exp, wants_top));
        }
        let raw = wants_one.then(|| copied(logits)).transpose()?;
        if spec.output.return_generation_logits {
            self.new.generation_logits.push(logits, logits.len(), 0)?;
        }
        post_process(&self.request, self.request_id, self.sequence_index, tokens, logits)?;
        let token = match &mut self.guide {
            None => self.sampler.sample(logits, tokens, None),
            Some(guide) => follow(guide, |mask| self.sampler.sample(logits, tokens, Some(mask)))
                .map_err(|error| blame(&error, spec))?,
        };
        if spec.allowed_token_ids.as_ref().is_some_and(|allowed| !allowed.contains(&token)) {
            return Err("none of allowed_token_ids can come next: the guide or the logits post-processor excludes all"
                .to_owned());
        }
        self.sampler.accept(token);
        if let (Some(raw), Some(log_sum_exp)) = (raw, log_sum_exp) {
            let log_prob = raw[token as usize] - log_sum_exp;
            self.new.log_probs.push(log_prob);
            self.cum_log_prob += log_prob;
        }
        self.new.tokens.push(token);
        self.generated += 1;
        let spec = self.request.spec();
        let finish = if spec.end_ids.contains(&token) {
            Some(FinishReason::EndId)
        } else if is_stopped(tokens, token, &spec.stop_words) {
            Some(FinishReason::StopWords)
        } else if !self.may_generate_an_end() && self.guide.as_ref().is_some_and(Guide::must_end) {
            Some(FinishReason::EndId)
        } else if self.generated == spec.max_tokens {
            Some(FinishReason::Length)
        } else {
            None
        };
        Ok(Chosen::Token(token, finish))
    }

    /// Whether there is an end id, and one of the allowed tokens is one.
    fn may_generate_an_end(&self) -> bool {
        let spec = self.request.spec();
        spec.end_ids.iter().any(|id| spec.allowed_token_ids.as_ref().is_none_or(|allowed| allowed.contains(id)))
    }

    /// Notes that the sequence `index` of the request was cancelled; whether that ends this one. A search ends when all
    /// that it would return have been cancelled.
    pub(super) fn ends_when_cancelled(&mut self, index: usize) -> bool {
        if self.search.is_none() {
            return self.sequence_index == index;
        }
        let count = self.request.spec().sampling.num_return_sequences;
        if index < count {
            self.cancelled_beams.insert(index);
        }
        self.cancelled_beams.len() == count
    }

    /// Whether the request's figures are wanted.
    pub(super) fn wants_perf_metrics(&self) -> bool {
        self.request.spec().output.return_perf_metrics
    }

    /// Whether there is something to deliver now, though the sequence goes on.
    pub(super) fn streams(&self) -> bool {
        self.request.spec().streaming && !self.new.tokens.is_empty()
    }

    /// The final responses of a beam search. One that was ended from outside (`reason`) has no output.
    pub(super) fn take_beams(
        &self,
        beams: Vec<Finished>,
        reason: FinishReason,
        mut prompt_scores: Option<&mut PromptScores>,
    ) -> Vec<TokenResult> {
        let spec = self.request.spec();
        let count = spec.sampling.num_return_sequences;
        let mut beams = beams.into_iter();
        (0..count)
            .map(|index| {
                let mut result = TokenResult::ended(self.request_id, index, reason, index + 1 == count);
                if let Some(beam) = beams.next() {
                    if spec.output.return_log_probs {
                        result.cum_log_prob = Some(beam.log_probs.iter().sum());
                        result.log_probs = Some(beam.log_probs);
                    }
                    result.output_token_ids = beam.output;
                    result.finish_reason = Some(beam.reason);
                    if let Some(scores) = &mut prompt_scores {
                        scores.deliver(&mut result);
                    }
                }
                result
            })
            .collect()
    }

    /// Whether this is a beam search.
    pub(super) fn is_search(&self) -> bool {
        self.search.is_some()
    }

    /// What has not been delivered yet; the first time with the scores of the request's prompt.
    pub(super) fn take(
        &mut self,
        finish_reason: Option<FinishReason>,
        is_final: bool,
        prompt_scores: Option<&mut PromptScores>,
    ) -> TokenResult {
        let is_first = !std::mem::replace(&mut self.has_responded, true);
        let output = self.request.spec().output;
        let new = std::mem::take(&mut self.new);
        let logs = output.return_log_probs;
        let mut result = TokenResult {
            request_id: self.request_id,
            sequence_index: self.sequence_index,
            output_token_ids: new.tokens,
            log_probs: logs.then_some(new.log_probs),
            top_log_probs: (output.top_log_probs > 0).then_some(new.top_log_probs),
            cum_log_prob: (logs && finish_reason.is_some()).then_some(self.cum_log_prob),
            generation_logits: output.return_generation_logits.then_some(new.generation_logits),
            prompt_log_probs: None,
            prompt_top_log_probs: None,
            prompt_ranks: None,
            context_logits: None,
            perf_metrics: None,
            finish_reason,
            is_sequence_final: finish_reason.is_some(),
            is_final,
        };
        if let Some(scores) = prompt_scores.filter(|_| is_first) {
            scores.deliver(&mut result);
        }
        result
    }
}

/// What an error of a guide says of a request.
fn blame(error: &GuideError, spec: &RequestSpec) -> String {
    match error {
        GuideError::Refused { .. } if spec.allowed_token_ids.is_some() => {
            "no token of allowed_token_ids goes on as the guide demands: allow more tokens, or change the guide"
                .to_owned()
        }
        other => other.to_string(),
    }
}

/// Lets the request's logits post-processor, if it has one, at the logits of what follows `tokens`.
fn post_process(
    request: &Request,
    request_id: RequestId,
    sequence_index: usize,
    token_ids: &[TokenId],
    logits: &mut [f32],
) -> Result<(), String> {
    let spec = request.spec();
    let Some(post_processor) = &spec.logits_post_processor else { return Ok(()) };
    let num_prompt_tokens = spec.input_token_ids.len();
    let context = LogitsContext { request_id, sequence_index, token_ids, num_prompt_tokens };
    post_processor.process(&context, logits)
}

/// Chooses a token under a guide's mask, and tells the guide.
fn follow(guide: &mut Guide, choose: impl FnOnce(&dyn Fn(&mut [f32])) -> TokenId) -> Result<TokenId, GuideError> {
    let (guide, problem) = (RefCell::new(guide), RefCell::new(None));
    let token = choose(&|logits| {
        if let Err(error) = guide.borrow_mut().mask(logits) {
            problem.replace(Some(error));
        }
    });
    match problem.into_inner() {
        Some(error) => Err(error),
        None => guide.into_inner().accept(token).map(|()| token),
    }
}
