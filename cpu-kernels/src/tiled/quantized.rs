//! The product of codes in tiles.
//!
//! A tile unit adds up whole tiles of k, but every block of 32 k has a scale of its own: so B tiles are 32 k deep, their sums go
//! through the first-level cache, and vectors make fp32 of them, once for each block, row and panel. Few rows are left to
//! vectors altogether, which give the same bits.

#![forbid(unsafe_code)]

use super::tile_unit::{CODE_TILE, CodeProduct, TILE_ROWS, TileSession, TileUnit};
use crate::packed::PANEL_COLUMNS;
use crate::quantized::rows::Rows;
use crate::quantized::{BLOCK, Panels, Quantization};
use crate::simd::{Simd, Task};
use crate::submatrix::Submatrix;

/// Up to as many rows, loading tiles takes longer than they save.
pub(super) const FEW_ROWS: usize = 8;

/// Blocks between two looks at the output; an even number. Their codes, one panel's, are 8 KiB, and their sums 16 KiB.
const BLOCKS_AT_ONCE: usize = 16;

/// Sums of a block, for 16 rows and 16 columns.
type Sums = [[i32; PANEL_COLUMNS]; TILE_ROWS];

/// See [`crate::instruction_set::InstructionSet::multiply_quantized`].
pub(super) struct TiledProduct<'a, U> {
    pub(super) unit: U,
    pub(super) rows: Rows<'a>,
    pub(super) panels: Panels<'a>,
    pub(super) out: Submatrix<'a, f32>,
}

impl<U: TileUnit> Task for TiledProduct<'_, U> {
    /// Plain Rust, whose operations are the same everywhere; compilers make vectors of it.
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self { unit, rows, panels, mut out } = self;
        assert!(rows.count() == out.rows() && rows.padded_k == panels.padded_k(), "activations");
        assert_eq!(rows.group, 1, "rows one after the other");
        assert_eq!(panels.count(), out.columns().div_ceil(PANEL_COLUMNS), "panels");
        let mut session = unit.open();
        let mut sums = [[[0; PANEL_COLUMNS]; TILE_ROWS]; BLOCKS_AT_ONCE];
        for first in (0..rows.blocks()).step_by(BLOCKS_AT_ONCE) {
            let blocks = BLOCKS_AT_ONCE.min(rows.blocks() - first);
            for panel in 0..panels.count() {
                let part = Part::new(panels, panel, first, blocks);
                for row in (0..rows.count()).step_by(TILE_ROWS) {
                    let some = rows.range(row, rows.count().min(row + TILE_ROWS));
                    let product = CodeProduct {
                        a: &some.codes[first * BLOCK..],
                        a_stride: rows.padded_k,
                        rows: some.count(),
                        b: part.codes.as_flattened(),
                        out: &mut sums[..blocks],
                    };
                    session.multiply_codes(product);
                    part.add(some, &sums[..blocks], &mut out, row, panel * PANEL_COLUMNS);
                }
            }
        }
    }
}

/// Some blocks of a panel.
struct Part {
    first: usize,
    /// B tiles.
    codes: [[u8; CODE_TILE]; BLOCKS_AT_ONCE],
    scales: [[f32; PANEL_COLUMNS]; BLOCKS_AT_ONCE],
    /// What a row's offset is multiplied by.
    zeros: [[i32; PANEL_COLUMNS]; BLOCKS_AT_ONCE],
}

impl Part {
    #[inline(always)]
    fn new(panels: Panels<'_>, panel: usize, first: usize, blocks: usize) -> Part {
        let mut part = Part {
            first,
            codes: [[0; CODE_TILE]; BLOCKS_AT_ONCE],
            scales: [[0.0; PANEL_COLUMNS]; BLOCKS_AT_ONCE],
            zeros: [[1; PANEL_COLUMNS]; BLOCKS_AT_ONCE],
        };
        for index in 0..blocks {
            let block = panels.block(panel, first + index);
            part.scales[index] = block.scales;
            match panels.quantization() {
                Quantization::Int8 => part.codes[index].copy_from_slice(block.codes),
                Quantization::Int4 => {
                    // Sixteen times the codes, as the contract counts them.
                    let (quads, _) = block.codes.as_chunks::<{ 4 * PANEL_COLUMNS }>();
                    for (to, from) in part.codes[index].chunks_exact_mut(8 * PANEL_COLUMNS).zip(quads) {
                        let (low, high) = to.split_at_mut(4 * PANEL_COLUMNS);
                        for ((low, high), from) in low.iter_mut().zip(high).zip(from) {
                            (*low, *high) = (from << 4, from & 0xf0);
                        }
                    }
                }
            }
            if let Some(zeros) = block.zeros {
                part.zeros[index].iter_mut().zip(zeros).for_each(|(to, from)| *to = i32::from(*from));
            }
        }
        part
    }

    /// Adds the blocks to some rows of `out`, from zero where they are the first.
    #[inline(always)]
    fn add(&self, rows: Rows<'_>, sums: &[Sums], out: &mut Submatrix<'_, f32>, row: usize, column: usize) {
        let width = PANEL_COLUMNS.min(out.columns() - column);
        for r in 0..rows.count() {
            let out = &mut out.row(row + r)[column..][..width];
            let mut total = [0.0; PANEL_COLUMNS];
            if self.first > 0 {
                total[..width].copy_from_slice(out);
            }
            for (index, sums) in sums.iter().enumerate() {
                let at = r * rows.blocks() + self.first + index;
                let (offset, scale) = (rows.offsets[at], rows.scales[at]);
                for c in 0..PANEL_COLUMNS {
                    let sum = sums[r][c] + self.zeros[index][c] * offset;
                    total[c] = (sum as f32).mul_add(self.scales[index][c] * scale, total[c]);
                }
            }
            out.copy_from_slice(&total[..width]);
        }
    }
}
