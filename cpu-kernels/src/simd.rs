//! What an algorithm may ask of an instruction set.
//!
//! An implementation is a token: a value that can be made only where its instructions were detected (or that
//! needs none), so the methods are safe. Algorithms are [`Task`]s, generic over the token; [`vectorize`]
//! compiles a task with the instruction set switched on. For that to reach the arithmetic, everything between
//! `vectorize` and an intrinsic must be `#[inline(always)]`.
//!
//! [`vectorize`]: crate::instruction_set::InstructionSet::vectorize

use half::bf16;

/// The tile that [`Simd::transpose`] takes.
pub(crate) const TRANSPOSED_ROWS: usize = 16;
pub(crate) const TRANSPOSED_COLUMNS: usize = 32;

/// The block that [`Simd::weave`] takes.
pub(crate) const WOVEN_ROWS: usize = 32;
pub(crate) const WOVEN_COLUMNS: usize = 16;

/// An algorithm and its arguments.
pub(crate) trait Task {
    /// Does the work. Implementations are `#[inline(always)]`.
    fn run<S: Simd>(self, simd: S);
}

/// An instruction set that this CPU has.
///
/// A vector is [`Self::LANES`] f32. Loads take the first lanes of a slice and fill up with zeros where it is
/// shorter; stores write only as many lanes as the slice has.
pub(crate) trait Simd: Copy + Send + Sync {
    /// `LANES` f32.
    type Vector: Copy;
    /// A power of two, at most 16.
    const LANES: usize;

    /// `x` in every lane.
    fn splat(self, x: f32) -> Self::Vector;
    /// The first lanes of `x`.
    fn load(self, x: &[f32]) -> Self::Vector;
    /// The first lanes of `x`, widened.
    fn load_bf16(self, x: &[bf16]) -> Self::Vector;
    /// Writes to the first lanes of `out`.
    fn store(self, v: Self::Vector, out: &mut [f32]);
    /// Rounds to nearest, ties to even, and writes to the first lanes of `out`.
    fn store_bf16(self, v: Self::Vector, out: &mut [bf16]);

    /// a + b
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// a - b
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// a b
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// a / b
    fn div(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// a b + c, rounded once where the instruction set can.
    fn fma(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector;
    /// The smaller; `b` where either is not a number.
    fn min(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The larger; `b` where either is not a number.
    fn max(self, a: Self::Vector, b: Self::Vector) -> Self::Vector;
    /// The nearest integer, ties to even.
    fn round(self, v: Self::Vector) -> Self::Vector;
    /// v 2^n, for integers n between -250 and 250, with overflow to infinity and gradual underflow.
    fn scale(self, v: Self::Vector, n: Self::Vector) -> Self::Vector;
    /// `v` in the lanes where `x` is at least `threshold`, 0 in the others and where either is not a number.
    fn where_at_least(self, x: Self::Vector, threshold: Self::Vector, v: Self::Vector) -> Self::Vector;
    /// The sum of the lanes, in a fixed order.
    fn sum(self, v: Self::Vector) -> f32;
    /// The largest lane; which, is unspecified where one is not a number.
    fn largest(self, v: Self::Vector) -> f32;

    /// Transposes a tile and widens it: element c of row r goes to `out[c * stride + r]`.
    ///
    /// # Panics
    /// If `stride` is less than the rows of the tile, or `out` ends before its last element.
    #[inline(always)]
    fn transpose(self, tile: &[[bf16; TRANSPOSED_COLUMNS]; TRANSPOSED_ROWS], out: &mut [f32], stride: usize) {
        for (c, out) in out.chunks_mut(stride).take(TRANSPOSED_COLUMNS).enumerate() {
            for (out, row) in out[..TRANSPOSED_ROWS].iter_mut().zip(tile) {
                *out = widen(row[c]);
            }
        }
    }

    /// Rounds a block of weights to bf16 and transposes it: element c of row r, at `weights[r * stride + c]`, goes to
    /// `out[c * WOVEN_ROWS + r]`.
    ///
    /// # Panics
    /// If `stride` is less than [`WOVEN_COLUMNS`], or `weights` ends before the last element.
    #[inline(always)]
    fn weave(self, weights: &[f32], stride: usize, out: &mut [bf16; WOVEN_ROWS * WOVEN_COLUMNS]) {
        for (r, row) in weights.chunks(stride).take(WOVEN_ROWS).enumerate() {
            for (c, weight) in row[..WOVEN_COLUMNS].iter().enumerate() {
                out[c * WOVEN_ROWS + r] = bf16::from_f32(*weight);
            }
        }
    }
}

/// Rows of `k` bf16 as rows of `padded_k` f32.
pub(crate) fn widen_rows(a: &[bf16], k: usize, padded_k: usize) -> Vec<f32> {
    let mut wide = vec![0.0; a.len() / k * padded_k];
    for (wide, row) in wide.chunks_exact_mut(padded_k).zip(a.chunks_exact(k)) {
        for (wide, x) in wide.iter_mut().zip(row) {
            *wide = widen(*x);
        }
    }
    wide
}

/// bf16 is the upper half of an f32; unlike `half`'s conversion this has no branch, so it vectorizes.
#[inline(always)]
pub(crate) fn widen(x: bf16) -> f32 {
    f32::from_bits(u32::from(x.to_bits()) << 16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instruction_set::InstructionSet;
    use crate::kernels::with_isa;
    use crate::{Isa, Kernels};

    struct Weave<'a>(&'a [f32], &'a mut [bf16; WOVEN_ROWS * WOVEN_COLUMNS]);

    impl Task for Weave<'_> {
        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            s.weave(self.0, 20, self.1);
        }
    }

    #[test]
    fn weaving_rounds_and_transposes() {
        // Every element another, and none exact in bf16; a tie, a zero and an infinity.
        let mut weights: Vec<f32> = (0..31 * 20 + 16).map(|i| (i as f32 + 0.3) / 777.0).collect();
        (weights[0], weights[21], weights[62]) = (1.0 + 1.0 / 256.0, 0.0, f32::INFINITY);
        for kernels in Isa::ALL.into_iter().filter_map(Kernels::for_isa) {
            let mut out = [bf16::NAN; WOVEN_ROWS * WOVEN_COLUMNS];
            with_isa!(kernels, isa => isa.vectorize(Weave(&weights, &mut out)));
            for (i, found) in out.iter().enumerate() {
                let (row, column) = (i % WOVEN_ROWS, i / WOVEN_ROWS);
                assert_eq!(*found, bf16::from_f32(weights[row * 20 + column]), "{}: {row}, {column}", kernels.isa());
            }
        }
    }
}
