//! From logits to a token. Pure: the same logits, settings and tokens give the same token, on any thread.
//!
//! Steps, in TensorRT-LLM's order: embedding bias; temperature; repetition, presence and frequency penalty
//! ([`penalties`]); minimum length, bad words, repeated n-grams ([`bans`]); allowed tokens ([`allowed`]); the guide's mask; top-k ([`maxima`]), top-p,
//! min-p ([`filters`]); the draw ([`draw`]).
//!
//! Logits are not divided by the temperature. Instead, what follows is scaled: presence and frequency penalties are taken
//! times the temperature, and weights are e^((logit - best) / temperature). That is the same up to rounding, and
//! spares a pass over the vocabulary.
//!
//! A token costs a few passes over the vocabulary, which stays in the cache: one for a greedy choice, one more for weights and
//! for their sum, a sum over the tail for each step of the bisection of top-p. Penalties cost a step for each token seen.

mod allowed;
mod bans;
mod draw;
mod filters;
mod maxima;
mod penalties;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use cpu_kernels::Kernels;

use crate::executor::{RequestSpec, SamplingConfig, TokenId};

use allowed::Allowed;
use bans::{Banned, Bans};
use maxima::Maxima;
use penalties::Penalties;

pub use maxima::{best, top_log_probs};

/// Chooses the tokens of one sequence. A clone goes on from the same state: beams part that way.
#[derive(Debug, Clone)]
pub struct Sampler {
    kernels: Kernels,
    rules: Arc<Rules>,
    seed: u64,
    penalties: Option<Penalties>,
}

/// Sets those logits to minus infinity that the output's form forbids.
pub type Mask<'a> = &'a dyn Fn(&mut [f32]);

/// What is the same for every sequence of a request, and does not change as they grow.
#[derive(Debug)]
struct Rules {
    config: SamplingConfig,
    bias: Vec<(TokenId, f32)>,
    bans: Bans,
    allowed: Option<Allowed>,
}

impl Sampler {
    /// A sampler for the first sequence of a request.
    pub fn new(kernels: Kernels, spec: &RequestSpec) -> Self {
        let config = spec.sampling.clone();
        let (seed, penalties) = (config.seed, Penalties::new(&config, &spec.input_token_ids));
        let allowed = spec.allowed_token_ids.as_deref().map(Allowed::new);
        let rules = Rules { bias: spec.embedding_bias.clone(), bans: Bans::new(spec), allowed, config };
        Self { kernels, rules: Arc::new(rules), seed, penalties }
    }

    /// The same for another sequence of the request, before anything was generated: its seed is the request's plus its index. What
    /// the request asks for is shared.
    pub fn of_sequence(&self, index: usize) -> Self {
        Self { seed: self.rules.config.seed.wrapping_add(index as u64), ..self.clone() }
    }

    /// Chooses the token that follows `tokens`, the whole sequence so far with its prompt, and does not remember it:
    /// see [`Self::accept`]. A draw depends on the seed and on `tokens.len()`.
    ///
    /// `logits` has one entry for each token of the vocabulary: raw ones come in, what is left is unspecified.
    ///
    /// Where bans, allowed tokens and mask together leave nothing, the bans are lifted for this token and `mask` is called again;
    /// allowed tokens and mask always hold. A logit that is not a number is never chosen. Where no logit can be, the answer is token 0.
    pub fn sample(&self, logits: &mut [f32], tokens: &[TokenId], mask: Option<Mask<'_>>) -> TokenId {
        let config = &self.rules.config;
        let greedy = config.is_greedy();
        // At 0 there is nothing to divide by; what else makes a draw greedy leaves the temperature its part in penalties.
        let banned = self.change(logits, tokens, if config.temperature == 0.0 { 1.0 } else { config.temperature });
        let mask = |logits: &mut [f32]| {
            self.keep_allowed(logits);
            if let Some(mask) = mask {
                mask(logits);
            }
            Maxima::of(self.kernels, logits)
        };
        let mut maxima = mask(logits);
        if maxima.best() == f32::NEG_INFINITY && banned.lift(logits) {
            maxima = mask(logits);
        }
        if greedy || maxima.best().is_infinite() {
            return maxima.best_token(logits);
        }
        if !(1..logits.len()).contains(&config.top_k) {
            return self.draw(logits, maxima.best(), tokens.len()) as TokenId;
        }
        let mut candidates = maxima.top(logits, config.top_k);
        // Selection leaves an order that depends on the library's algorithm: draw in the order of ids instead.
        candidates.sort_unstable_by_key(|&(_, token)| token);
        let (mut logits, ids): (Vec<f32>, Vec<TokenId>) = candidates.into_iter().unzip();
        ids[self.draw(&mut logits, maxima.best(), tokens.len())]
    }

    /// Changes `logits` as [`Self::sample`] does before the mask, at temperature 1: for a search that chooses by score.
    pub fn process(&self, logits: &mut [f32], tokens: &[TokenId]) {
        let banned = self.change(logits, tokens, 1.0);
        self.keep_allowed(logits);
        if !banned.is_empty() && Maxima::of(self.kernels, logits).best() == f32::NEG_INFINITY {
            banned.lift(logits);
            self.keep_allowed(logits);
        }
    }

    fn keep_allowed(&self, logits: &mut [f32]) {
        if let Some(allowed) = &self.rules.allowed {
            allowed.keep(logits);
        }
    }

    /// Remembers a token that was appended to the sequence.
    pub fn accept(&mut self, token: TokenId) {
        if let Some(penalties) = &mut self.penalties {
            penalties.accept(token);
        }
    }

    /// Bias, penalties and bans.
    fn change(&self, logits: &mut [f32], tokens: &[TokenId], temperature: f32) -> Banned {
        for &(token, bias) in &self.rules.bias {
            logits[token as usize] += bias;
        }
        if let Some(penalties) = &self.penalties {
            penalties.apply(logits, temperature);
        }
        self.rules.bans.apply(logits, tokens)
    }

    /// Draws an index in `logits`, whose best is finite; turns them into weights.
    fn draw(&self, logits: &mut [f32], best: f32, position: usize) -> usize {
        let SamplingConfig { temperature, top_p, min_p, .. } = self.rules.config;
        self.kernels.exp_weights(logits, best, (1.0 / temperature).min(f32::MAX));
        let least = filters::least_kept(self.kernels, logits, top_p, min_p);
        draw::index_at(self.kernels, logits, least, draw::uniform(self.seed, position as u64))
    }
}
