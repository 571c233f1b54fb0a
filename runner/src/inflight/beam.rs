//! Beam search. Pure: logits in, the beams to go on with or the finished ones out.
//!
//! In each iteration the best `beam_width` candidates (beam, next token) that do not end go on; those among the best
//! `beam_width` that end are finished, and the best `beam_width` finished ones are kept. A candidate's rank is the sum
//! of its tokens' log-probabilities, under the logits after bias, penalties and bans; a finished beam's score is that
//! sum divided by its generated length to the power `length_penalty`. That is what both TensorRT-LLM and Transformers
//! do; docs/reference/run-engine.md lists where they differ.

use cpu_kernels::Kernels;

use super::sampler::{Sampler, top_log_probs};
use super::stop::is_stopped;
use crate::executor::{EarlyStopping, FinishReason, RequestSpec, TokenId};
use crate::logits::copied;

/// A beam search that has not ended.
#[derive(Debug)]
pub(super) struct BeamSearch {
    beams: Vec<Beam>,
    finished: Vec<Finished>,
    generated: usize,
}

#[derive(Debug, Clone)]
struct Beam {
    sampler: Sampler,
    /// The sum of its tokens' log-probabilities, as the search ranks them.
    score: f32,
    /// Of the raw logits.
    log_probs: Vec<f32>,
}

/// A beam that has ended.
#[derive(Debug, Clone)]
pub(super) struct Finished {
    pub output: Vec<TokenId>,
    pub log_probs: Vec<f32>,
    pub reason: FinishReason,
    score: f32,
}

/// What follows an iteration.
#[derive(Debug)]
pub(super) enum Branches {
    /// The next beams: each goes on from a present one, by number, with a token.
    GoOn(Vec<(usize, TokenId)>),
    /// The search is over. Best first, at most `beam_width`.
    Done(Vec<Finished>),
}

struct Candidate {
    score: f32,
    beam: usize,
    token: TokenId,
    log_prob: f32,
}

impl BeamSearch {
    pub(super) fn new(sampler: Sampler) -> Self {
        let beam = Beam { sampler, score: 0.0, log_probs: Vec::new() };
        Self { beams: vec![beam], finished: Vec::new(), generated: 0 }
    }

    /// Goes on with the logits of each beam's next token; `logits` is `[beams, vocab_size]` and is changed, `tokens`
    /// are prompt and output of a beam, and `post_process` may change the logits of a beam of these tokens.
    ///
    /// # Errors
    /// Those of `post_process`.
    pub(super) fn advance<'a>(
        &mut self,
        kernels: Kernels,
        spec: &RequestSpec,
        logits: &mut [f32],
        tokens: impl Fn(usize) -> &'a [TokenId],
        post_process: impl Fn(usize, &[TokenId], &mut [f32]) -> Result<(), String>,
    ) -> Result<Branches, String> {
        let candidates = self.candidates(kernels, spec, logits, &tokens, post_process)?;
        self.generated += 1;
        let beam_width = spec.sampling.beam_width;
        let length = (self.generated as f32).powf(spec.sampling.length_penalty);
        let (mut next, mut beams) = (Vec::new(), Vec::new());
        for (rank, candidate) in candidates.iter().enumerate() {
            let before = tokens(candidate.beam);
            match self.end_of(spec, before, candidate.token) {
                Some(reason) if rank < beam_width => self.finished.push(Finished {
                    output: before[spec.input_token_ids.len()..].iter().copied().chain([candidate.token]).collect(),
                    log_probs: self.beams[candidate.beam].log_probs_with(candidate.log_prob),
                    reason,
                    score: candidate.score / length,
                }),
                Some(_) => {}
                None if next.len() < beam_width => {
                    next.push((candidate.beam, candidate.token));
                    beams.push(self.beams[candidate.beam].followed_by(candidate));
                }
                None => {}
            }
        }
        // Stable: among equals the earlier one stays.
        self.finished.sort_by(|a, b| b.score.total_cmp(&a.score));
        self.finished.truncate(beam_width);
        if next.is_empty() || self.is_over(spec, beams[0].score) {
            return Ok(Branches::Done(std::mem::take(&mut self.finished)));
        }
        self.beams = beams;
        Ok(Branches::GoOn(next))
    }

    /// The best continuations, enough that `beam_width` of them do not end; best first, then by beam and token.
    fn candidates<'a>(
        &mut self,
        kernels: Kernels,
        spec: &RequestSpec,
        logits: &mut [f32],
        tokens: &impl Fn(usize) -> &'a [TokenId],
        post_process: impl Fn(usize, &[TokenId], &mut [f32]) -> Result<(), String>,
    ) -> Result<Vec<Candidate>, String> {
        let endings = spec.end_ids.len() + spec.stop_words.len();
        let count = spec.sampling.beam_width.saturating_mul(2.max(1 + endings));
        let width = logits.len() / self.beams.len();
        let mut candidates = Vec::new();
        for (index, (beam, logits)) in self.beams.iter_mut().zip(logits.chunks_exact_mut(width)).enumerate() {
            let raw = match spec.output.return_log_probs {
                true => Some((copied(logits)?, kernels.log_sum_exp(logits))),
                false => None,
            };
            post_process(index, tokens(index), logits)?;
            beam.sampler.process(logits, tokens(index));
            let best = top_log_probs(kernels, logits, kernels.log_sum_exp(logits), count);
            candidates.extend(best.into_iter().filter(|best| best.log_prob > f32::NEG_INFINITY).map(|best| {
                let token = best.token_id;
                let log_prob = raw.as_ref().map_or(0.0, |(raw, log_sum_exp)| raw[token as usize] - log_sum_exp);
                Candidate { score: beam.score + best.log_prob, beam: index, token, log_prob }
            }));
        }
        candidates.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.beam.cmp(&b.beam)).then(a.token.cmp(&b.token)));
        candidates.truncate(count);
        Ok(candidates)
    }

    /// Why a beam of these tokens, prompt and output, ends with `token`.
    fn end_of(&self, spec: &RequestSpec, tokens: &[TokenId], token: TokenId) -> Option<FinishReason> {
        if spec.end_ids.contains(&token) {
            Some(FinishReason::EndId)
        } else if is_stopped(tokens, token, &spec.stop_words) {
            Some(FinishReason::StopWords)
        } else {
            (self.generated == spec.max_tokens).then_some(FinishReason::Length)
        }
    }

    /// Whether `beam_width` beams have finished and the best running one is not expected to better them.
    fn is_over(&self, spec: &RequestSpec, best_running: f32) -> bool {
        let sampling = &spec.sampling;
        let Some(worst) = self.finished.get(sampling.beam_width - 1) else { return false };
        let best_length = match sampling.early_stopping {
            EarlyStopping::Yes => return true,
            EarlyStopping::Never if sampling.length_penalty > 0.0 => spec.max_tokens,
            EarlyStopping::No | EarlyStopping::Never => self.generated,
        };
        best_running / (best_length as f32).powf(sampling.length_penalty) <= worst.score
    }
}

impl Beam {
    fn log_probs_with(&self, log_prob: f32) -> Vec<f32> {
        self.log_probs.iter().copied().chain([log_prob]).collect()
    }

    fn followed_by(&self, candidate: &Candidate) -> Self {
        let mut sampler = self.sampler.clone();
        sampler.accept(candidate.token);
        Self { sampler, score: candidate.score, log_probs: self.log_probs_with(candidate.log_prob) }
    }
}
