//! What is asked of an instruction set: to run tasks, and the two operations that have kernels of their own.

#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::ops::Range;

use half::bf16;

use crate::attention::QueryTile;
use crate::generic::attention::{Attend, Partial};
use crate::generic::attention_products::Fp32;
use crate::generic::multiply_adds::{CodeMultiplyAdds, MultiplyAdds};
use crate::quantized::Panels;
use crate::quantized::rows::Rows;
use crate::simd::Task;
use crate::submatrix::Submatrix;

/// An instruction set that this CPU has (or an imitation of one): a token, made only where the instructions were
/// found.
pub(crate) trait InstructionSet: Copy + Send + Sync {
    /// What [`Self::multiply`] reads its left operand as.
    type Activation: Copy + Send + Sync + 'static;

    /// The rows of [`Self::activations`] may be divided at multiples of this.
    const ROW_STEP: usize = 1;

    /// Runs a task with the instruction set's code generation.
    fn vectorize<T: Task>(self, task: T);

    /// Rows of `k` elements as [`Self::multiply`] wants them: `padded_k` each, zeros at the end. Within
    /// [`Self::ROW_STEP`] rows the order of the elements is whatever [`Self::multiply`] reads fastest.
    fn activations(self, a: &[bf16], k: usize, padded_k: usize) -> Cow<'_, [Self::Activation]>;

    /// out `[m, n]` = a `[m, padded_k]` . W^T, for the columns that `panels` (whole panels, see
    /// [`crate::packed`]) and `out` share. Each element is accumulated over k in one fixed order, whatever m is.
    ///
    /// # Panics
    /// If the sizes of `a`, `panels` and `out` contradict one another.
    fn multiply(self, a: &[Self::Activation], padded_k: usize, panels: &[bf16], out: Submatrix<'_, f32>);

    /// How many rows [`Self::multiply_quantized`] takes at a time at most, of `rows` in all: groups of
    /// [`crate::quantized::rows`] have no more.
    fn code_rows(self, _rows: usize) -> usize {
        1
    }

    /// out `[m, n]` = rows . W^T, for the columns that `panels` and `out` share; the arithmetic is that of
    /// [`crate::quantized`], to the bit.
    ///
    /// # Panics
    /// If the sizes of `rows`, `panels` and `out` contradict one another.
    fn multiply_quantized(self, rows: Rows<'_>, panels: Panels<'_>, out: Submatrix<'_, f32>);

    /// The instructions that [`Self::multiply_quantized`] multiplies with, by the name that their maker gives them.
    fn code_instructions(self) -> &'static str;

    /// Attention of some queries of one sequence that share a KV head to the keys at `positions`, which are of one part.
    #[inline(always)]
    fn attend(self, tile: &QueryTile<'_>, positions: Range<usize>) -> Partial {
        let mut partial = Partial::new(tile);
        self.vectorize(Attend { products: Fp32, tile, positions, partial: &mut partial });
        partial
    }

    /// Does `rounds` rounds of the instruction that [`Self::multiply`] rests on, on registers alone, and returns how
    /// many multiplications and additions that was.
    fn multiply_adds(self, rounds: usize) -> u64 {
        let mut flops = 0;
        self.vectorize(MultiplyAdds::<12> { rounds, flops: &mut flops });
        flops
    }

    /// The same of the instruction that [`Self::multiply_quantized`] rests on.
    fn code_multiply_adds(self, rounds: usize) -> u64 {
        let mut operations = 0;
        self.vectorize(CodeMultiplyAdds { rounds, operations: &mut operations });
        operations
    }
}

/// Rows of `k` bf16 as rows of `padded_k`, borrowed where that is the same.
pub(crate) fn pad_rows(a: &[bf16], k: usize, padded_k: usize) -> Cow<'_, [bf16]> {
    if k == padded_k {
        return Cow::Borrowed(a);
    }
    let mut padded = vec![bf16::ZERO; a.len() / k * padded_k];
    for (padded, row) in padded.chunks_exact_mut(padded_k).zip(a.chunks_exact(k)) {
        padded[..k].copy_from_slice(row);
    }
    Cow::Owned(padded)
}
