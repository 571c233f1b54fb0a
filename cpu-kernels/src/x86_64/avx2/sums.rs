//! The sums of some rows for the 16 columns of a panel, between memory and registers.

use std::arch::x86_64::*;

use crate::packed::PANEL_COLUMNS;
use crate::submatrix::Submatrix;

/// Vectors across a panel.
pub(super) const HALVES: usize = 2;

/// Those of R rows from `row` and the panel's columns from `column`, as many as `out` has.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn load<const R: usize>(out: &mut Submatrix<'_, f32>, row: usize, column: usize) -> [[__m256; HALVES]; R] {
    let width = PANEL_COLUMNS.min(out.columns() - column);
    let mut sums = [[_mm256_setzero_ps(); HALVES]; R];
    for (r, sums) in sums.iter_mut().enumerate() {
        let mut saved = [0.0_f32; PANEL_COLUMNS];
        saved[..width].copy_from_slice(&out.row(row + r)[column..][..width]);
        for (h, sum) in sums.iter_mut().enumerate() {
            // SAFETY: `saved` has 16 elements, 8 for each half.
            *sum = unsafe { _mm256_loadu_ps(saved.as_ptr().add(8 * h)) };
        }
    }
    sums
}

/// The reverse.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn store<const R: usize>(
    sums: [[__m256; HALVES]; R],
    out: &mut Submatrix<'_, f32>,
    row: usize,
    column: usize,
) {
    let width = PANEL_COLUMNS.min(out.columns() - column);
    for (r, sums) in sums.into_iter().enumerate() {
        let mut saved = [0.0_f32; PANEL_COLUMNS];
        for (h, sum) in sums.into_iter().enumerate() {
            // SAFETY: `saved` has 16 elements, 8 for each half.
            unsafe { _mm256_storeu_ps(saved.as_mut_ptr().add(8 * h), sum) };
        }
        out.row(row + r)[column..][..width].copy_from_slice(&saved[..width]);
    }
}
