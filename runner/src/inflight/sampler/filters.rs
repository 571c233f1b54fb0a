//! Top-p and min-p over the weights of a whole vocabulary.
//!
//! Both keep the first tokens of one order, by weight and then by id, so what they keep is what reaches a least weight.
//! That weight is found by bisection with sums over the tail, which run at the speed of the cache; only what is left
//! between the bounds is sorted.

use cpu_kernels::Kernels;

/// Weights between the bounds that are sorted rather than bisected further.
const FEW: usize = 256;

/// A bound of the bisection: weights from here on, their sum and number.
#[derive(Clone, Copy)]
struct Bound {
    least: f32,
    sum: f64,
    count: usize,
}

impl Bound {
    fn at(kernels: Kernels, weights: &[f32], least: f32) -> Self {
        let (sum, count) = kernels.sum_at_least(weights, least);
        Self { least, sum, count }
    }
}

/// The least weight that is kept, above 0. Weights are relative to the best, which is 1; those that reach the least but
/// are not kept, because equals come first, are set to 0.
pub(super) fn least_kept(kernels: Kernels, weights: &mut [f32], top_p: f32, min_p: f32) -> f32 {
    let least = if top_p < 1.0 { top_p_least(kernels, weights, f64::from(top_p)) } else { f32::from_bits(1) };
    least.max(min_p)
}

/// The fewest weights, best first, whose sum is at least `top_p` of the whole.
fn top_p_least(kernels: Kernels, weights: &mut [f32], top_p: f64) -> f32 {
    // All weights and none: `low` always has enough, `high` never.
    let mut low = Bound::at(kernels, weights, f32::from_bits(1));
    let mut high = Bound { least: 1.0_f32.next_up(), sum: 0.0, count: 0 };
    let enough = top_p * low.sum;
    // Weights below this are not enough to matter even if all are: most of a vocabulary is below it.
    let mut next = ((1.0 - top_p) * low.sum / weights.len() as f64) as f32;
    while low.count - high.count > FEW && low.least.next_up() < high.least {
        let probe = Bound::at(kernels, weights, next.clamp(low.least.next_up(), high.least.next_down()));
        *(if probe.sum >= enough { &mut low } else { &mut high }) = probe;
        // Between the representations of two positive numbers is about the middle of their logarithms.
        next = f32::from_bits(low.least.to_bits().midpoint(high.least.to_bits()));
    }
    let mut between = between(weights, low.least, high.least);
    between.sort_unstable_by(|&a, &b| weights[b].total_cmp(&weights[a]).then(a.cmp(&b)));
    let mut sum = high.sum;
    let last = between.iter().position(|&index| {
        sum += f64::from(weights[index]);
        sum >= enough
    });
    // Rounding may leave the sum short of enough: then all are kept.
    for &index in between.iter().skip(last.map_or(between.len(), |last| last + 1)) {
        weights[index] = 0.0;
    }
    low.least
}

/// The indices of the weights from `low` up to `high`, in order.
fn between(weights: &[f32], low: f32, high: f32) -> Vec<usize> {
    // Looked at together: most pieces have none, and a count without a branch is vectorized.
    const PIECE: usize = 64;
    // Positive numbers are in the order of their representations, so one comparison does for two.
    let (low, width) = (low.to_bits(), high.to_bits() - low.to_bits());
    let is_between = |weight: f32| weight.to_bits().wrapping_sub(low) < width;
    let mut indices = Vec::new();
    for (piece, first) in weights.chunks(PIECE).zip((0..).step_by(PIECE)) {
        if piece.iter().map(|&weight| u32::from(is_between(weight))).sum::<u32>() > 0 {
            indices
                .extend(piece.iter().zip(first..).filter(|&(&weight, _)| is_between(weight)).map(|(_, index)| index));
        }
    }
    indices
}
