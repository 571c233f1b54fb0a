//! The innermost loops: sums of R rows and P panels stay in registers while k goes by.
//!
//! For each two k, P loads of 32 weights, 2 R loads of one activation, and 2 R P multiply-adds of 16 lanes.

use std::arch::x86_64::*;

use half::bf16;

use crate::packed::PANEL_COLUMNS;
use crate::submatrix::Submatrix;
use crate::x86_64::avx512::registers::{first_lanes, widen_halves};

/// Rows of a block. With [`PANELS`] their sums are 24 of 32 registers; two times two hold weights and one an
/// activation, which serves both panels, so that there is about one load for two multiply-adds.
pub(super) const ROWS: usize = 12;
pub(super) const PANELS: usize = 2;

/// So few rows leave registers for twice the panels, whose sums hide the latency of a multiply-add.
pub(super) const FEW_ROWS: usize = 6;

/// One step: a block of rows, some panels, some of k.
pub(super) struct Block<'a> {
    /// `[end - first, rows]`
    pub(super) a: &'a [f32],
    /// At most [`ROWS`].
    pub(super) rows: usize,
    pub(super) padded_k: usize,
    /// At most [`PANELS`], or twice as many if the rows are at most [`FEW_ROWS`].
    pub(super) panels: &'a [bf16],
    /// The k that are multiplied; both even, `end` at most `padded_k`.
    pub(super) first: usize,
    pub(super) end: usize,
    /// How many elements ahead of their use the weights of even and of odd panels are fetched; 0 fetches nothing new.
    pub(super) prefetch: [usize; PANELS],
    /// Where the result goes.
    pub(super) row: usize,
    pub(super) column: usize,
}

/// out `[rows, 16 panels]` += a . W^T, from zero where `first` is zero.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn accumulate(block: &Block<'_>, out: &mut Submatrix<'_, f32>) {
    match (block.panels.len() / (PANEL_COLUMNS * block.padded_k), block.rows) {
        (1, _) => dispatch_rows::<1>(block, out),
        (2, _) => dispatch_rows::<PANELS>(block, out),
        (3, _) => dispatch_few_rows::<3>(block, out),
        _ => dispatch_few_rows::<{ 2 * PANELS }>(block, out),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn dispatch_few_rows<const P: usize>(block: &Block<'_>, out: &mut Submatrix<'_, f32>) {
    match block.rows {
        1 => microkernel::<1, P>(block, out),
        2 => microkernel::<2, P>(block, out),
        3 => microkernel::<3, P>(block, out),
        4 => microkernel::<4, P>(block, out),
        5 => microkernel::<5, P>(block, out),
        _ => microkernel::<FEW_ROWS, P>(block, out),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn dispatch_rows<const P: usize>(block: &Block<'_>, out: &mut Submatrix<'_, f32>) {
    match block.rows {
        ..=FEW_ROWS => dispatch_few_rows::<P>(block, out),
        7 => microkernel::<7, P>(block, out),
        8 => microkernel::<8, P>(block, out),
        9 => microkernel::<9, P>(block, out),
        10 => microkernel::<10, P>(block, out),
        11 => microkernel::<11, P>(block, out),
        _ => microkernel::<ROWS, P>(block, out),
    }
}

/// [`accumulate`] for R rows and P panels.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn microkernel<const R: usize, const P: usize>(block: &Block<'_>, out: &mut Submatrix<'_, f32>) {
    let Block { a, padded_k, panels, first, end, prefetch, row, column, .. } = *block;
    let panel = PANEL_COLUMNS * padded_k;
    assert!(first <= end && end <= padded_k && a.len() == R * (end - first), "activations of one block");
    assert_eq!(panels.len(), P * panel, "panels of one block");
    let mut sums = [[_mm512_setzero_ps(); P]; R];
    if first > 0 {
        for (r, sums) in sums.iter_mut().enumerate() {
            *sums = load(&out.row(row + r)[column..]);
        }
    }
    for (pair, a) in a.as_chunks::<R>().0.as_chunks::<2>().0.iter().enumerate() {
        let mut weights = [[_mm512_setzero_ps(); P]; 2];
        for p in 0..P {
            // SAFETY: there are (end - first) / 2 pairs and end <= padded_k, so the 32 elements from here on lie in
            // panel p of P (asserted above).
            let pair = unsafe {
                let at = panels.as_ptr().add(p * panel + (first + 2 * pair) * PANEL_COLUMNS);
                _mm_prefetch::<_MM_HINT_T1>(at.wrapping_add(prefetch[p % PANELS]).cast());
                _mm512_loadu_si512(at.cast())
            };
            [weights[0][p], weights[1][p]] = widen_halves(pair);
        }
        for (weights, a) in weights.into_iter().zip(a) {
            for (sums, a) in sums.iter_mut().zip(a) {
                let a = _mm512_set1_ps(*a);
                for (sum, weights) in sums.iter_mut().zip(weights) {
                    *sum = _mm512_fmadd_ps(a, weights, *sum);
                }
            }
        }
    }
    for (r, sums) in sums.into_iter().enumerate() {
        store(sums, &mut out.row(row + r)[column..]);
    }
}

/// The first `16 P` elements of a row, zeros where it ends before.
#[inline(always)]
fn load<const P: usize>(row: &[f32]) -> [__m512; P] {
    std::array::from_fn(|p| {
        let row = row.get(p * PANEL_COLUMNS..).unwrap_or_default();
        // SAFETY: the only caller is compiled with AVX-512 F, and the mask has no lane that `row` has not.
        unsafe { _mm512_maskz_loadu_ps(first_lanes(row.len()), row.as_ptr()) }
    })
}

/// Writes to the first `16 P` elements of a row, or to all if there are fewer.
#[inline(always)]
fn store<const P: usize>(sums: [__m512; P], row: &mut [f32]) {
    for (p, sum) in sums.into_iter().enumerate() {
        let row = row.get_mut(p * PANEL_COLUMNS..).unwrap_or_default();
        // SAFETY: the only caller is compiled with AVX-512 F, and the mask has no lane that `row` has not.
        unsafe { _mm512_mask_storeu_ps(row.as_mut_ptr(), first_lanes(row.len()), sum) };
    }
}
