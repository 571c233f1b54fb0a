//! The matrix product in plain Rust: one panel at a time, a few rows against it.

use half::bf16;

use crate::packed::PANEL_COLUMNS;
use crate::simd::widen;
use crate::submatrix::Submatrix;

/// See [`crate::instruction_set::InstructionSet::multiply`].
pub(super) fn multiply(a: &[f32], padded_k: usize, panels: &[bf16], mut out: Submatrix<'_, f32>) {
    assert_eq!(a.len(), out.rows() * padded_k, "activations");
    assert_eq!(panels.len(), out.columns().div_ceil(PANEL_COLUMNS) * PANEL_COLUMNS * padded_k, "panels");
    for (index, panel) in panels.chunks_exact(PANEL_COLUMNS * padded_k).enumerate() {
        let first = index * PANEL_COLUMNS;
        let width = PANEL_COLUMNS.min(out.columns() - first);
        for (m, row) in a.chunks_exact(padded_k).enumerate() {
            let sums = multiply_row(row, panel);
            out.row(m)[first..][..width].copy_from_slice(&sums[..width]);
        }
    }
}

/// One row times one panel: for each column, even then odd k of every pair are added to one running sum.
fn multiply_row(row: &[f32], panel: &[bf16]) -> [f32; PANEL_COLUMNS] {
    let mut sums = [0.0_f32; PANEL_COLUMNS];
    for (a, pair) in row.chunks_exact(2).zip(panel.chunks_exact(2 * PANEL_COLUMNS)) {
        for (sum, w) in sums.iter_mut().zip(pair.chunks_exact(2)) {
            *sum += a[0] * widen(w[0]);
            *sum += a[1] * widen(w[1]);
        }
    }
    sums
}
