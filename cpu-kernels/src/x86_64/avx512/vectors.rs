//! The vectors of AVX-512: 16 lanes; bf16 is widened to f32 with a shift.

use std::arch::x86_64::*;

use half::bf16;

use super::registers::{first_lanes, narrow, widen_halves};
use super::vnni;
use crate::instruction_set::InstructionSet;
use crate::quantized::Panels;
use crate::quantized::rows::Rows;
use crate::simd::Simd;
use crate::submatrix::Submatrix;
use crate::x86_64::avx2::{self, Avx2};
use crate::x86_64::code_multiply_adds;

/// Proof that this CPU and its operating system have AVX-512 F, BW, VL and DQ, and what [`Avx2`] proves.
#[derive(Clone, Copy)]
pub(crate) struct Avx512 {
    narrow: Avx2,
    /// Whether they have AVX-512 VNNI as well.
    vnni: bool,
}

impl Avx512 {
    /// `None` where an instruction is missing.
    pub(crate) fn new() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq");
        let vnni = is_x86_feature_detected!("avx512vnni");
        Avx2::new().filter(|_| found).map(|narrow| Avx512 { narrow, vnni })
    }

    /// The same without AVX-512 VNNI.
    #[cfg(test)]
    pub(crate) fn without_vnni(self) -> Self {
        Avx512 { vnni: false, ..self }
    }

    /// See [`InstructionSet::code_rows`].
    pub(super) fn rows_at_once(self, rows: usize) -> usize {
        if self.vnni { vnni::ROWS } else { self.narrow.code_rows(rows) }
    }

    /// See [`InstructionSet::multiply_quantized`]; AVX2 computes it where VPDPBUSD is missing.
    pub(super) fn multiply_codes(self, rows: Rows<'_>, panels: Panels<'_>, out: Submatrix<'_, f32>) {
        if self.vnni {
            // SAFETY: `self` proves the instructions that `vnni::multiply` is compiled with.
            unsafe { vnni::multiply(rows, panels, out) }
        } else {
            self.narrow.multiply_quantized(rows, panels, out);
        }
    }

    /// See [`InstructionSet::code_instructions`].
    pub(super) fn code_instructions(self) -> &'static str {
        if self.vnni { "AVX-512 VNNI" } else { self.narrow.code_instructions() }
    }

    /// See [`InstructionSet::code_multiply_adds`].
    pub(super) fn code_multiply_adds(self, rounds: usize) -> u64 {
        if self.vnni {
            // SAFETY: `self` proves the instructions that it is compiled with.
            unsafe { code_multiply_adds::avx512_vnni(rounds) }
        } else {
            self.narrow.code_multiply_adds(rounds)
        }
    }
}

/// Runs an expression of intrinsics that touch registers only.
macro_rules! on_registers {
    ($work:expr) => {
        // SAFETY: an `Avx512` exists (all callers are its methods), so the instructions do; no memory is touched.
        unsafe { $work }
    };
}

impl Simd for Avx512 {
    type Vector = __m512;
    const LANES: usize = 16;

    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        on_registers!(_mm512_set1_ps(x))
    }

    #[inline(always)]
    fn load(self, x: &[f32]) -> __m512 {
        // SAFETY: `self` proves the instructions; only lanes that the slice has are read.
        unsafe {
            if x.len() >= 16 {
                _mm512_loadu_ps(x.as_ptr())
            } else {
                _mm512_maskz_loadu_ps(first_lanes(x.len()), x.as_ptr())
            }
        }
    }

    #[inline(always)]
    fn load_bf16(self, x: &[bf16]) -> __m512 {
        // SAFETY: `self` proves the instructions; only lanes that the slice has are read.
        unsafe {
            let half = if x.len() >= 16 {
                _mm256_loadu_si256(x.as_ptr().cast())
            } else {
                _mm256_maskz_loadu_epi16(first_lanes(x.len()), x.as_ptr().cast())
            };
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(half)))
        }
    }

    #[inline(always)]
    fn load_pairs(self, x: &[bf16]) -> [__m512; 2] {
        let x = &x[..32];
        // SAFETY: `self` proves the instructions; 32 elements are read.
        unsafe { widen_halves(_mm512_loadu_si512(x.as_ptr().cast())) }
    }

    #[inline(always)]
    fn prefetch(self, x: &[bf16]) {
        // SAFETY: nothing is read or written, and the address may be any.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(x.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store(self, v: __m512, out: &mut [f32]) {
        // SAFETY: `self` proves the instructions; only lanes that the slice has are written.
        unsafe {
            if out.len() >= 16 {
                _mm512_storeu_ps(out.as_mut_ptr(), v);
            } else {
                _mm512_mask_storeu_ps(out.as_mut_ptr(), first_lanes(out.len()), v);
            }
        }
    }

    #[inline(always)]
    fn store_bf16(self, v: __m512, out: &mut [bf16]) {
        // SAFETY: `self` proves the instructions; only lanes that the slice has are written.
        unsafe {
            let half = _mm512_cvtepi32_epi16(narrow(v));
            if out.len() >= 16 {
                _mm256_storeu_si256(out.as_mut_ptr().cast(), half);
            } else {
                _mm256_mask_storeu_epi16(out.as_mut_ptr().cast(), first_lanes(out.len()), half);
            }
        }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        on_registers!(_mm512_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        on_registers!(_mm512_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        on_registers!(_mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        on_registers!(_mm512_div_ps(a, b))
    }

    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        on_registers!(_mm512_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        on_registers!(_mm512_min_ps(a, b))
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        on_registers!(_mm512_max_ps(a, b))
    }

    #[inline(always)]
    fn round(self, v: __m512) -> __m512 {
        on_registers!(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v))
    }

    #[inline(always)]
    fn scale(self, v: __m512, n: __m512) -> __m512 {
        on_registers!(_mm512_scalef_ps(v, n))
    }

    #[inline(always)]
    fn where_at_least(self, x: __m512, threshold: __m512, v: __m512) -> __m512 {
        on_registers!(_mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_GE_OQ>(x, threshold), v))
    }

    #[inline(always)]
    fn any_above(self, a: __m512, b: __m512) -> bool {
        on_registers!(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(a, b) != 0)
    }

    #[inline(always)]
    fn sum(self, v: __m512) -> f32 {
        on_registers!({
            let half = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
            avx2::sum(half)
        })
    }

    #[inline(always)]
    fn largest(self, v: __m512) -> f32 {
        on_registers!({
            let half = _mm256_max_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
            avx2::largest(half)
        })
    }
}
