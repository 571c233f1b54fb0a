//! The checked front of what sampling needs. One thread each: a row is too short to divide.

#![forbid(unsafe_code)]

use crate::any_instruction_set::with_isa;
use crate::generic::sampling::{AllFinite, ExpWeights, Maxima, SumAtLeast};
use crate::instruction_set::InstructionSet;
use crate::kernels::Kernels;

impl Kernels {
    /// Whether no element of `x` is infinite or not a number.
    pub fn all_finite(&self, x: &[f32]) -> bool {
        let mut out = true;
        with_isa!(self.0, isa => isa.vectorize(AllFinite { x, out: &mut out }));
        out
    }

    /// The largest number in each block of `block` elements of `x`, of which the last may be shorter; minus infinity
    /// where a block has none. What is not a number is passed over.
    ///
    /// # Panics
    /// If `block` is zero, or `out` has not one element for each block.
    pub fn maxima(&self, x: &[f32], block: usize, out: &mut [f32]) {
        assert!(block > 0, "a block must not be empty");
        let blocks = x.len().div_ceil(block);
        assert!(out.len() == blocks, "out has {} elements, but x has {blocks} blocks", out.len());
        with_isa!(self.0, isa => isa.vectorize(Maxima { x, block, out }));
    }

    /// x = e^((x - best) scale), within 3 units in the last place for the exponent as f32 has it; 0 where that is below
    /// -87 (where e^x would be subnormal) or x is not a number. The same element gives the same bits wherever it stands.
    ///
    /// # Panics
    /// If `best` is not finite.
    pub fn exp_weights(&self, x: &mut [f32], best: f32, scale: f32) {
        assert!(best.is_finite(), "the best must be finite, not {best}");
        with_isa!(self.0, isa => isa.vectorize(ExpWeights { x, best, scale }));
    }

    /// The sum and the number of those elements of `x` that are at least `threshold`, which is above 0. The error is
    /// below 2e-6 of the sum, and a lower threshold never gives a lower sum.
    ///
    /// # Panics
    /// If `threshold` is not above 0.
    pub fn sum_at_least(&self, x: &[f32], threshold: f32) -> (f64, usize) {
        assert!(threshold > 0.0, "the threshold must be above 0, not {threshold}");
        let mut out = (0.0, 0);
        with_isa!(self.0, isa => isa.vectorize(SumAtLeast { x, threshold, out: &mut out }));
        out
    }
}
