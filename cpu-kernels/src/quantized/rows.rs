//! Rows of activations as integer codes, block by block.
//!
//! A block of 32 bf16 becomes codes of -127..=127 and a scale: the largest magnitude over 127. A row is rounded by itself. A
//! block below 2^-100 is zero; one with an element that is not finite has a scale that is not a number, and so has every
//! output of its row.

use half::bf16;
use rayon::prelude::*;

use super::{BLOCK, INT4_STEP, INT8_ZERO, Quantization, nearest, padded_k};
use crate::instruction_set::InstructionSet;
use crate::simd::{Simd, Task};

/// The bits of 2^-100 in bf16: whatever is below is zero, so that no scale is near the end of fp32's range.
const TINY: u16 = (127 - 100) << 7;

/// The bits of bf16's infinity.
const INFINITY: u16 = 0x7f80;

/// Elements of one task: fewer are not worth another thread.
const ELEMENTS_PER_TASK: usize = 1 << 16;

/// Rows of codes.
pub(crate) struct QuantizedRows {
    padded_k: usize,
    /// `[m, padded_k]`
    codes: Vec<i8>,
    /// `[m, padded_k / 32]`: what a sum of products of codes is multiplied by, for the activation's part.
    scales: Vec<f32>,
    /// `[m, padded_k / 32]`: what the zero of the weights' codes is multiplied by. For `int8`, whose zero is always the same,
    /// this is the product.
    offsets: Vec<i32>,
}

impl QuantizedRows {
    /// Rounds rows of `k` elements.
    pub(crate) fn new<I: InstructionSet>(isa: I, a: &[bf16], k: usize, weights: Quantization) -> Self {
        let (m, padded_k) = (a.len() / k, padded_k(k));
        let blocks = padded_k / BLOCK;
        let (mut codes, mut scales, mut offsets) = (vec![0; m * padded_k], vec![0.0; m * blocks], vec![0; m * blocks]);
        let targets = scales.par_chunks_exact_mut(blocks).zip(offsets.par_chunks_exact_mut(blocks));
        let parts = a.par_chunks(k).zip(codes.par_chunks_exact_mut(padded_k)).zip(targets);
        parts.with_min_len(ELEMENTS_PER_TASK.div_ceil(k)).for_each(|((row, codes), (scales, offsets))| {
            isa.vectorize(Round { row, codes, scales, offsets, weights });
        });
        QuantizedRows { padded_k, codes, scales, offsets }
    }

    /// All of them.
    pub(crate) fn all(&self) -> Rows<'_> {
        let Self { padded_k, codes, scales, offsets } = self;
        Rows { padded_k: *padded_k, codes, scales, offsets }
    }
}

/// Some of the rows.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) padded_k: usize,
    pub(crate) codes: &'a [i8],
    pub(crate) scales: &'a [f32],
    pub(crate) offsets: &'a [i32],
}

impl Rows<'_> {
    /// Rows `first..end`.
    pub(crate) fn range(self, first: usize, end: usize) -> Self {
        let blocks = self.blocks();
        Rows {
            padded_k: self.padded_k,
            codes: &self.codes[first * self.padded_k..end * self.padded_k],
            scales: &self.scales[first * blocks..end * blocks],
            offsets: &self.offsets[first * blocks..end * blocks],
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.codes.len() / self.padded_k
    }

    /// Blocks of a row.
    pub(crate) fn blocks(&self) -> usize {
        self.padded_k / BLOCK
    }
}

/// Rounds one row.
struct Round<'a> {
    row: &'a [bf16],
    codes: &'a mut [i8],
    scales: &'a mut [f32],
    offsets: &'a mut [i32],
    weights: Quantization,
}

impl Task for Round<'_> {
    /// Plain Rust, whose operations are the same everywhere; compilers make vectors of it.
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let (scale_unit, offset_unit) = match self.weights {
            Quantization::Int8 => (1.0, -INT8_ZERO),
            Quantization::Int4 => (1.0 / INT4_STEP as f32, -1),
        };
        let targets = self.codes.as_chunks_mut::<BLOCK>().0.iter_mut().zip(self.scales.iter_mut().zip(self.offsets));
        for (row, (codes, (scale, offset))) in self.row.chunks(BLOCK).zip(targets) {
            let mut bits = [0_u16; BLOCK];
            match row.first_chunk::<BLOCK>() {
                Some(row) => bits = row.map(bf16::to_bits),
                None => bits.iter_mut().zip(row).for_each(|(to, from)| *to = from.to_bits()),
            }
            let largest = bits.iter().fold(0, |largest, bits| largest.max(bits & 0x7fff));
            if largest < TINY {
                continue;
            }
            if largest >= INFINITY {
                *scale = f32::NAN;
                continue;
            }
            let largest = f32::from_bits(u32::from(largest) << 16);
            let inverse = 127.0 / largest;
            let mut sum = 0;
            for (code, bits) in codes.iter_mut().zip(bits) {
                // At most 127, and half an ulp, in magnitude.
                let rounded = nearest(f32::from_bits(u32::from(bits) << 16) * inverse);
                *code = rounded as i8;
                sum += rounded;
            }
            *scale = largest / 127.0 * scale_unit;
            *offset = sum * offset_unit;
        }
    }
}
