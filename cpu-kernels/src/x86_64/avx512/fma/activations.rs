//! The left operand: in f32, and in the order in which a block of rows is used.

#![forbid(unsafe_code)]

use half::bf16;
use rayon::prelude::*;

use super::blocks::ROWS;
use crate::simd::widen;

/// Elements below which waking another thread takes longer than the work.
const INLINE_ELEMENTS: usize = 1 << 16;

/// Rows `[m, k]` as blocks `[padded_k, rows]` of [`ROWS`] rows (the last of what is left), one after another.
pub(super) fn interleave(a: &[bf16], k: usize, padded_k: usize) -> Vec<f32> {
    let mut blocks = vec![0.0; a.len() / k * padded_k];
    let run = |(rows, block): (&[bf16], &mut [f32])| interleave_block(rows, k, block);
    if blocks.len() > INLINE_ELEMENTS {
        a.par_chunks(ROWS * k).zip(blocks.par_chunks_mut(ROWS * padded_k)).for_each(run);
    } else {
        a.chunks(ROWS * k).zip(blocks.chunks_mut(ROWS * padded_k)).for_each(run);
    }
    blocks
}

fn interleave_block(rows: &[bf16], k: usize, block: &mut [f32]) {
    let count = rows.len() / k;
    if count == ROWS {
        let rows: [&[bf16]; ROWS] = std::array::from_fn(|r| &rows[r * k..][..k]);
        for (i, slot) in block.as_chunks_mut::<ROWS>().0.iter_mut().enumerate().take(k) {
            *slot = rows.map(|row| widen(row[i]));
        }
    } else {
        for (i, slot) in block.chunks_exact_mut(count).enumerate().take(k) {
            for (r, slot) in slot.iter_mut().enumerate() {
                *slot = widen(rows[r * k + i]);
            }
        }
    }
}
