//! AVX2 with FMA: 8 lanes; bf16 is widened to f32 with a shift.

mod gemm;
mod quantized;
mod sums;

use std::arch::x86_64::*;
use std::borrow::Cow;

use half::bf16;

use crate::instruction_set::InstructionSet;
use crate::quantized::Panels;
use crate::quantized::rows::Rows;
use crate::simd::{Simd, Task, widen_rows};
use crate::submatrix::Submatrix;
use crate::x86_64::code_multiply_adds;

/// Proof that this CPU and its operating system have AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(crate) struct Avx2 {
    /// Whether they have AVX-VNNI as well.
    vnni: bool,
}

impl Avx2 {
    /// `None` where an instruction is missing.
    pub(crate) fn new() -> Option<Self> {
        let found =
            is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c");
        found.then(|| Avx2 { vnni: is_x86_feature_detected!("avxvnni") })
    }

    /// The same without AVX-VNNI.
    #[cfg(test)]
    pub(crate) fn without_vnni(self) -> Self {
        Avx2 { vnni: false }
    }
}

/// Runs an expression of intrinsics that touch registers only.
macro_rules! on_registers {
    ($work:expr) => {
        // SAFETY: an `Avx2` exists (all callers are its methods), so the instructions do; no memory is touched.
        unsafe { $work }
    };
}

/// The sum of 8 lanes: halves are added until one lane is left.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn sum(v: __m256) -> f32 {
    let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let v = _mm_add_ps(v, _mm_movehl_ps(v, v));
    _mm_cvtss_f32(_mm_add_ss(v, _mm_movehdup_ps(v)))
}

/// The largest of 8 lanes.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(super) fn largest(v: __m256) -> f32 {
    let v = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let v = _mm_max_ps(v, _mm_movehl_ps(v, v));
    _mm_cvtss_f32(_mm_max_ss(v, _mm_movehdup_ps(v)))
}

/// Rounds 8 lanes to bf16, ties to even; a NaN keeps its upper bits and becomes quiet.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn narrow(v: __m256) -> __m128i {
    let bits = _mm256_castps_si256(v);
    let upper = _mm256_srli_epi32::<16>(bits);
    let odd = _mm256_and_si256(upper, _mm256_set1_epi32(1));
    let rounded = _mm256_add_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(0x7fff)), odd);
    let quiet = _mm256_or_si256(upper, _mm256_set1_epi32(0x40));
    let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(v, v));
    let narrow = _mm256_blendv_epi8(_mm256_srli_epi32::<16>(rounded), quiet, nan);
    let packed = _mm256_packus_epi32(narrow, narrow);
    _mm256_castsi256_si128(_mm256_permute4x64_epi64::<0b1000>(packed))
}

/// 2^n for integers n between -126 and 127.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn power_of_two(n: __m256i) -> __m256 {
    _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(n, _mm256_set1_epi32(127))))
}

impl Simd for Avx2 {
    type Vector = __m256;
    const LANES: usize = 8;

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        on_registers!(_mm256_set1_ps(x))
    }

    #[inline(always)]
    fn load(self, x: &[f32]) -> __m256 {
        let mut part = [0.0; 8];
        let whole = match x.first_chunk::<8>() {
            Some(whole) => whole,
            None => {
                part[..x.len()].copy_from_slice(x);
                &part
            }
        };
        // SAFETY: `self` proves the instructions; an array of 8 is read.
        unsafe { _mm256_loadu_ps(whole.as_ptr()) }
    }

    #[inline(always)]
    fn load_bf16(self, x: &[bf16]) -> __m256 {
        let mut part = [bf16::ZERO; 8];
        let whole = match x.first_chunk::<8>() {
            Some(whole) => whole,
            None => {
                part[..x.len()].copy_from_slice(x);
                &part
            }
        };
        // SAFETY: `self` proves the instructions; an array of 8 is read.
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(whole.as_ptr().cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
    }

    #[inline(always)]
    fn load_pairs(self, x: &[bf16]) -> [__m256; 2] {
        let x = &x[..16];
        // SAFETY: `self` proves the instructions; 16 elements are read.
        unsafe {
            let pairs = _mm256_loadu_si256(x.as_ptr().cast());
            let upper = _mm256_set1_epi32(0xffff_0000_u32 as i32);
            [_mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs)), _mm256_castsi256_ps(_mm256_and_si256(pairs, upper))]
        }
    }

    #[inline(always)]
    fn prefetch(self, x: &[bf16]) {
        // SAFETY: nothing is read or written, and the address may be any.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(x.as_ptr().cast()) }
    }

    #[inline(always)]
    fn store(self, v: __m256, out: &mut [f32]) {
        let mut all = [0.0; 8];
        match out.first_chunk_mut::<8>() {
            // SAFETY: `self` proves the instructions; an array of 8 is written.
            Some(whole) => unsafe { _mm256_storeu_ps(whole.as_mut_ptr(), v) },
            None => {
                // SAFETY: as above.
                unsafe { _mm256_storeu_ps(all.as_mut_ptr(), v) };
                out.copy_from_slice(&all[..out.len()]);
            }
        }
    }

    #[inline(always)]
    fn store_bf16(self, v: __m256, out: &mut [bf16]) {
        let mut all = [bf16::ZERO; 8];
        match out.first_chunk_mut::<8>() {
            // SAFETY: `self` proves the instructions; an array of 8 is written.
            Some(whole) => unsafe { _mm_storeu_si128(whole.as_mut_ptr().cast(), narrow(v)) },
            None => {
                // SAFETY: as above.
                unsafe { _mm_storeu_si128(all.as_mut_ptr().cast(), narrow(v)) };
                out.copy_from_slice(&all[..out.len()]);
            }
        }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        on_registers!(_mm256_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        on_registers!(_mm256_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        on_registers!(_mm256_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        on_registers!(_mm256_div_ps(a, b))
    }

    #[inline(always)]
    fn fma(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        on_registers!(_mm256_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        on_registers!(_mm256_min_ps(a, b))
    }

    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        on_registers!(_mm256_max_ps(a, b))
    }

    #[inline(always)]
    fn round(self, v: __m256) -> __m256 {
        on_registers!(_mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v))
    }

    #[inline(always)]
    fn scale(self, v: __m256, n: __m256) -> __m256 {
        // In two steps: 2^n itself may be out of range where v 2^n is not.
        on_registers!({
            let n = _mm256_cvtps_epi32(n);
            let half = _mm256_srai_epi32::<1>(n);
            let v = _mm256_mul_ps(v, power_of_two(half));
            _mm256_mul_ps(v, power_of_two(_mm256_sub_epi32(n, half)))
        })
    }

    #[inline(always)]
    fn where_at_least(self, x: __m256, threshold: __m256, v: __m256) -> __m256 {
        on_registers!(_mm256_and_ps(_mm256_cmp_ps::<_CMP_GE_OQ>(x, threshold), v))
    }

    #[inline(always)]
    fn any_above(self, a: __m256, b: __m256) -> bool {
        on_registers!(_mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(a, b)) != 0)
    }

    #[inline(always)]
    fn sum(self, v: __m256) -> f32 {
        on_registers!(sum(v))
    }

    #[inline(always)]
    fn largest(self, v: __m256) -> f32 {
        on_registers!(largest(v))
    }
}

impl InstructionSet for Avx2 {
    type Activation = f32;

    #[inline(always)]
    fn vectorize<T: Task>(self, task: T) {
        #[target_feature(enable = "avx2,fma")]
        fn run<T: Task>(simd: Avx2, task: T) {
            task.run(simd);
        }
        // SAFETY: `self` proves the instructions that `run` is compiled with.
        unsafe { run(self, task) }
    }

    fn activations(self, a: &[bf16], k: usize, padded_k: usize) -> Cow<'_, [f32]> {
        Cow::Owned(widen_rows(a, k, padded_k))
    }

    fn multiply(self, a: &[f32], padded_k: usize, panels: &[bf16], out: Submatrix<'_, f32>) {
        // SAFETY: `self` proves the instructions that `gemm::multiply` is compiled with.
        unsafe { gemm::multiply(a, padded_k, panels, out) }
    }

    fn code_rows(self, _: usize) -> usize {
        quantized::ROWS
    }

    fn multiply_quantized(self, rows: Rows<'_>, panels: Panels<'_>, out: Submatrix<'_, f32>) {
        // SAFETY: `self` proves the instructions that the functions are compiled with.
        unsafe {
            if self.vnni {
                quantized::multiply_vnni(rows, panels, out);
            } else {
                quantized::multiply_maddubs(rows, panels, out);
            }
        }
    }

    fn code_instructions(self) -> &'static str {
        if self.vnni { "AVX-VNNI" } else { "AVX2" }
    }

    fn code_multiply_adds(self, rounds: usize) -> u64 {
        // SAFETY: `self` proves the instructions that each is compiled with.
        unsafe { if self.vnni { code_multiply_adds::avx_vnni(rounds) } else { code_multiply_adds::avx2(rounds) } }
    }
}
