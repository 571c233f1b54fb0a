//! The matrix product with VDPBF16PS: a pair of the panel is one register, a lane is one output column.
//!
//! 2 m n k flops. The n k weights, 2 bytes each, come from memory once a call; with more than 6 rows, each step
//! of 4096 k of them passes by all rows from the second-level cache.
//!
//! For each element the pairs are added in the order of k to one running sum. Which rows and panels are computed
//! together, and where k is cut (the sums are then kept in `out`, which is fp32 like the registers), changes nothing.

use std::arch::x86_64::*;

use half::bf16;

use super::as_bf16;
use crate::packed::PANEL_COLUMNS;
use crate::submatrix::Submatrix;
use crate::x86_64::avx512::registers::first_lanes;

/// Rows and panels whose sums are held in registers: 24 of 32, beside 4 of the panels and one of the activations.
const ROWS: usize = 6;
const PANELS: usize = 4;

/// Where several row blocks share panels, k is cut so that `PANELS` panels stay in the second-level cache: 512 KiB.
const K_BLOCK: usize = 4096;

/// See [`crate::instruction_set::InstructionSet::multiply`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
pub(super) fn multiply(a: &[bf16], padded_k: usize, panels: &[bf16], mut out: Submatrix<'_, f32>) {
    let (m, n) = (out.rows(), out.columns());
    assert!(padded_k.is_multiple_of(2) && a.len() == m * padded_k, "activations");
    assert_eq!(panels.len(), n.div_ceil(PANEL_COLUMNS) * PANEL_COLUMNS * padded_k, "panels");
    if m == 0 {
        return;
    }
    let blocks = m.div_ceil(ROWS);
    let k_block = if blocks > 1 { K_BLOCK } else { padded_k };
    for (group_index, group) in panels.chunks(PANELS * PANEL_COLUMNS * padded_k).enumerate() {
        let column = group_index * PANELS * PANEL_COLUMNS;
        for first in (0..padded_k).step_by(k_block) {
            let end = padded_k.min(first + k_block);
            for index in 0..blocks {
                let (row, last) = (index * m / blocks, (index + 1) * m / blocks);
                let a = &a[row * padded_k..last * padded_k];
                let block = Block { a, padded_k, panels: group, first, end, row, column };
                match group.len() / (PANEL_COLUMNS * padded_k) {
                    4 => dispatch_rows::<4>(&block, &mut out),
                    3 => dispatch_rows::<3>(&block, &mut out),
                    2 => dispatch_rows::<2>(&block, &mut out),
                    _ => dispatch_rows::<1>(&block, &mut out),
                }
            }
        }
    }
}

/// One step: some rows, some panels, some of k.
struct Block<'a> {
    /// `[rows, padded_k]`
    a: &'a [bf16],
    padded_k: usize,
    panels: &'a [bf16],
    /// The k that are multiplied; both even, `end` at most `padded_k`.
    first: usize,
    end: usize,
    /// Where the result goes.
    row: usize,
    column: usize,
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
fn dispatch_rows<const P: usize>(block: &Block<'_>, out: &mut Submatrix<'_, f32>) {
    match block.a.len() / block.padded_k {
        1 => microkernel::<1, P>(block, out),
        2 => microkernel::<2, P>(block, out),
        3 => microkernel::<3, P>(block, out),
        4 => microkernel::<4, P>(block, out),
        5 => microkernel::<5, P>(block, out),
        _ => microkernel::<ROWS, P>(block, out),
    }
}

/// out `[R, 16 P]` += a `[R, first..end]` . W^T, from zero where `first` is zero.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
fn microkernel<const R: usize, const P: usize>(block: &Block<'_>, out: &mut Submatrix<'_, f32>) {
    let Block { a, padded_k, panels, first, end, row, column } = *block;
    let panel = PANEL_COLUMNS * padded_k;
    assert!(a.len() == R * padded_k && panels.len() == P * panel && end <= padded_k, "one block");
    let width = (P * PANEL_COLUMNS).min(out.columns() - column);

    let mut sums = [[_mm512_setzero_ps(); P]; R];
    if first > 0 {
        for (r, sums) in sums.iter_mut().enumerate() {
            for (sum, saved) in sums.iter_mut().zip(out.row(row + r)[column..][..width].chunks(PANEL_COLUMNS)) {
                // SAFETY: the mask has no lane that `saved` has not.
                *sum = unsafe { _mm512_maskz_loadu_ps(first_lanes(saved.len()), saved.as_ptr()) };
            }
        }
    }
    for k in (first..end).step_by(2) {
        let mut weights = [_mm512_setzero_si512(); P];
        for (p, weights) in weights.iter_mut().enumerate() {
            // SAFETY: k + 2 <= padded_k, so the 32 elements from 16 k on lie in panel p, and `panels` has P of them
            // (asserted above).
            *weights = unsafe { _mm512_loadu_si512(panels.as_ptr().add(p * panel + k * PANEL_COLUMNS).cast()) };
        }
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: k + 2 <= padded_k, and `a` has R rows of that (asserted above).
            let pair = unsafe { a.as_ptr().add(r * padded_k + k).cast::<i32>().read_unaligned() };
            let pair = as_bf16(_mm512_set1_epi32(pair));
            for (sum, weights) in sums.iter_mut().zip(weights) {
                *sum = _mm512_dpbf16_ps(*sum, as_bf16(weights), pair);
            }
        }
    }
    for (r, sums) in sums.into_iter().enumerate() {
        for (sum, out) in sums.into_iter().zip(out.row(row + r)[column..][..width].chunks_mut(PANEL_COLUMNS)) {
            // SAFETY: the mask has no lane that `out` has not.
            unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), first_lanes(out.len()), sum) };
        }
    }
}
