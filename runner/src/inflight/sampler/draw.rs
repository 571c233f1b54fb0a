//! One of many, by weight: a pass over the weights for the sums of blocks, and one over the block that is hit.

use cpu_kernels::Kernels;

/// Weights that are summed before they are looked at one by one.
const BLOCK: usize = 1024;

/// The index in `weights` that a number in [0, 1) falls on when those that are at least `least` (above 0, and at least
/// one weight is) lie side by side, in their order, over the whole of it.
pub(super) fn index_at(kernels: Kernels, weights: &[f32], least: f32, uniform: f64) -> usize {
    let sums: Vec<f64> = weights.chunks(BLOCK).map(|weights| kernels.sum_at_least(weights, least).0).collect();
    let target = uniform * sums.iter().sum::<f64>();
    let mut before = 0.0;
    for (block, sum) in sums.iter().enumerate() {
        if target < before + sum {
            let weights = &weights[..weights.len().min((block + 1) * BLOCK)];
            return index_from(weights, block * BLOCK, least, target - before);
        }
        before += sum;
    }
    index_from(weights, weights.len(), least, 0.0)
}

/// The index from `first` on where the weights that are at least `least` exceed `target`; the last such weight where
/// rounding leaves `target` unreached.
fn index_from(weights: &[f32], first: usize, least: f32, target: f64) -> usize {
    let mut left = target;
    let found = weights[first..].iter().position(|&weight| {
        let counted = weight >= least;
        left -= if counted { f64::from(weight) } else { 0.0 };
        counted && left < 0.0
    });
    match found {
        Some(offset) => first + offset,
        None => weights.iter().rposition(|&weight| weight >= least).unwrap_or(0),
    }
}

/// A number in [0, 1) that depends on its arguments only: two rounds of the SplitMix64 finalizer (Steele, Lea, Flood
/// 2014) over seed and position.
pub(super) fn uniform(seed: u64, position: u64) -> f64 {
    let mix = |mut x: u64| {
        x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    (mix(mix(seed) ^ position) >> 11) as f64 / (1u64 << 53) as f64
}
