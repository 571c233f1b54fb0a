//! The logarithm of a sum of exponentials: what turns logits into log-probabilities.

use super::exp::exp;
use crate::simd::{Simd, Task};

/// Vectors summed in f32 before they are added in f64: few enough that rounding stays below 1e-6 of the sum.
const VECTORS_PER_SUM: usize = 16;

/// Writes ln(sum(e^x)) to `out`; minus infinity where there is no x, NaN where one is NaN.
pub(crate) struct LogSumExp<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) out: &'a mut f32,
}

impl Task for LogSumExp<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let largest = largest(s, self.x);
        if !largest.is_finite() {
            *self.out = if self.x.iter().any(|x| x.is_nan()) { f32::NAN } else { largest };
            return;
        }
        let shift = s.splat(largest);
        let (body, tail) = self.x.split_at(self.x.len() / S::LANES * S::LANES);
        let mut total = 0.0_f64;
        for x in body.chunks(VECTORS_PER_SUM * S::LANES) {
            let mut sum = s.splat(0.0);
            for x in x.chunks_exact(S::LANES) {
                sum = s.add(sum, exp(s, s.sub(s.load(x), shift)));
            }
            total += f64::from(s.sum(sum));
        }
        let mut last = [0.0; 16];
        s.store(exp(s, s.sub(s.load(tail), shift)), &mut last[..tail.len()]);
        total += last.iter().map(|x| f64::from(*x)).sum::<f64>();
        *self.out = (f64::from(largest) + total.ln()) as f32;
    }
}

/// The largest number in `x`, minus infinity where there is none.
#[inline(always)]
pub(super) fn largest<S: Simd>(s: S, x: &[f32]) -> f32 {
    let (body, tail) = x.split_at(x.len() / S::LANES * S::LANES);
    let mut largest = s.splat(f32::NEG_INFINITY);
    for x in body.chunks_exact(S::LANES) {
        largest = s.max(s.load(x), largest);
    }
    tail.iter().fold(s.largest(largest), |largest, x| largest.max(*x))
}
