//! Root-mean-square normalization.

use half::bf16;

use crate::simd::{Simd, Task};

/// out = x / sqrt(mean(x^2) + eps) weight, for every row of `x` `[rows, weight.len()]`, rounded once.
pub(crate) struct RmsNorm<'a> {
    pub(crate) x: &'a [f32],
    pub(crate) weight: &'a [bf16],
    pub(crate) eps: f32,
    pub(crate) out: &'a mut [bf16],
}

impl Task for RmsNorm<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let width = self.weight.len();
        debug_assert!(self.x.len().is_multiple_of(width) && self.out.len() == self.x.len());
        for (x, out) in self.x.chunks_exact(width).zip(self.out.chunks_exact_mut(width)) {
            let mean = sum_of_squares(s, x) / width as f32;
            let factor = s.splat(1.0 / (mean + self.eps).sqrt());
            let inputs = x.chunks(S::LANES).zip(self.weight.chunks(S::LANES));
            for ((x, weight), out) in inputs.zip(out.chunks_mut(S::LANES)) {
                s.store_bf16(s.mul(s.mul(s.load(x), factor), s.load_bf16(weight)), out);
            }
        }
    }
}

/// In four running sums: each addition to a single one would wait for the addition before it.
#[inline(always)]
fn sum_of_squares<S: Simd>(s: S, x: &[f32]) -> f32 {
    let mut sums = [s.splat(0.0); 4];
    for x in x.chunks(4 * S::LANES) {
        for (sum, x) in sums.iter_mut().zip(x.chunks(S::LANES)) {
            let x = s.load(x);
            *sum = s.fma(x, x, *sum);
        }
    }
    s.sum(s.add(s.add(sums[0], sums[1]), s.add(sums[2], sums[3])))
}
