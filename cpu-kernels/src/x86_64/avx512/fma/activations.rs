//! The left operand: in f32, and in the order in which a block of rows is used.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use half::bf16;
use rayon::prelude::*;

use super::microkernels::ROWS;
use crate::x86_64::avx512::registers::{first_lanes, widen_halves};
use crate::x86_64::avx512::transpose::transpose_pairs;

/// Elements below which waking another thread takes longer than the work.
const INLINE_ELEMENTS: usize = 1 << 17;

/// The k that are transposed at a time: a register of each row.
const STEP: usize = 32;

/// Rows `[m, k]` as blocks `[padded_k, rows]` of [`ROWS`] rows (the last of what is left), one after another.
///
/// # Panics
/// If `padded_k` is no multiple of 32 or less than `k`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn interleave(a: &[bf16], k: usize, padded_k: usize) -> Vec<f32> {
    let len = a.len() / k * padded_k;
    let mut blocks = Vec::with_capacity(len);
    let spare = &mut blocks.spare_capacity_mut()[..len];
    let run = |(rows, block): (&[bf16], &mut [MaybeUninit<f32>])| interleave_block(rows, k, padded_k, block);
    if len > INLINE_ELEMENTS {
        a.par_chunks(ROWS * k).zip(spare.par_chunks_mut(ROWS * padded_k)).for_each(run);
    } else {
        a.chunks(ROWS * k).zip(spare.chunks_mut(ROWS * padded_k)).for_each(run);
    }
    // SAFETY: `len` elements were reserved, and `interleave_block` has written all of every block.
    unsafe { blocks.set_len(len) };
    blocks
}

/// Writes all of `block` `[padded_k, rows]`.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn interleave_block(rows: &[bf16], k: usize, padded_k: usize, block: &mut [MaybeUninit<f32>]) {
    let count = rows.len() / k;
    assert!(count <= ROWS && padded_k.is_multiple_of(STEP) && padded_k >= k, "rows of a block");
    assert_eq!(block.len(), count * padded_k, "block");
    let lanes = first_lanes(count);
    for (first, slots) in (0..padded_k).step_by(STEP).zip(block.chunks_exact_mut(STEP * count)) {
        let mut pairs = [_mm512_setzero_si512(); 16];
        for (pairs, row) in pairs.iter_mut().zip(rows.chunks_exact(k)) {
            let row = row.get(first..).unwrap_or_default();
            let mask = if row.len() < STEP { (1 << row.len()) - 1 } else { u32::MAX };
            // SAFETY: the mask has no lane that the row has not.
            *pairs = unsafe { _mm512_maskz_loadu_epi16(mask, row.as_ptr().cast()) };
        }
        let columns = transpose_pairs(pairs).into_iter().flat_map(|pair| widen_halves(pair));
        for (column, slot) in columns.zip(slots.chunks_exact_mut(count)) {
            // SAFETY: the mask has as many lanes as the slot.
            unsafe { _mm512_mask_storeu_ps(slot.as_mut_ptr().cast(), lanes, column) };
        }
    }
}
