//! Weights as integer codes: the layout, the same for every instruction set and the same on disk as in memory.
//!
//! W `[n, k]` is cut into panels of 16 output columns as in [`crate::packed`]. k is padded to a multiple of 64, and every
//! [`BLOCK`] of 32 k of a column has a scale of its own. A panel is its codes, then its scales, then (`int4`) its zeros, padded
//! to a multiple of 64 bytes; panels follow one another.
//!
//! ```text
//! int8   code C of 0..=255    C[c][4 i + j]  at byte (i * 16 + c) * 4 + j, for column c and j of 0..4   w = s (C - 128)
//! int4   code C of 0..=15     C[c][8 i + j] + 16 C[c][8 i + 4 + j]  at the same place                  w = s (C - z / 16)
//! scales s                    f16 [block][16]
//! zeros  z (int4 only)        u8 [block][16], so that the least weight of a block is -s z / 16
//! ```
//!
//! Four k of 16 columns are one 64-byte register of VPDPBUSD; 32 k are half a B tile of AMX's TDPBSUD. `int8` takes 8.5 bits a
//! weight and `int4` 4.75.
//!
//! # The arithmetic
//!
//! A row of activations is rounded block by block (`rows`): codes a of -127..=127 and a scale t. Then, for every output,
//!
//! ```text
//! int8   D = sum (C - 128) a,           out = fma(D, s t, out)        for each block, in ascending order, from zero
//! int4   D = sum 16 C a - z sum a,      out = fma(D, s (t / 16), out)
//! ```
//!
//! D is a sum of integers, below 2^21, so it is exact whatever the order and exact in fp32; everything else is one rounded
//! product and one fused multiply-add. So every instruction set gives the same bits, with any rows beside a row and any threads.

#![forbid(unsafe_code)]

mod pack_codes;
mod pack_int4;
mod pack_int8;
pub(crate) mod rows;
pub(crate) mod walk;

use half::{bf16, f16};

pub use pack_codes::BlockCodes;

use crate::any_instruction_set::with_isa;
use crate::detect::best;
use crate::instruction_set::InstructionSet;
use crate::packed::PANEL_COLUMNS;
use crate::simd::{Simd, Task};

/// The k that share a scale.
pub const BLOCK: usize = 32;

/// k is padded to a multiple of this.
const K_STEP: usize = 64;

/// A panel is padded to a multiple of this many bytes.
const PANEL_ALIGNMENT: usize = 64;

/// The code of `int8` that stands for zero.
pub(crate) const INT8_ZERO: i32 = 128;

/// What a step of an `int4` code is counted in, so that zeros are whole numbers.
pub(crate) const INT4_STEP: i32 = 16;

/// How a weight becomes an integer code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Quantization {
    /// Eight bits, blocks of 32, symmetric.
    Int8,
    /// Four bits, blocks of 32 with a scale and a minimum.
    Int4,
}

impl Quantization {
    /// Both.
    pub const ALL: [Quantization; 2] = [Quantization::Int8, Quantization::Int4];

    /// `int8` or `int4`.
    pub fn name(self) -> &'static str {
        match self {
            Quantization::Int8 => "int8",
            Quantization::Int4 => "int4",
        }
    }

    /// Bytes of the panel of W `[n, k]`, or `None` where that does not fit a `usize`.
    pub fn panel_bytes(self, k: usize) -> Option<usize> {
        let padded_k = k.checked_next_multiple_of(K_STEP)?;
        // All parts together are less than 32 bytes for each k.
        padded_k.checked_mul(2 * PANEL_COLUMNS)?;
        Some(Places::of(self, padded_k).panel_bytes)
    }

    /// Bytes that W `[n, k]` takes when packed, or `None` where that does not fit a `usize`.
    pub fn packed_bytes(self, n: usize, k: usize) -> Option<usize> {
        n.div_ceil(PANEL_COLUMNS).checked_mul(self.panel_bytes(k)?)
    }

    /// The largest weight, in magnitude, whose scale is certainly a number in f16, whatever else is in its block.
    pub fn largest_weight(self) -> bf16 {
        match self {
            // Below 127 times f16's largest.
            Quantization::Int8 => bf16::from_f32_const(8_257_536.0),
            // Below half of 14 times f16's largest: a block may reach from it to its opposite.
            Quantization::Int4 => bf16::from_f32_const(456_704.0),
        }
    }

    /// Packs some rows of W: `rows` is `[r, k]`, row-major, with any r; `out` gets `ceil(r / 16)` whole panels.
    ///
    /// To pack a matrix in pieces, give every call but the last a multiple of 16 rows; the outputs follow one another. Every
    /// byte of `out` is written; they are the same bytes on every CPU. A block with a weight that is not finite gets a scale that is not a number, and one above
    /// [`Self::largest_weight`] may. One thread packs about a gigabyte of bf16 a second to
    /// `int8`; `int4` tries many scales for each block and takes ten times as long.
    ///
    /// # Panics
    /// If `k` is zero, `rows` is no whole number of rows, or `out` has not [`Self::packed_bytes`]`(r, k)` bytes.
    pub fn pack(self, rows: &[bf16], k: usize, out: &mut [u8]) {
        assert!(k > 0, "k must be at least 1");
        assert!(rows.len().is_multiple_of(k), "rows must be whole rows of {k} elements, not {} in all", rows.len());
        let count = rows.len() / k;
        assert_eq!(
            Some(out.len()),
            self.packed_bytes(count, k),
            "out must hold the packed panels of {count} rows of {k}"
        );
        with_isa!(best(), isa => isa.vectorize(Pack { quantization: self, rows, k, out }));
    }

    /// Packs `rows` rows of W `[_, k]` whose codes and scales are given, as they are: `block_of` is asked for each row and block.
    ///
    /// Pieces and `out` are as for [`Self::pack`].
    ///
    /// # Panics
    /// If `k` is no multiple of [`BLOCK`], or `out` has not [`Self::packed_bytes`]`(rows, k)` bytes.
    pub fn pack_codes(self, rows: usize, k: usize, out: &mut [u8], block_of: impl Fn(usize, usize) -> BlockCodes) {
        assert!(k > 0 && k.is_multiple_of(BLOCK), "k must be whole blocks, not {k}");
        assert_eq!(
            Some(out.len()),
            self.packed_bytes(rows, k),
            "out must hold the packed panels of {rows} rows of {k}"
        );
        let places = Places::of(self, padded_k(k));
        for (panel, out) in out.chunks_exact_mut(places.panel_bytes).enumerate() {
            out.fill(0);
            let first = panel * PANEL_COLUMNS;
            let count = PANEL_COLUMNS.min(rows - first);
            pack_codes::pack(self, count, k / BLOCK, places, out, |column, block| block_of(first + column, block));
        }
    }
}

/// See [`Quantization::pack`].
struct Pack<'a> {
    quantization: Quantization,
    rows: &'a [bf16],
    k: usize,
    out: &'a mut [u8],
}

impl Task for Pack<'_> {
    /// Plain Rust, whose operations are the same everywhere; compilers make vectors of it.
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self { quantization, rows, k, out } = self;
        let places = Places::of(quantization, padded_k(k));
        for (rows, panel) in rows.chunks(PANEL_COLUMNS * k).zip(out.chunks_exact_mut(places.panel_bytes)) {
            panel.fill(0);
            match quantization {
                Quantization::Int8 => pack_int8::pack(rows, k, places, panel),
                Quantization::Int4 => pack_int4::pack(rows, k, places, panel),
            }
        }
    }
}

/// `k` rounded up to what panels of codes have.
pub(crate) fn padded_k(k: usize) -> usize {
    k.next_multiple_of(K_STEP)
}

/// Where the parts of a panel are, in bytes from its start.
#[derive(Clone, Copy)]
pub(crate) struct Places {
    pub(crate) scales: usize,
    pub(crate) zeros: usize,
    pub(crate) panel_bytes: usize,
}

impl Places {
    fn of(quantization: Quantization, padded_k: usize) -> Places {
        let scales_len = padded_k / BLOCK * PANEL_COLUMNS;
        let (codes, zeros_len) = match quantization {
            Quantization::Int8 => (padded_k * PANEL_COLUMNS, 0),
            Quantization::Int4 => (padded_k * PANEL_COLUMNS / 2, scales_len),
        };
        let zeros = codes + scales_len * size_of::<f16>();
        Places { scales: codes, zeros, panel_bytes: (zeros + zeros_len).next_multiple_of(PANEL_ALIGNMENT) }
    }
}

/// Some whole panels of codes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Panels<'a> {
    quantization: Quantization,
    padded_k: usize,
    bytes: &'a [u8],
}

impl std::fmt::Debug for Places {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "scales at {}, zeros at {}, {} bytes", self.scales, self.zeros, self.panel_bytes)
    }
}

impl<'a> Panels<'a> {
    /// Takes `bytes` as panels over `k`; the caller has seen that there are whole ones.
    pub(crate) fn new(quantization: Quantization, k: usize, bytes: &'a [u8]) -> Self {
        Panels { quantization, padded_k: padded_k(k), bytes }
    }

    pub(crate) fn quantization(&self) -> Quantization {
        self.quantization
    }

    pub(crate) fn padded_k(&self) -> usize {
        self.padded_k
    }

    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    pub(crate) fn places(&self) -> Places {
        Places::of(self.quantization, self.padded_k)
    }

    pub(crate) fn count(&self) -> usize {
        self.bytes.len() / self.places().panel_bytes
    }

    /// Panels `first..end`.
    pub(crate) fn range(self, first: usize, end: usize) -> Self {
        let len = self.places().panel_bytes;
        Panels { bytes: &self.bytes[first * len..end * len], ..self }
    }

    /// Bytes of the codes of a block.
    pub(crate) fn code_bytes(&self) -> usize {
        match self.quantization {
            Quantization::Int8 => BLOCK * PANEL_COLUMNS,
            Quantization::Int4 => BLOCK * PANEL_COLUMNS / 2,
        }
    }

    /// Block `block` of panel `panel`.
    pub(crate) fn block(&self, panel: usize, block: usize) -> Block<'a> {
        let places = self.places();
        let panel = &self.bytes[panel * places.panel_bytes..][..places.panel_bytes];
        let code_bytes = self.code_bytes();
        let codes = &panel[..places.scales][block * code_bytes..][..code_bytes];
        let (scales, _) = panel[places.scales..places.zeros].as_chunks::<2>();
        let scales = std::array::from_fn(|c| f16::from_le_bytes(scales[block * PANEL_COLUMNS + c]).to_f32());
        let zeros = match self.quantization {
            Quantization::Int8 => None,
            Quantization::Int4 => Some(&panel[places.zeros..][block * PANEL_COLUMNS..][..PANEL_COLUMNS]),
        };
        Block { codes, scales, zeros }
    }

    /// The first weights of column `column`, rounded to bf16.
    pub(crate) fn dequantize(&self, column: usize, out: &mut [bf16]) {
        let (panel, column) = (column / PANEL_COLUMNS, column % PANEL_COLUMNS);
        for (index, out) in out.chunks_mut(BLOCK).enumerate() {
            let block = self.block(panel, index);
            for (k, out) in out.iter_mut().enumerate() {
                *out = bf16::from_f32(block.scales[column] * block.distance(k, column));
            }
        }
    }
}

/// 32 k of the 16 columns of a panel.
pub(crate) struct Block<'a> {
    pub(crate) codes: &'a [u8],
    pub(crate) scales: [f32; PANEL_COLUMNS],
    /// `None` for `int8`.
    pub(crate) zeros: Option<&'a [u8]>,
}

impl Block<'_> {
    /// The code of the `k`th weight of a column.
    #[inline(always)]
    pub(crate) fn code(&self, k: usize, column: usize) -> u8 {
        match self.zeros {
            None => self.codes[(k / 4 * PANEL_COLUMNS + column) * 4 + k % 4],
            Some(_) => self.codes[(k / 8 * PANEL_COLUMNS + column) * 4 + k % 4] >> (k / 4 % 2 * 4) & 15,
        }
    }

    /// How many steps a weight is from zero.
    fn distance(&self, k: usize, column: usize) -> f32 {
        let code = i32::from(self.code(k, column));
        match self.zeros {
            None => (code - INT8_ZERO) as f32,
            Some(zeros) => (INT4_STEP * code - i32::from(zeros[column])) as f32 / INT4_STEP as f32,
        }
    }
}

/// Adding this to an f32 within 2^22 of zero and taking it away again rounds to the nearest integer, ties to even. It is
/// what compilers vectorize for every CPU.
const ROUNDER: f32 = 12_582_912.0;

/// `x`, which is within 2^22 of zero, rounded to the nearest integer, ties to even.
#[inline(always)]
pub(crate) fn nearest(x: f32) -> i32 {
    (x + ROUNDER).to_bits().wrapping_sub(ROUNDER.to_bits()) as i32
}
