//! What the rest of AVX-512 shares: masks for short slices, and bf16 in registers.

use std::arch::x86_64::*;

/// Ones for the first `len` lanes of 16.
#[inline(always)]
pub(super) fn first_lanes(len: usize) -> u16 {
    if len >= 16 { u16::MAX } else { (1 << len) - 1 }
}

/// Rounds 16 lanes to bf16, ties to even; a NaN keeps its upper bits and becomes quiet. The results are in the lower
/// halves of the lanes, below zeros.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
pub(super) fn narrow(v: __m512) -> __m512i {
    let bits = _mm512_castps_si512(v);
    let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
    let rounded = _mm512_add_epi32(_mm512_add_epi32(bits, _mm512_set1_epi32(0x7fff)), odd);
    let quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x40_0000));
    let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
    _mm512_srli_epi32::<16>(_mm512_mask_mov_epi32(rounded, nan, quiet))
}

/// The even and the odd elements of 32 bf16, in f32.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn widen_halves(pairs: __m512i) -> [__m512; 2] {
    let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
    [_mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)), _mm512_castsi512_ps(_mm512_and_si512(pairs, upper))]
}
