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
    /// A sampler for a sequence that begins with `prompt`.
    pub fn new(config: SamplingConfig, prompt: &[TokenId]) -> Self {
        let mut sampler = Self { config, seen: HashSet::new(), candidates: Vec::new() };
        prompt.iter().for_each(|&token| sampler.see(token));
        sampler
    }

    fn see(&mut self, token: TokenId) {
        if self.config.repetition_penalty != 1.0 {
            self.seen.insert(token);
        }
    }

    /// Chooses the token at `position` of the sequence (the prompt's first token is at 0) and remembers it. `logits`
    /// has one entry for each token of the vocabulary and is changed.
    pub fn sample(&mut self, logits: &mut [f32], position: usize) -> TokenId {
        let penalty = self.config.repetition_penalty;
        for &token in &self.seen {
            let logit = &mut logits[token as usize];
            *logit = if *logit > 0.0 { *logit / penalty } else { *logit * penalty };
        }
        let greedy = self.config.temperature == 0.0 || self.config.top_k == 1 || self.config.top_p == 0.0;
        let token = if greedy { best(logits) } else { self.draw(logits, position) };
        self.see(token);
        token
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn config(temperature: f32) -> SamplingConfig {
        SamplingConfig { temperature, ..SamplingConfig::default() }
    }

    fn draws(config: &SamplingConfig, logits: &[f32], count: usize) -> Vec<usize> {
        let mut hits = vec![0; logits.len()];
        let mut sampler = Sampler::new(config.clone(), &[]);
        for position in 0..count {
            hits[sampler.sample(&mut logits.to_vec(), position) as usize] += 1;
        }
        hits
    }

    #[test]
    fn greedy_takes_the_lowest_id_among_equals() {
        assert_eq!(Sampler::new(config(0.0), &[]).sample(&mut [1.0, 3.0, 3.0, 2.0], 0), 1);
        assert_eq!(best(&[f32::NAN, -1.0, f32::NAN]), 1);
    }

    #[test]
    fn draws_follow_the_distribution() {
        // Weights 1, 2, 4, 8 of 15.
        let logits: Vec<f32> = (0..4).map(|i| i as f32 * std::f32::consts::LN_2).collect();
        let hits = draws(&config(1.0), &logits, 30_000);
        for (hits, weight) in hits.iter().zip([1.0, 2.0, 4.0, 8.0]) {
            let expected = weight / 15.0;
            let bound = 5.0 * (expected * (1.0 - expected) / 30_000.0f64).sqrt();
            assert!((*hits as f64 / 30_000.0 - expected).abs() < bound, "{hits} against {expected}");
        }
    }

    #[test]
    fn filters_keep_what_they_should() {
        let logits: Vec<f32> = (0..4).map(|i| i as f32 * std::f32::consts::LN_2).collect();
        let kept =
            |config: SamplingConfig| draws(&config, &logits, 3000).iter().map(|&hits| hits > 0).collect::<Vec<_>>();
        assert_eq!(kept(SamplingConfig { top_k: 2, ..config(1.0) }), [false, false, true, true]);
        // 8/15 = 0.533 is short of 0.6, with 4/15 it is 0.8.
        assert_eq!(kept(SamplingConfig { top_p: 0.6, ..config(1.0) }), [false, false, true, true]);
        assert_eq!(kept(SamplingConfig { top_p: 0.5, ..config(1.0) }), [false, false, false, true]);
        assert_eq!(kept(SamplingConfig { top_p: 0.0, ..config(1.0) }), [false, false, false, true]);
        assert_eq!(kept(SamplingConfig { min_p: 0.2, ..config(1.0) }), [false, true, true, true]);
        assert_eq!(kept(config(1.0)), [true; 4]);
    }

    #[test]
    fn seen_tokens_are_penalized_once_whatever_their_sign() {
        let penalized = SamplingConfig { repetition_penalty: 2.0, ..config(0.0) };
        let mut sampler = Sampler::new(penalized, &[0, 0]);
        assert_eq!(sampler.sample(&mut [3.0, 2.0, 1.0], 0), 1);
        assert_eq!(sampler.sample(&mut [-1.0, -1.5, -1.9], 1), 2);
    }

    proptest! {
        #[test]
        fn any_logits_give_a_token(logits in proptest::collection::vec(any::<f32>(), 1..50), seed: u64, position in 0usize..9,
                                   temperature in 0.0f32..3.0, top_k in 0usize..60, top_p in 0.0f32..=1.0, min_p in 0.0f32..=1.0) {
            let config = SamplingConfig { temperature, top_k, top_p, min_p, repetition_penalty: 1.3, seed, ..SamplingConfig::default() };
            let token = Sampler::new(config.clone(), &[0]).sample(&mut logits.clone(), position);
            prop_assert!((token as usize) < logits.len());
            prop_assert_eq!(token, Sampler::new(config, &[0]).sample(&mut logits.clone(), position));
        }
    }
}
