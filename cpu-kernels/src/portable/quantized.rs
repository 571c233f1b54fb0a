//! The product of codes in plain Rust: one row, one panel and one block at a time.

use crate::packed::PANEL_COLUMNS;
use crate::quantized::rows::Rows;
use crate::quantized::{BLOCK, Block, INT4_STEP, Panels};
use crate::submatrix::Submatrix;

/// See [`crate::instruction_set::InstructionSet::multiply_quantized`].
pub(super) fn multiply(rows: Rows<'_>, panels: Panels<'_>, mut out: Submatrix<'_, f32>) {
    assert!(rows.count() == out.rows() && rows.padded_k == panels.padded_k(), "activations");
    assert_eq!(rows.group, 1, "rows one after the other");
    assert_eq!(panels.count(), out.columns().div_ceil(PANEL_COLUMNS), "panels");
    for panel in 0..panels.count() {
        let first = panel * PANEL_COLUMNS;
        let width = PANEL_COLUMNS.min(out.columns() - first);
        for row in 0..out.rows() {
            out.row(row)[first..][..width].fill(0.0);
        }
        for index in 0..rows.blocks() {
            let block = panels.block(panel, index);
            for row in 0..out.rows() {
                let codes = &rows.codes[row * rows.padded_k + index * BLOCK..][..BLOCK];
                let at = row * rows.blocks() + index;
                let dots = dots(&block, codes, rows.offsets[at]);
                let sums = &mut out.row(row)[first..][..width];
                for ((sum, dot), scale) in sums.iter_mut().zip(dots).zip(block.scales) {
                    *sum = (dot as f32).mul_add(scale * rows.scales[at], *sum);
                }
            }
        }
    }
}

/// The exact sums of a block, for each column.
fn dots(block: &Block<'_>, a: &[i8], offset: i32) -> [i32; PANEL_COLUMNS] {
    let mut sums = [0; PANEL_COLUMNS];
    match block.zeros {
        None => {
            for (quad, a) in block.codes.as_chunks::<{ 4 * PANEL_COLUMNS }>().0.iter().zip(a.as_chunks::<4>().0) {
                for (sum, codes) in sums.iter_mut().zip(quad.as_chunks::<4>().0) {
                    *sum += codes.iter().zip(a).map(|(code, a)| i32::from(*code) * i32::from(*a)).sum::<i32>();
                }
            }
            sums.map(|sum| sum + offset)
        }
        Some(zeros) => {
            for (quads, a) in block.codes.as_chunks::<{ 4 * PANEL_COLUMNS }>().0.iter().zip(a.as_chunks::<8>().0) {
                for (sum, codes) in sums.iter_mut().zip(quads.as_chunks::<4>().0) {
                    for (j, code) in codes.iter().enumerate() {
                        *sum += i32::from(code & 15) * i32::from(a[j]) + i32::from(code >> 4) * i32::from(a[4 + j]);
                    }
                }
            }
            std::array::from_fn(|c| INT4_STEP * sums[c] + i32::from(zeros[c]) * offset)
        }
    }
}
