//! Multiply-adds on registers alone: how fast an instruction set could be if memory were infinitely fast.

use std::hint::black_box;

use crate::packed::PANEL_COLUMNS;
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

/// `rounds` times the sums of a panel's columns, four products of codes each, in plain Rust.
pub(crate) struct CodeMultiplyAdds<'a> {
    pub(crate) rounds: usize,
    pub(crate) operations: &'a mut u64,
}

impl Task for CodeMultiplyAdds<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let codes = black_box([[1_u8; 4]; PANEL_COLUMNS]);
        let mut quad = black_box([1_i8; 4]);
        let mut sums = [0_i32; PANEL_COLUMNS];
        for _ in 0..self.rounds {
            for (sum, codes) in sums.iter_mut().zip(codes) {
                let products = codes.iter().zip(quad).map(|(code, a)| i32::from(*code) * i32::from(a));
                *sum = sum.wrapping_add(products.sum());
            }
            quad[0] ^= 1;
        }
        black_box(sums);
        *self.operations = (self.rounds * PANEL_COLUMNS * 4 * 2) as u64;
    }
}
