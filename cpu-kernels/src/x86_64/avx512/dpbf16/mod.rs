//! The products of AVX-512 BF16, whose VDPBF16PS multiplies pairs of bf16: that of weights, and in attention that of values.

mod attention;
mod gemm;
mod multiply_adds;

use std::arch::x86_64::*;
use std::borrow::Cow;
use std::ops::Range;

use half::bf16;

use super::vectors::Avx512;
use crate::attention::QueryTile;
use crate::generic::attention::{Attend, Partial};
use crate::instruction_set::{InstructionSet, pad_rows};
use crate::quantized::Panels;
use crate::quantized::rows::Rows;
use crate::simd::Task;
use crate::submatrix::Submatrix;

/// Proof that this CPU and its operating system have AVX-512 BF16 as well as what [`Avx512`] proves.
#[derive(Clone, Copy)]
pub(crate) struct Avx512Bf16 {
    vectors: Avx512,
}

impl Avx512Bf16 {
    /// `None` where an instruction is missing.
    pub(crate) fn new() -> Option<Self> {
        let vectors = Avx512::new()?;
        is_x86_feature_detected!("avx512bf16").then_some(Avx512Bf16 { vectors })
    }
}

impl InstructionSet for Avx512Bf16 {
    type Activation = bf16;

    #[inline(always)]
    fn vectorize<T: Task>(self, task: T) {
        self.vectors.vectorize(task);
    }

    fn activations(self, a: &[bf16], k: usize, padded_k: usize) -> Cow<'_, [bf16]> {
        pad_rows(a, k, padded_k)
    }

    fn multiply(self, a: &[bf16], padded_k: usize, panels: &[bf16], out: Submatrix<'_, f32>) {
        // SAFETY: `self` proves the instructions that `gemm::multiply` is compiled with.
        unsafe { gemm::multiply(a, padded_k, panels, out) }
    }

    fn code_rows(self, rows: usize) -> usize {
        self.vectors.rows_at_once(rows)
    }

    fn multiply_quantized(self, rows: Rows<'_>, panels: Panels<'_>, out: Submatrix<'_, f32>) {
        self.vectors.multiply_codes(rows, panels, out);
    }

    fn code_instructions(self) -> &'static str {
        self.vectors.code_instructions()
    }

    fn code_multiply_adds(self, rounds: usize) -> u64 {
        self.vectors.code_multiply_adds(rounds)
    }

    #[inline(always)]
    fn attend(self, tile: &QueryTile<'_>, positions: Range<usize>) -> Partial {
        let mut partial = Partial::new(tile);
        let products = attention::Bf16Weights(self);
        self.vectorize(Attend { products, tile, positions, partial: &mut partial });
        partial
    }

    fn multiply_adds(self, rounds: usize) -> u64 {
        // SAFETY: `self` proves the instructions that `multiply_adds::multiply_adds` is compiled with.
        unsafe { multiply_adds::multiply_adds(rounds) }
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn as_bf16(v: __m512i) -> __m512bh {
    // SAFETY: both are 64 bytes without invalid patterns.
    unsafe { std::mem::transmute(v) }
}
