//! From logits to a token. Pure: the same logits, settings and position give the same token.

use std::cmp::Ordering;
use std::collections::HashSet;

use crate::executor::{SamplingConfig, TokenId};

/// Chooses the tokens of one sequence.
#[derive(Debug)]
pub struct Sampler {
    config: SamplingConfig,
    seen: HashSet<TokenId>,
    candidates: Vec<(f32, TokenId)>,
}

impl Sampler {
    /// A sampler for a sequence of the request.
    pub fn new(_kernels: cpu_kernels::Kernels, spec: &crate::executor::RequestSpec, sequence_index: usize) -> Self {
        let mut config = spec.sampling.clone();
        config.seed = config.seed.wrapping_add(sequence_index as u64);
        let mut sampler = Self { config, seen: HashSet::new(), candidates: Vec::new() };
        spec.input_token_ids.iter().for_each(|&token| sampler.accept(token));
        sampler
    }

    /// Remembers a token.
    pub fn accept(&mut self, token: TokenId) {
        if self.config.repetition_penalty != 1.0 {
            self.seen.insert(token);
        }
    }

    /// Chooses the token at `position` of the sequence (the prompt's first token is at 0) and remembers it. `logits`
    /// has one entry for each token of the vocabulary and is changed.
    pub fn sample(&mut self, logits: &mut [f32], tokens: &[TokenId], _mask: Option<&dyn Fn(&mut [f32])>) -> TokenId {
        let position = tokens.len();
        let penalty = self.config.repetition_penalty;
        for &token in &self.seen {
            let logit = &mut logits[token as usize];
            *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
        }
        let greedy = self.config.temperature == 0.0 || self.config.top_k == 1 || self.config.top_p == 0.0;
        if greedy { best(logits) } else { self.draw(logits, position) }
    }

    fn draw(&mut self, logits: &[f32], position: usize) -> TokenId {
        let SamplingConfig { temperature, top_k, top_p, min_p, seed, .. } = self.config;
        let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        // Relative to the best token, whose weight is 1: a sum of weights cannot overflow.
        let weight = |logit: f32| ((logit - highest) / temperature).exp();
        let candidates = &mut self.candidates;
        candidates.clear();
        candidates.extend(
            logits.iter().zip(0..).map(|(&logit, token)| (weight(logit), token)).filter(|&(weight, _)| weight > 0.0),
        );
        if candidates.is_empty() {
            return best(logits);
        }
        if top_k > 0 && top_k < candidates.len() {
            candidates.select_nth_unstable_by(top_k - 1, better_first);
            candidates.truncate(top_k);
        }
        if top_p < 1.0 {
            candidates.sort_unstable_by(better_first);
            let total: f64 = candidates.iter().map(|&(weight, _)| f64::from(weight)).sum();
            let enough = f64::from(top_p) * total;
            let mut sum = 0.0;
            let reached = candidates.iter().position(|&(weight, _)| {
                sum += f64::from(weight);
                sum >= enough
            });
            candidates.truncate(reached.map_or(candidates.len(), |last| last + 1));
        }
        if min_p > 0.0 {
            candidates.retain(|&(weight, _)| weight >= min_p);
        }
        // Selection leaves an order that depends on the library's algorithm: draw in the order of ids instead.
        candidates.sort_unstable_by_key(|&(_, token)| token);
        let total: f64 = candidates.iter().map(|&(weight, _)| f64::from(weight)).sum();
        let mut left = uniform(seed, position as u64) * total;
        for &(weight, token) in candidates.iter() {
            left -= f64::from(weight);
            if left < 0.0 {
                return token;
            }
        }
        candidates.last().map_or_else(|| best(logits), |&(_, token)| token)
    }
}

/// The `n` most probable tokens.
pub fn top_log_probs(
    _: cpu_kernels::Kernels,
    logits: &[f32],
    log_sum_exp: f32,
    n: usize,
) -> Vec<crate::executor::TokenLogProb> {
    let mut all: Vec<_> = logits.iter().copied().zip(0..).collect();
    all.sort_unstable_by(better_first);
    all.truncate(n);
    all.into_iter()
        .map(|(logit, token_id)| crate::executor::TokenLogProb { token_id, log_prob: logit - log_sum_exp })
        .collect()
}

fn better_first(a: &(f32, TokenId), b: &(f32, TokenId)) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}

/// The token of the highest logit, the lowest id among equals; a NaN never wins.
pub fn best(logits: &[f32]) -> TokenId {
    let mut best = (f32::NEG_INFINITY, 0);
    for (&logit, token) in logits.iter().zip(0..) {
        if logit > best.0 {
            best = (logit, token);
        }
    }
    best.1
}

/// A number in [0, 1) that depends on its arguments only: two rounds of the SplitMix64 finalizer (Steele, Lea, Flood
/// 2014) over seed and position.
fn uniform(seed: u64, position: u64) -> f64 {
    let mix = |mut x: u64| {
        x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    (mix(mix(seed) ^ position) >> 11) as f64 / (1u64 << 53) as f64
}
