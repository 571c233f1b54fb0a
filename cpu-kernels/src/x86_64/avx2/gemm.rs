//! The matrix product with FMA: a pair of the panel is two registers of 8 columns, which a shift and a mask turn
//! into f32 for the even and for the odd k.
//!
//! 2 m n k flops. The n k weights, 2 bytes each, come from memory once a call; with more than 4 rows, each step
//! of 4096 k of them passes by all rows from the second-level cache.
//!
//! For each element even then odd k of every pair are added, in the order of k, to one running sum.

use std::arch::x86_64::*;

use half::bf16;

use crate::packed::PANEL_COLUMNS;
use crate::submatrix::Submatrix;

use super::sums::{self, HALVES};

/// Rows whose sums are held in registers: 8 of 16, beside 4 of the panel and one of the activations.
const ROWS: usize = 4;

/// Where several row blocks share a panel, k is cut so that it stays in the second-level cache: 128 KiB.
const K_BLOCK: usize = 4096;

/// See [`crate::instruction_set::InstructionSet::multiply`].
#[target_feature(enable = "avx2,fma")]
pub(super) fn multiply(a: &[f32], padded_k: usize, panels: &[bf16], mut out: Submatrix<'_, f32>) {
    let (m, n) = (out.rows(), out.columns());
    assert!(padded_k.is_multiple_of(2) && a.len() == m * padded_k, "activations");
    assert_eq!(panels.len(), n.div_ceil(PANEL_COLUMNS) * PANEL_COLUMNS * padded_k, "panels");
    if m == 0 {
        return;
    }
    let blocks = m.div_ceil(ROWS);
    let k_block = if blocks > 1 { K_BLOCK } else { padded_k };
    for (panel_index, panel) in panels.chunks_exact(PANEL_COLUMNS * padded_k).enumerate() {
        let column = panel_index * PANEL_COLUMNS;
        for first in (0..padded_k).step_by(k_block) {
            let end = padded_k.min(first + k_block);
            for index in 0..blocks {
                let (row, last) = (index * m / blocks, (index + 1) * m / blocks);
                let a = &a[row * padded_k..last * padded_k];
                let block = Block { a, padded_k, panel, first, end, row, column };
                match last - row {
                    1 => microkernel::<1>(&block, &mut out),
                    2 => microkernel::<2>(&block, &mut out),
                    3 => microkernel::<3>(&block, &mut out),
                    _ => microkernel::<ROWS>(&block, &mut out),
                }
            }
        }
    }
}

/// One step: some rows, one panel, some of k.
struct Block<'a> {
    /// `[rows, padded_k]`
    a: &'a [f32],
    padded_k: usize,
    panel: &'a [bf16],
    /// The k that are multiplied; both even, `end` at most `padded_k`.
    first: usize,
    end: usize,
    /// Where the result goes.
    row: usize,
    column: usize,
}

/// out `[R, 16]` += a `[R, first..end]` . W^T, from zero where `first` is zero.
#[target_feature(enable = "avx2,fma")]
fn microkernel<const R: usize>(block: &Block<'_>, out: &mut Submatrix<'_, f32>) {
    let Block { a, padded_k, panel, first, end, row, column } = *block;
    assert!(a.len() == R * padded_k && panel.len() == PANEL_COLUMNS * padded_k && end <= padded_k, "one block");
    let mut sums = if first > 0 { sums::load(out, row, column) } else { [[_mm256_setzero_ps(); HALVES]; R] };
    let upper = _mm256_set1_epi32(0xffff_0000_u32 as i32);
    for k in (first..end).step_by(2) {
        let mut even = [_mm256_setzero_ps(); HALVES];
        let mut odd = [_mm256_setzero_ps(); HALVES];
        for h in 0..HALVES {
            // SAFETY: k + 2 <= padded_k, so the 32 elements from 16 k on lie in the panel (asserted above); a half
            // is 16 of them.
            let pairs = unsafe { _mm256_loadu_si256(panel.as_ptr().add(k * PANEL_COLUMNS + 16 * h).cast()) };
            even[h] = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs));
            odd[h] = _mm256_castsi256_ps(_mm256_and_si256(pairs, upper));
        }
        for (r, sums) in sums.iter_mut().enumerate() {
            // SAFETY: k + 2 <= padded_k, and `a` has R rows of that (asserted above).
            let pair = unsafe { a.as_ptr().add(r * padded_k + k).cast::<[f32; 2]>().read() };
            let (first, second) = (_mm256_set1_ps(pair[0]), _mm256_set1_ps(pair[1]));
            for (h, sum) in sums.iter_mut().enumerate() {
                *sum = _mm256_fmadd_ps(odd[h], second, _mm256_fmadd_ps(even[h], first, *sum));
            }
        }
    }
    sums::store(sums, out, row, column);
}
