//! VDPBF16PS as fast as it goes.

use std::arch::x86_64::*;
use std::hint::black_box;

/// Independent sums, as many as hide the latency.
const SUMS: usize = 16;

/// See [`crate::instruction_set::InstructionSet::multiply_adds`].
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn multiply_adds(rounds: usize) -> u64 {
    // SAFETY: both are 64 bytes without invalid patterns.
    let ones: __m512bh = unsafe { std::mem::transmute(_mm512_set1_epi32(black_box(0x3f80_3f80))) };
    let mut sums = [_mm512_setzero_ps(); SUMS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_dpbf16_ps(*sum, ones, ones);
        }
    }
    black_box(sums.into_iter().map(|sum| _mm512_reduce_add_ps(sum)).sum::<f32>());
    // 16 lanes, two products each, a product and its addition being two.
    (rounds * SUMS * 16 * 2 * 2) as u64
}
