//! In what order the blocks are computed, and what is in which cache then.
//!
//! 2 m n k flops. The n k weights, 2 bytes each, come from memory once for each 96 rows.
//!
//! Up to [`ROWS`] rows see each weight once, and memory delivers weights more slowly than that takes. With more rows,
//! k is cut so that the weights of a step stay in the nearest caches while several blocks of rows use them, and the
//! weights after them are fetched meanwhile. (Weights that are widened in advance are twice as many bytes: to move
//! those to the first-level cache takes longer than to widen them again for each block.)

use half::bf16;

use super::microkernels::{Block, FEW_ROWS, PANELS, ROWS, accumulate};
use crate::packed::PANEL_COLUMNS;
use crate::submatrix::Submatrix;

/// The k of one step, where several blocks of rows share weights: 128 KiB of them.
const K_BLOCK: usize = 2048;

/// Blocks of rows that stay in the second-level cache while all panels pass by: [`K_BLOCK`] k of them are 768 KiB.
const CACHED_BLOCKS: usize = 8;

/// How many elements ahead of their use weights are fetched, where each is used once.
const PREFETCH: usize = 1024;

/// See [`crate::instruction_set::InstructionSet::multiply`]; `a` is as [`super::activations::interleave`] makes it.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn multiply(a: &[f32], padded_k: usize, panels: &[bf16], mut out: Submatrix<'_, f32>) {
    let (m, n) = (out.rows(), out.columns());
    assert!(padded_k.is_multiple_of(2) && a.len() == m * padded_k, "activations");
    assert_eq!(panels.len(), n.div_ceil(PANEL_COLUMNS) * PANEL_COLUMNS * padded_k, "panels");
    let panels_at_once = if m <= FEW_ROWS { 2 * PANELS } else { PANELS };
    let k_block = if m <= ROWS { padded_k } else { K_BLOCK };
    let blocks = m.div_ceil(ROWS);
    for cached in (0..blocks).step_by(CACHED_BLOCKS) {
        for first in (0..padded_k).step_by(k_block) {
            let end = padded_k.min(first + k_block);
            for (group_index, group) in panels.chunks(panels_at_once * PANEL_COLUMNS * padded_k).enumerate() {
                for index in cached..blocks.min(cached + CACHED_BLOCKS) {
                    let row = index * ROWS;
                    let rows = ROWS.min(m - row);
                    let a = &a[row * padded_k..][first * rows..end * rows];
                    // Of the next two panels, the first block of rows fetches one and the second the other.
                    let prefetch = match index - cached {
                        _ if m <= ROWS => [PREFETCH; PANELS],
                        0 => [group.len(), 0],
                        1 => [0, group.len()],
                        _ => [0, 0],
                    };
                    let column = group_index * panels_at_once * PANEL_COLUMNS;
                    let block = Block { a, rows, padded_k, panels: group, first, end, prefetch, row, column };
                    accumulate(&block, &mut out);
                }
            }
        }
    }
}
