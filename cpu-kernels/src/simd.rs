//! What an algorithm may ask of an instruction set's vectors.
//!
//! An implementation is a token: a value that can be made only where its instructions were detected (or that
//! needs none), so the methods are safe. Algorithms are [`Task`]s, generic over the token; [`vectorize`]
//! compiles a task with the instruction set switched on. For that to reach the arithmetic, everything between
//! `vectorize` and an intrinsic must be `#[inline(always)]`.
//!
//! [`vectorize`]: crate::instruction_set::InstructionSet::vectorize

use half::bf16;

use crate::kv_int8::codes;

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
    /// The even and the odd elements of `LANES` pairs, widened.
    ///
    /// # Panics
    /// If there are fewer.
    fn load_pairs(self, x: &[bf16]) -> [Self::Vector; 2];
    /// Asks for the cache line at the beginning of `x`, which is wanted soon.
    #[inline(always)]
    fn prefetch(self, _x: &[bf16]) {}
    /// Integer codes, two to a word, as numbers: see [`crate::kv_int8`].
    #[inline(always)]
    fn widen_codes(self, words: &[bf16], out: &mut [bf16]) {
        for (word, pair) in words.iter().zip(out.as_chunks_mut::<2>().0) {
            *pair = codes(*word);
        }
    }
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
    /// Whether any lane of `a` is larger than that of `b`; where either is not a number, it is not.
    fn any_above(self, a: Self::Vector, b: Self::Vector) -> bool;
    /// The sum of the lanes, in a fixed order.
    fn sum(self, v: Self::Vector) -> f32;
    /// The largest lane; which, is unspecified where one is not a number.
    fn largest(self, v: Self::Vector) -> f32;
}

/// Rows of `k` bf16 as rows of `padded_k` f32.
pub(crate) fn widen_rows(a: &[bf16], k: usize, padded_k: usize) -> Vec<f32> {
    let mut wide = vec![0.0; a.len() / k * padded_k];
    for (wide_row, row) in wide.chunks_exact_mut(padded_k).zip(a.chunks_exact(k)) {
        for (wide_x, x) in wide_row.iter_mut().zip(row) {
            *wide_x = widen(*x);
        }
    }
    wide
}

/// bf16 is the upper half of an f32; unlike `half`'s conversion this has no branch, so it vectorizes.
#[inline(always)]
pub(crate) fn widen(x: bf16) -> f32 {
    f32::from_bits(u32::from(x.to_bits()) << 16)
}
