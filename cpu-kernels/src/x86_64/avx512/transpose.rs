//! Transpositions: two bf16 are one 32-bit element, so 16 rows of 16 pairs are a 16 x 16 matrix.

use std::arch::x86_64::*;

use half::bf16;

use super::registers::{narrow, widen_halves};
use crate::simd::{NARROWED_COLUMNS, NARROWED_ROWS, WIDENED_COLUMNS, WIDENED_ROWS};

/// See [`crate::simd::Simd::widen_transposed`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn widen_transposed(block: &[[bf16; WIDENED_COLUMNS]; WIDENED_ROWS], out: &mut [f32], stride: usize) {
    assert!(stride >= 16 && out.len() >= (WIDENED_COLUMNS - 1) * stride + 16, "out must hold the block");
    let mut rows = [_mm512_setzero_si512(); 16];
    for (row, elements) in rows.iter_mut().zip(block) {
        // SAFETY: a row of the block is 64 bytes.
        *row = unsafe { _mm512_loadu_si512(elements.as_ptr().cast()) };
    }
    for (i, pairs) in transpose_pairs(rows).into_iter().enumerate() {
        let [even, odd] = widen_halves(pairs);
        // SAFETY: i is below 16, so by the assertion above 16 elements follow both places.
        unsafe {
            let at = out.as_mut_ptr().add(2 * i * stride);
            _mm512_storeu_ps(at, even);
            _mm512_storeu_ps(at.add(stride), odd);
        }
    }
}

/// See [`crate::simd::Simd::narrow_transposed`].
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn narrow_transposed(weights: &[f32], stride: usize, out: &mut [bf16; NARROWED_ROWS * NARROWED_COLUMNS]) {
    assert!(stride >= NARROWED_COLUMNS && weights.len() >= (NARROWED_ROWS - 1) * stride + NARROWED_COLUMNS, "weights");
    let mut pairs = [_mm512_setzero_si512(); 16];
    for (i, pair) in pairs.iter_mut().enumerate() {
        let rounded = |row: usize| {
            // SAFETY: row is below 32, so by the assertion above 16 elements follow.
            narrow(unsafe { _mm512_loadu_ps(weights.as_ptr().add(row * stride)) })
        };
        *pair = _mm512_or_si512(rounded(2 * i), _mm512_slli_epi32::<16>(rounded(2 * i + 1)));
    }
    for (column, row) in transpose_pairs(pairs).into_iter().zip(out.chunks_exact_mut(NARROWED_ROWS)) {
        // SAFETY: a row is 64 bytes.
        unsafe { _mm512_storeu_si512(row.as_mut_ptr().cast(), column) };
    }
}

/// Three rounds: within pairs of rows, within fours, then whole 128-bit lanes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn transpose_pairs(rows: [__m512i; 16]) -> [__m512i; 16] {
    let mut fours = rows;
    for q in (0..16).step_by(4) {
        let low = [_mm512_unpacklo_epi32(rows[q], rows[q + 1]), _mm512_unpacklo_epi32(rows[q + 2], rows[q + 3])];
        let high = [_mm512_unpackhi_epi32(rows[q], rows[q + 1]), _mm512_unpackhi_epi32(rows[q + 2], rows[q + 3])];
        fours[q] = _mm512_unpacklo_epi64(low[0], low[1]);
        fours[q + 1] = _mm512_unpackhi_epi64(low[0], low[1]);
        fours[q + 2] = _mm512_unpacklo_epi64(high[0], high[1]);
        fours[q + 3] = _mm512_unpackhi_epi64(high[0], high[1]);
    }
    // Lane L of `fours[4 q + j]` is column 4 L + j of rows 4 q to 4 q + 3.
    let mut columns = rows;
    for j in 0..4 {
        let even = [
            _mm512_shuffle_i32x4::<0x88>(fours[j], fours[4 + j]),
            _mm512_shuffle_i32x4::<0x88>(fours[8 + j], fours[12 + j]),
        ];
        let odd = [
            _mm512_shuffle_i32x4::<0xdd>(fours[j], fours[4 + j]),
            _mm512_shuffle_i32x4::<0xdd>(fours[8 + j], fours[12 + j]),
        ];
        columns[j] = _mm512_shuffle_i32x4::<0x88>(even[0], even[1]);
        columns[4 + j] = _mm512_shuffle_i32x4::<0x88>(odd[0], odd[1]);
        columns[8 + j] = _mm512_shuffle_i32x4::<0xdd>(even[0], even[1]);
        columns[12 + j] = _mm512_shuffle_i32x4::<0xdd>(odd[0], odd[1]);
    }
    columns
}
