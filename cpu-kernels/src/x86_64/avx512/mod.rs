//! AVX-512 with BF16: 16 lanes, and a matrix product of bf16 pairs.

mod gemm;
mod peak;
mod transpose;

use std::arch::x86_64::*;
use std::borrow::Cow;

use half::bf16;

use super::avx2;
use crate::instruction_set::{InstructionSet, pad_rows};
use crate::simd::{Simd, TRANSPOSED_COLUMNS, TRANSPOSED_ROWS, Task, WOVEN_COLUMNS, WOVEN_ROWS};
use crate::tile::Tile;

/// Proof that this CPU and its operating system have AVX-512 F, BW, VL, DQ and BF16.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

impl Avx512 {
    /// `None` where an instruction is missing.
    pub(crate) fn new() -> Option<Self> {
        let found = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512bf16");
        found.then_some(Avx512(()))
    }
}

/// Runs an expression of intrinsics that touch registers only.
macro_rules! on_registers {
    ($work:expr) => {
        // SAFETY: an `Avx512` exists (all callers are its methods), so the instructions do; no memory is touched.
        unsafe { $work }
    };
}

/// Ones for the first `len` lanes of 16.
#[inline(always)]
fn first_lanes(len: usize) -> u16 {
    if len >= 16 { u16::MAX } else { (1 << len) - 1 }
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
        // SAFETY: `self` proves the instructions; only lanes that the slice has are written. `__m256bh` and
        // `__m256i` are both 32 bytes without invalid patterns.
        unsafe {
            let half: __m256i = std::mem::transmute(_mm512_cvtneps_pbh(v));
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

    #[inline(always)]
    fn transpose(self, tile: &[[bf16; TRANSPOSED_COLUMNS]; TRANSPOSED_ROWS], out: &mut [f32], stride: usize) {
        // SAFETY: `self` proves the instructions that `transpose::transpose` is compiled with.
        unsafe { transpose::transpose(tile, out, stride) }
    }

    #[inline(always)]
    fn weave(self, weights: &[f32], stride: usize, out: &mut [bf16; WOVEN_ROWS * WOVEN_COLUMNS]) {
        // SAFETY: `self` proves the instructions that `transpose::weave` is compiled with.
        unsafe { transpose::weave(weights, stride, out) }
    }
}

impl InstructionSet for Avx512 {
    type Activation = bf16;

    #[inline(always)]
    fn vectorize<T: Task>(self, task: T) {
        #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
        fn run<T: Task>(simd: Avx512, task: T) {
            task.run(simd);
        }
        // SAFETY: `self` proves the instructions that `run` is compiled with.
        unsafe { run(self, task) }
    }

    fn activations(self, a: &[bf16], k: usize, padded_k: usize) -> Cow<'_, [bf16]> {
        pad_rows(a, k, padded_k)
    }

    fn multiply(self, a: &[bf16], padded_k: usize, panels: &[bf16], out: Tile<'_, f32>) {
        // SAFETY: `self` proves the instructions that `gemm::multiply` is compiled with.
        unsafe { gemm::multiply(a, padded_k, panels, out) }
    }

    fn multiply_adds(self, rounds: usize) -> u64 {
        // SAFETY: `self` proves the instructions that `peak::multiply_adds` is compiled with.
        unsafe { peak::multiply_adds(rounds) }
    }
}
