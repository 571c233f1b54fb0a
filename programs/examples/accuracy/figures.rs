//! The distance of two distributions over the vocabulary, gathered over the positions of a text. Everything in nats and fp64.

/// Logits as log-probabilities, from one row of them.
pub(crate) fn log_probs(logits: &[f32]) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    // The differences in fp32, whose rounding is below that of the logits; their sum in fp64.
    let sum: f64 = logits.iter().map(|&logit| f64::from((logit - largest).exp())).sum();
    let log_sum = f64::from(largest) + sum.ln();
    logits.iter().map(|&logit| f64::from(logit) - log_sum).collect()
}

fn best(log_probs: &[f64]) -> Option<usize> {
    (0..log_probs.len()).max_by(|&a, &b| log_probs[a].total_cmp(&log_probs[b]))
}

/// What is gathered of one engine.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    /// The divergence of each position.
    divergences: Vec<f64>,
    /// Positions whose most probable token is the reference's.
    same_best: usize,
    /// Sum of the differences of the next token's log-probability, in magnitude.
    differences: f64,
    /// Sum of the negated log-probabilities of the next tokens.
    surprise: f64,
}

impl Figures {
    /// Adds a position: log-probabilities of the reference and of the engine, and the token of the text that came next.
    pub(crate) fn add(&mut self, reference: &[f64], found: &[f64], next: usize) {
        let divergence: f64 = reference.iter().zip(found).map(|(p, q)| f64::from((*p as f32).exp()) * (p - q)).sum();
        // Rounding may leave a little less than zero.
        self.divergences.push(divergence.max(0.0));
        self.same_best += usize::from(best(reference) == best(found));
        self.differences += (reference[next] - found[next]).abs();
        self.surprise -= found[next];
    }

    /// Positions so far.
    pub(crate) fn positions(&self) -> usize {
        self.divergences.len()
    }

    /// The mean Kullback-Leibler divergence of the reference from the engine.
    pub(crate) fn mean_kl(&self) -> f64 {
        self.divergences.iter().sum::<f64>() / self.positions() as f64
    }

    /// The least divergence that 99 % of the positions do not exceed.
    pub(crate) fn kl_99(&self) -> f64 {
        let mut sorted = self.divergences.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get((sorted.len() * 99).div_ceil(100).saturating_sub(1)).copied().unwrap_or(f64::NAN)
    }

    /// The perplexity of the text.
    pub(crate) fn perplexity(&self) -> f64 {
        (self.surprise / self.positions() as f64).exp()
    }

    /// The mean difference of the log-probability of the text's tokens, in magnitude.
    pub(crate) fn mean_difference(&self) -> f64 {
        self.differences / self.positions() as f64
    }

    /// The share of positions whose most probable token is the reference's.
    pub(crate) fn same_best(&self) -> f64 {
        self.same_best as f64 / self.positions() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_known_distributions() {
        let (even, uneven) = (log_probs(&[3.0, 3.0]), log_probs(&[0.0, 3.0_f32.ln()]));
        let mut figures = Figures::default();
        figures.add(&uneven, &uneven, 1);
        assert_eq!((figures.mean_kl(), figures.same_best(), figures.mean_difference()), (0.0, 1.0, 0.0));
        assert!((figures.perplexity() - 4.0 / 3.0).abs() < 1e-6);
        figures.add(&uneven, &even, 0);
        // A quarter and three quarters against halves.
        let divergence = 0.25 * 0.5_f64.ln() + 0.75 * 1.5_f64.ln();
        assert!((figures.mean_kl() - divergence / 2.0).abs() < 1e-6);
        assert!((figures.kl_99() - divergence).abs() < 1e-6);
        assert!((figures.mean_difference() - 2.0_f64.ln() / 2.0).abs() < 1e-6);
        assert!((figures.perplexity() - (2.0_f64 * 4.0 / 3.0).sqrt()).abs() < 1e-6);
    }

    #[test]
    fn the_99th_percentile_leaves_one_of_a_hundred() {
        let figures = Figures { divergences: (0..100).rev().map(f64::from).collect(), ..Figures::default() };
        assert_eq!(figures.kl_99(), 98.0);
    }
}
