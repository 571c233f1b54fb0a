//! Transpositions: two bf16 are one 32-bit element, so 16 rows of 16 pairs are a 16 x 16 matrix.

use std::arch::x86_64::*;

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
