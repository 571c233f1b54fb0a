//! What sampling asks of a whole vocabulary: where the best are, weights from logits, and the weight of a tail.

use super::exp::exp;
use super::log_sum_exp::largest;
use crate::simd::{Simd, Task};

/// Writes the largest number of each `block` elements of `x` to `out`; minus infinity where a block has none.
pub(crate) struct Maxima<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) block: usize,
    pub(crate) out: &'a mut [f32],
}

impl Task for Maxima<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        debug_assert_eq!(self.out.len(), self.x.len().div_ceil(self.block));
        for (x, out) in self.x.chunks(self.block).zip(self.out) {
            *out = largest(s, x);
        }
    }
}

/// Vectors looked at side by side, to hide the latency of a multiplication.
const CHAINS: usize = 4;

/// Writes whether every element of `x` is finite to `out`.
pub(crate) struct AllFinite<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) out: &'a mut bool,
}

impl Task for AllFinite<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // A finite number times zero is zero; infinity and NaN leave a NaN, which no addition removes.
        let zero = s.splat(0.0);
        let mut sums = [zero; CHAINS];
        let mut rows = self.x.chunks_exact(CHAINS * S::LANES);
        for row in &mut rows {
            for (chain, sum) in sums.iter_mut().enumerate() {
                *sum = s.fma(s.load(&row[chain * S::LANES..][..S::LANES]), zero, *sum);
            }
        }
        for part in rows.remainder().chunks(S::LANES) {
            sums[0] = s.fma(s.load(part), zero, sums[0]);
        }
        *self.out = s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3]))) == 0.0;
    }
}

/// The lowest exponent whose power of e is a normal f32. Subnormal results cost some CPUs hundreds of cycles each.
const LOWEST: f32 = -87.0;

/// Elements that wait in registers or the nearest cache for a second look.
const PIECE: usize = 64;

/// x = e^((x - best) scale), 0 where the exponent is below [`LOWEST`] or not a number.
pub(crate) struct ExpWeights<'a> {
    pub(crate) x: &'a mut [f32],
    pub(crate) best: f32,
    pub(crate) scale: f32,
}

impl Task for ExpWeights<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (best, scale, lowest) = (s.splat(self.best), s.splat(self.scale), s.splat(LOWEST));
        let mut exponents = [0.0; PIECE];
        for x in self.x.chunks_mut(PIECE) {
            for (x, exponent) in x.chunks_mut(S::LANES).zip(exponents.chunks_mut(S::LANES)) {
                let v = s.mul(s.sub(s.load(x), best), scale);
                s.store(v, exponent);
                // The second operand of `max` wins over what is not a number.
                s.store(exp(s, s.max(v, lowest)), x);
            }
            for (x, exponent) in x.iter_mut().zip(&exponents) {
                *x = if *exponent >= LOWEST { *x } else { 0.0 };
            }
        }
    }
}

/// Vectors summed side by side, to hide the latency of an addition.
const SUMS: usize = 4;

/// Vectors that each of these takes before it goes on in f64: with the additions that join the sums and their lanes,
/// few enough that rounding stays below 2e-6 of the sum.
const TERMS: usize = 16;

/// Writes the sum and the number of those elements of `x` that are at least `threshold`, which is above 0.
pub(crate) struct SumAtLeast<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) threshold: f32,
    pub(crate) out: &'a mut (f64, usize),
}

impl Task for SumAtLeast<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (threshold, one) = (s.splat(self.threshold), s.splat(1.0));
        let (mut total, mut total_count) = (0.0, 0);
        for x in self.x.chunks(TERMS * SUMS * S::LANES) {
            let (mut sums, mut counts) = ([s.splat(0.0); SUMS], [s.splat(0.0); SUMS]);
            let mut add_to = |i: usize, part: &[f32]| {
                // What a load fills up with is below the threshold.
                let v = s.load(part);
                sums[i] = s.add(sums[i], s.where_at_least(v, threshold, v));
                counts[i] = s.add(counts[i], s.where_at_least(v, threshold, one));
            };
            let mut rows = x.chunks_exact(SUMS * S::LANES);
            for row in &mut rows {
                for i in 0..SUMS {
                    add_to(i, &row[i * S::LANES..][..S::LANES]);
                }
            }
            rows.remainder().chunks(S::LANES).enumerate().for_each(|(i, part)| add_to(i, part));
            let join_lanes = |v: [S::Vector; SUMS]| s.sum(s.add(s.add(v[0], v[1]), s.add(v[2], v[3])));
            total += f64::from(join_lanes(sums));
            total_count += join_lanes(counts) as usize;
        }
        *self.out = (total, total_count);
    }
}
