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

/// Rows of codes, in groups: the blocks of a group's rows that have the same k are neighbours. So a kernel that takes a group
/// at a time reads it from one end to the other. With groups of one row this is row-major.
pub(crate) struct QuantizedRows {
    padded_k: usize,
    group: usize,
    /// `[m / group][padded_k / 32][group][32]`; the last group may have fewer rows, and so below.
    codes: Vec<i8>,
    /// `[m / group][padded_k / 32][group]`: what a sum of products of codes is multiplied by, for the activation's part.
    scales: Vec<f32>,
    /// `[m / group][padded_k / 32][group]`: what the zero of the weights' codes is multiplied by. For `int8`, whose zero is
    /// always the same, this is the product.
    offsets: Vec<i32>,
}

impl QuantizedRows {
    /// Rounds rows of `k` elements, for groups of at most [`InstructionSet::code_rows`], all of one size but for the last.
    pub(crate) fn new<I: InstructionSet>(isa: I, a: &[bf16], k: usize, weights: Quantization) -> Self {
        let (m, padded_k) = (a.len() / k, padded_k(k));
        let blocks = padded_k / BLOCK;
        let group = m.div_ceil(m.div_ceil(isa.code_rows(m)).max(1)).max(1);
        let (mut codes, mut scales, mut offsets) = (vec![0; m * padded_k], vec![0.0; m * blocks], vec![0; m * blocks]);
        let targets = scales.par_chunks_mut(group * blocks).zip(offsets.par_chunks_mut(group * blocks));
        let parts = a.par_chunks(group * k).zip(codes.par_chunks_mut(group * padded_k)).zip(targets);
        parts.with_min_len(ELEMENTS_PER_TASK.div_ceil(group * k)).for_each(|((rows, codes), (scales, offsets))| {
            isa.vectorize(Round { rows, k, codes, scales, offsets, weights });
        });
        QuantizedRows { padded_k, group, codes, scales, offsets }
    }

    /// All of them.
    pub(crate) fn all(&self) -> Rows<'_> {
        let Self { padded_k, group, codes, scales, offsets } = self;
        Rows { padded_k: *padded_k, group: *group, codes, scales, offsets }
    }
}

/// Some whole groups of rows.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) padded_k: usize,
    /// How many rows a group has; the last may have fewer.
    pub(crate) group: usize,
    pub(crate) codes: &'a [i8],
    pub(crate) scales: &'a [f32],
    pub(crate) offsets: &'a [i32],
}

impl Rows<'_> {
    /// Rows `first..end`, which are whole groups.
    pub(crate) fn range(self, first: usize, end: usize) -> Self {
        assert!(first.is_multiple_of(self.group) && (end.is_multiple_of(self.group) || end == self.count()), "groups");
        let blocks = self.blocks();
        Rows {
            codes: &self.codes[first * self.padded_k..end * self.padded_k],
            scales: &self.scales[first * blocks..end * blocks],
            offsets: &self.offsets[first * blocks..end * blocks],
            ..self
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

/// Rounds the rows of a group.
struct Round<'a> {
    rows: &'a [bf16],
    k: usize,
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
        let (codes, _) = self.codes.as_chunks_mut::<BLOCK>();
        let group = self.rows.len() / self.k;
        for (r, row) in self.rows.chunks_exact(self.k).enumerate() {
            let targets = codes[r..].iter_mut().zip(self.scales[r..].iter_mut().zip(&mut self.offsets[r..]));
            for (row, (codes, (scale, offset))) in row.chunks(BLOCK).zip(targets.step_by(group)) {
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
}
