//! The matrix product with FMA: bf16 becomes f32 by a shift or a mask, and a lane is one output column.
//!
//! For each element even then odd k of every pair are added, in the order of k, to one running sum; that is what
//! AVX2 does too, so both give the same bits. Which rows and panels are computed together, and where k is cut (the
//! sums are then kept in `out`, which is fp32 like the registers), changes nothing.

mod activations;
mod gemm;
mod microkernels;

use std::borrow::Cow;

use half::bf16;

use super::vectors::Avx512;
use crate::instruction_set::InstructionSet;
use crate::quantized::Panels;
use crate::quantized::rows::Rows;
use crate::simd::Task;
use crate::submatrix::Submatrix;

impl InstructionSet for Avx512 {
    type Activation = f32;
    const ROW_STEP: usize = microkernels::ROWS;

    #[inline(always)]
    fn vectorize<T: Task>(self, task: T) {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
        fn run<T: Task>(simd: Avx512, task: T) {
            task.run(simd);
        }
        // SAFETY: `self` proves the instructions that `run` is compiled with.
        unsafe { run(self, task) }
    }

    fn activations(self, a: &[bf16], k: usize, padded_k: usize) -> Cow<'_, [f32]> {
        // SAFETY: `self` proves the instructions that `activations::interleave` is compiled with.
        Cow::Owned(unsafe { activations::interleave(a, k, padded_k) })
    }

    fn multiply(self, a: &[f32], padded_k: usize, panels: &[bf16], out: Submatrix<'_, f32>) {
        // SAFETY: `self` proves the instructions that `gemm::multiply` is compiled with.
        unsafe { gemm::multiply(a, padded_k, panels, out) }
    }

    fn code_rows(self, rows: usize) -> usize {
        self.rows_at_once(rows)
    }

    fn multiply_quantized(self, rows: Rows<'_>, panels: Panels<'_>, out: Submatrix<'_, f32>) {
        self.multiply_codes(rows, panels, out);
    }

    fn code_instructions(self) -> &'static str {
        Avx512::code_instructions(self)
    }

    fn code_multiply_adds(self, rounds: usize) -> u64 {
        Avx512::code_multiply_adds(self, rounds)
    }
}
