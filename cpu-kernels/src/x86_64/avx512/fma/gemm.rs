//! In what order the blocks are computed, and what is in which cache then.
//!
//! Up to [`ROWS`] rows see each weight once, and memory delivers weights more slowly than that takes. With more rows,
//! k is cut so that the weights of a step stay in the nearest caches while several blocks of rows use them, and the
//! weights after them are fetched meanwhile. (Weights that are widened in advance are twice as many bytes: to move
//! those to the first-level cache takes longer than to widen them again for each block.)

use half::bf16;

use super::blocks::{FEW_ROWS, PANELS, Part, ROWS, accumulate};
use crate::packed::PANEL_COLUMNS;
use crate::tile::Tile;

/// The k of one step, where several blocks of rows share weights: 128 KiB of them.
const DEPTH: usize = 2048;

/// Blocks of rows that stay in the second-level cache while all panels pass by: [`DEPTH`] k of them are 768 KiB.
const BLOCKS: usize = 8;

/// How far ahead of their use weights are fetched that are used once, in elements.
const AHEAD: usize = 1024;

/// See [`crate::instruction_set::InstructionSet::multiply`]; `a` is as [`super::activations::interleave`] makes it.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn multiply(a: &[f32], padded_k: usize, panels: &[bf16], mut out: Tile<'_, f32>) {
    let (m, n) = (out.rows(), out.columns());
    assert!(padded_k.is_multiple_of(2) && a.len() == m * padded_k, "activations");
    assert_eq!(panels.len(), n.div_ceil(PANEL_COLUMNS) * PANEL_COLUMNS * padded_k, "panels");
    let together = if m <= FEW_ROWS { 2 * PANELS } else { PANELS };
    let depth = if m <= ROWS { padded_k } else { DEPTH };
    let blocks = m.div_ceil(ROWS);
    for near in (0..blocks).step_by(BLOCKS) {
        for first in (0..padded_k).step_by(depth) {
            let end = padded_k.min(first + depth);
            for (index, group) in panels.chunks(together * PANEL_COLUMNS * padded_k).enumerate() {
                for block in near..blocks.min(near + BLOCKS) {
                    let row = block * ROWS;
                    let rows = ROWS.min(m - row);
                    let a = &a[row * padded_k..][first * rows..end * rows];
                    // Of the next two panels, the first block of rows fetches one and the second the other.
                    let ahead = match block - near {
                        _ if m <= ROWS => [AHEAD; PANELS],
                        0 => [group.len(), 0],
                        1 => [0, group.len()],
                        _ => [0, 0],
                    };
                    let column = index * together * PANEL_COLUMNS;
                    let part = Part { a, rows, padded_k, panels: group, first, end, ahead, row, column };
                    accumulate(&part, &mut out);
                }
            }
        }
    }
}
