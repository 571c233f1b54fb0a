//! The matrix product in tiles.
//!
//! 2 m n k flops. The n k weights, 2 bytes each, come from memory once for each 1024 rows of a call; with more
//! than 32 rows, each step of 512 k of two panels passes by them from the first-level cache.
//!
//! k is always walked in steps of 32 from the first to the last, with one sum for each element, and a row of a tile
//! does not touch the others: which rows and panels are computed together, and where k is cut (the sums are then kept
//! in `out`, which is fp32 like the tiles), changes nothing.

#![forbid(unsafe_code)]

use half::bf16;

use super::tile_unit::{
    B_TILE, PANELS_OF_ONE_TILE, PANELS_OF_TWO_TILES, TILE_ROWS, TileProduct, TileSession, TileUnit,
};
use crate::packed::{K_TILE, PANEL_COLUMNS};
use crate::submatrix::Submatrix;

/// Rows of one product.
const ROWS: usize = 2 * TILE_ROWS;

/// Where several row blocks share panels, k is cut so that two panels stay in the first-level cache: 32 KiB.
const K_BLOCK: usize = 512;

/// Rows that go by before k goes on: their share of the activations, 1 MiB, stays in the second-level cache.
const ROWS_IN_CACHE: usize = 1024;

/// The most elements that one product writes.
const MAX_OUT: usize = ROWS * PANELS_OF_TWO_TILES * PANEL_COLUMNS;

/// See [`crate::instruction_set::InstructionSet::multiply`].
pub(super) fn multiply<U: TileUnit>(
    unit: U,
    a: &[bf16],
    padded_k: usize,
    panels: &[bf16],
    mut out: Submatrix<'_, f32>,
) {
    let (m, n) = (out.rows(), out.columns());
    assert!(padded_k > 0 && padded_k.is_multiple_of(K_TILE) && a.len() == m * padded_k, "activations");
    assert_eq!(panels.len(), n.div_ceil(PANEL_COLUMNS) * PANEL_COLUMNS * padded_k, "panels");
    if m == 0 {
        return;
    }
    let panels_at_once = if m > TILE_ROWS { PANELS_OF_TWO_TILES } else { PANELS_OF_ONE_TILE };
    let k_block = if m > ROWS { K_BLOCK } else { padded_k };
    let mut session = unit.open();
    for top in (0..m).step_by(ROWS_IN_CACHE) {
        let bottom = m.min(top + ROWS_IN_CACHE);
        for first in (0..padded_k).step_by(k_block) {
            let steps = (padded_k - first).min(k_block) / K_TILE;
            for (index, group) in panels.chunks(panels_at_once * PANEL_COLUMNS * padded_k).enumerate() {
                let column = index * panels_at_once * PANEL_COLUMNS;
                for row in (top..bottom).step_by(ROWS) {
                    let rows = ROWS.min(bottom - row);
                    let block = Block {
                        a: &a[row * padded_k + first..],
                        b: &group[first * PANEL_COLUMNS..],
                        padded_k,
                        steps,
                        accumulate: first > 0,
                    };
                    let columns = group.len() / padded_k;
                    block.multiply(&mut session, out.part(row, rows, column, columns.min(n - column)), columns);
                }
            }
        }
    }
}

/// Some rows, some panels, some of k.
struct Block<'a> {
    a: &'a [bf16],
    b: &'a [bf16],
    padded_k: usize,
    steps: usize,
    accumulate: bool,
}

impl Block<'_> {
    /// Computes all `columns` of the panels and writes those that `out` has.
    fn multiply<S: TileSession>(&self, session: &mut S, mut out: Submatrix<'_, f32>, columns: usize) {
        let Block { a, b, padded_k, steps, accumulate } = *self;
        let product_into = |sums| TileProduct {
            a,
            a_stride: padded_k,
            a_step: K_TILE,
            b,
            b_stride: padded_k / K_TILE * B_TILE,
            steps,
            out: sums,
            accumulate,
        };
        let (rows, width) = (out.rows(), out.columns());
        if width == columns {
            return session.multiply(product_into(out));
        }
        let mut whole = [0.0; MAX_OUT];
        let whole = &mut whole[..rows * columns];
        if accumulate {
            for (row, whole) in whole.chunks_exact_mut(columns).enumerate() {
                whole[..width].copy_from_slice(out.row(row));
            }
        }
        session.multiply(product_into(Submatrix::new(whole, rows, columns)));
        for (row, whole) in whole.chunks_exact(columns).enumerate() {
            out.row(row).copy_from_slice(&whole[..width]);
        }
    }
}
