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
        for (x, out) in self.x.chunks(self.block).zip(self.out) {
            *out = largest(s, x);
        }
    }
}

/// x = e^((x - best) scale), 0 where x is not a number.
pub(crate) struct ExpWeights<'a> {
    pub(crate) x: &'a mut [f32],
    pub(crate) best: f32,
    pub(crate) scale: f32,
}

impl Task for ExpWeights<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let (best, scale) = (s.splat(self.best), s.splat(self.scale));
        let none = s.splat(f32::NEG_INFINITY);
        for x in self.x.chunks_mut(S::LANES) {
            // The second operand of `max` wins over what is not a number.
            let logit = s.max(s.load(x), none);
            s.store(exp(s, s.mul(s.sub(logit, best), scale)), x);
        }
    }
}

/// Sums that run side by side: element i goes to sum i modulo this, on every instruction set.
const SUMS: usize = 32;

/// Writes the sum and the number of those elements of `x` that are at least `threshold`.
pub(crate) struct SumAtLeast<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) threshold: f32,
    pub(crate) out: &'a mut (f64, usize),
}

impl Task for SumAtLeast<'_> {
    /// Plain Rust, which the compiler vectorizes for the instruction set that `vectorize` has switched on.
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let (mut sums, mut counts) = ([0.0_f64; SUMS], [0_u32; SUMS]);
        let (body, tail) = self.x.as_chunks::<SUMS>();
        for x in body {
            for i in 0..SUMS {
                let counted = x[i] >= self.threshold;
                sums[i] += f64::from(if counted { x[i] } else { 0.0 });
                counts[i] += u32::from(counted);
            }
        }
        for (i, x) in tail.iter().enumerate().filter(|&(_, &x)| x >= self.threshold) {
            sums[i] += f64::from(*x);
            counts[i] += 1;
        }
        *self.out = (sums.iter().sum(), counts.iter().map(|&count| count as usize).sum());
    }
}
