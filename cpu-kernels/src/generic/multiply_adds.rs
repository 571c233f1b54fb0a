//! Multiply-adds on registers alone: how fast an instruction set could be if memory were infinitely fast.

use std::hint::black_box;

use crate::simd::{Simd, Task};

/// `rounds` times `SUMS` vectors of multiply-adds: enough independent ones hide their latency.
pub(crate) struct MultiplyAdds<'a, const SUMS: usize> {
    pub(crate) rounds: usize,
    pub(crate) flops: &'a mut u64,
}

impl<const SUMS: usize> Task for MultiplyAdds<'_, SUMS> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        // x / 2 + 1 goes to 2 and stays there. The sum is the multiplicand, so nothing can be taken out of the loop.
        let (half, one) = (s.splat(black_box(0.5)), s.splat(black_box(1.0)));
        let mut sums = [one; SUMS];
        for _ in 0..self.rounds {
            for sum in &mut sums {
                *sum = s.fma(*sum, half, one);
            }
        }
        black_box(sums.into_iter().map(|sum| s.sum(sum)).sum::<f32>());
        *self.flops = (self.rounds * SUMS * S::LANES * 2) as u64;
    }
}
