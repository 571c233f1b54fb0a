//! What is computed without a look at memory in between: sums of some rows and panels, in registers.

use std::arch::x86_64::*;

use half::bf16;

use super::super::first_lanes;
use crate::packed::PANEL_COLUMNS;
use crate::tile::Tile;

/// Rows of a block. With [`PANELS`] their sums are 24 of 32 registers; two times two hold weights and one an
/// activation, which serves both panels, so that there is about one load for two multiply-adds.
pub(super) const ROWS: usize = 12;
pub(super) const PANELS: usize = 2;

/// So few rows leave registers for twice the panels, whose sums hide the latency of a multiply-add.
pub(super) const FEW_ROWS: usize = 6;

/// One step: a block of rows, some panels, some of k.
pub(super) struct Part<'a> {
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
    /// While a weight of an even or an odd panel is used, that which is so many elements further on is fetched.
    pub(super) ahead: [usize; PANELS],
    /// Where the result goes.
    pub(super) row: usize,
    pub(super) column: usize,
}

/// out `[rows, 16 panels]` += a . W^T, from zero where `first` is zero.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn accumulate(part: &Part<'_>, out: &mut Tile<'_, f32>) {
    match (part.panels.len() / (PANEL_COLUMNS * part.padded_k), part.rows) {
        (1, _) => by_rows::<1>(part, out),
        (2, _) => by_rows::<PANELS>(part, out),
        (3, _) => few_rows::<3>(part, out),
        _ => few_rows::<{ 2 * PANELS }>(part, out),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn few_rows<const P: usize>(part: &Part<'_>, out: &mut Tile<'_, f32>) {
    match part.rows {
        1 => block::<1, P>(part, out),
        2 => block::<2, P>(part, out),
        3 => block::<3, P>(part, out),
        4 => block::<4, P>(part, out),
        5 => block::<5, P>(part, out),
        _ => block::<FEW_ROWS, P>(part, out),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn by_rows<const P: usize>(part: &Part<'_>, out: &mut Tile<'_, f32>) {
    match part.rows {
        ..=FEW_ROWS => few_rows::<P>(part, out),
        7 => block::<7, P>(part, out),
        8 => block::<8, P>(part, out),
        9 => block::<9, P>(part, out),
        10 => block::<10, P>(part, out),
        11 => block::<11, P>(part, out),
        _ => block::<ROWS, P>(part, out),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
fn block<const R: usize, const P: usize>(part: &Part<'_>, out: &mut Tile<'_, f32>) {
    let Part { a, padded_k, panels, first, end, ahead, row, column, .. } = *part;
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
                _mm_prefetch::<_MM_HINT_T1>(at.wrapping_add(ahead[p % PANELS]).cast());
                _mm512_loadu_si512(at.cast())
            };
            [weights[0][p], weights[1][p]] = halves(pair);
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

/// The even and the odd k of pairs, in f32.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn halves(pairs: __m512i) -> [__m512; 2] {
    let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
    [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)), _mm512_castsi512_ps(_mm512_and_si512(pairs, upper))]
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
