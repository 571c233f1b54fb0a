//! The product of codes in registers of 8 columns, half a panel each: with VPMADDUBSW, or with AVX-VNNI's VPDPBUSD.
//!
//! For each block of 32 k, row and half: eight times what adds four products a lane, and four operations more that make fp32
//! of the sum and add it.

use std::arch::x86_64::*;

use crate::packed::PANEL_COLUMNS;
use crate::quantized::rows::Rows;
use crate::quantized::walk::{Step, walk};
use crate::quantized::{BLOCK, INT4_STEP, Panels, Quantization};
use crate::submatrix::Submatrix;

use super::sums::{self, HALVES};

/// Rows whose sums are held in registers: 8 of 16 for all blocks' of both halves, and 4 for those of the block and half at
/// hand.
pub(super) const ROWS: usize = 4;

/// Bytes of a register.
const REGISTER: usize = 32;

/// The operands of a block, half a panel and R rows.
#[derive(Clone, Copy)]
struct Operands {
    /// A register here and after every 64 bytes: eight of them for codes of eight bits, four for codes of four.
    codes: *const u8,
    /// 32 codes of each row.
    rows: *const i8,
}

impl Operands {
    /// # Safety
    /// The register must exist.
    #[inline(always)]
    unsafe fn codes(&self, index: usize) -> __m256i {
        // SAFETY: the caller vouches for the bytes, and all callers are compiled with AVX2.
        unsafe { _mm256_loadu_si256(self.codes.add(index * 2 * REGISTER).cast()) }
    }

    /// Four codes of a row in every lane.
    ///
    /// # Safety
    /// The row must exist, and the quad be one of the block's eight.
    #[inline(always)]
    unsafe fn quad(&self, row: usize, quad: usize) -> __m256i {
        // SAFETY: the caller vouches for the bytes, and all callers are compiled with AVX2.
        unsafe { _mm256_set1_epi32(self.rows.add(row * BLOCK + 4 * quad).cast::<i32>().read_unaligned()) }
    }
}

/// Stamps out the product, for the code generation of `$features` and what `$dots` computes of a block: `$dots` takes the
/// operands, each row's offset in all lanes, and the zeros in lanes of 32 bits.
macro_rules! product {
    ($name:ident, $dots:ident, $features:literal) => {
        /// See [`crate::instruction_set::InstructionSet::multiply_quantized`].
        #[target_feature(enable = $features)]
        pub(in crate::x86_64) fn $name(rows: Rows<'_>, panels: Panels<'_>, out: Submatrix<'_, f32>) {
            #[target_feature(enable = $features)]
            fn dispatch<const INT4: bool>(step: &Step<'_>, out: &mut Submatrix<'_, f32>) {
                match step.rows.count() {
                    1 => accumulate::<1, INT4>(step, out),
                    2 => accumulate::<2, INT4>(step, out),
                    3 => accumulate::<3, INT4>(step, out),
                    _ => accumulate::<ROWS, INT4>(step, out),
                }
            }

            /// out `[R, 16]` += rows . W^T for the blocks of the step, from zero where they are the first.
            #[target_feature(enable = $features)]
            fn accumulate<const R: usize, const INT4: bool>(step: &Step<'_>, out: &mut Submatrix<'_, f32>) {
                let Step { rows, panels, first, end, row, column, .. } = *step;
                let (blocks, places) = (rows.blocks(), panels.places());
                assert!(rows.count() == R && end <= blocks && rows.padded_k == panels.padded_k(), "rows of one step");
                assert!(rows.scales.len() == R * blocks && rows.offsets.len() == R * blocks, "scales of one step");
                assert!(panels.bytes().len() == places.panel_bytes, "the panel of one step");
                assert_eq!(panels.quantization() == Quantization::Int4, INT4, "codes of one step");
                let code_bytes = if INT4 { BLOCK * PANEL_COLUMNS / 2 } else { BLOCK * PANEL_COLUMNS };
                let bytes = panels.bytes().as_ptr();
                let mut sums =
                    if first > 0 { sums::load(out, row, column) } else { [[_mm256_setzero_ps(); HALVES]; R] };
                for block in first..end {
                    for h in 0..HALVES {
                        let mut offsets = [_mm256_setzero_si256(); R];
                        for (r, offset) in offsets.iter_mut().enumerate() {
                            // SAFETY: block < blocks, and there are R rows of that (asserted above).
                            *offset = _mm256_set1_epi32(unsafe { *rows.offsets.get_unchecked(block * R + r) });
                        }
                        // SAFETY: block < blocks, so its codes, its 16 scales of 2 bytes and, for codes of four bits, its 16
                        // zeros lie in the panel, and its 32 k in R rows (asserted above); a half of each is read.
                        let (dots, scales) = unsafe {
                            let zeros = if INT4 {
                                let zeros = bytes.add(places.zeros + block * PANEL_COLUMNS + 8 * h);
                                _mm256_cvtepu8_epi32(_mm_loadl_epi64(zeros.cast()))
                            } else {
                                _mm256_setzero_si256()
                            };
                            let operands = Operands {
                                codes: bytes.add(block * code_bytes + h * REGISTER),
                                rows: rows.codes.as_ptr().add(block * R * BLOCK),
                            };
                            let scales = bytes.add(places.scales + 2 * (block * PANEL_COLUMNS + 8 * h));
                            (
                                $dots::<R, INT4>(operands, offsets, zeros),
                                _mm256_cvtph_ps(_mm_loadu_si128(scales.cast())),
                            )
                        };
                        for (r, (sums, dot)) in sums.iter_mut().zip(dots).enumerate() {
                            // SAFETY: block < blocks, and there are R rows of that (asserted above).
                            let scale = _mm256_set1_ps(unsafe { *rows.scales.get_unchecked(block * R + r) });
                            let scales = _mm256_mul_ps(scales, scale);
                            sums[h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scales, sums[h]);
                        }
                    }
                }
                sums::store(sums, out, row, column);
            }

            match panels.quantization() {
                Quantization::Int8 => walk(rows, panels, out, 1, |step, out| dispatch::<false>(step, out)),
                Quantization::Int4 => walk(rows, panels, out, 1, |step, out| dispatch::<true>(step, out)),
            }
        }
    };
}

product!(multiply_maddubs, dots_maddubs, "avx2,fma,f16c");
product!(multiply_vnni, dots_vnni, "avx2,fma,f16c,avxvnni");

/// The sums of a block with VPMADDUBSW. It adds two products in 16 bits and saturates, so it is never given more than those
/// hold: codes of eight bits become magnitudes (the sign goes to the activation; twice 128 times 127 fits), and of codes of
/// four bits all 16 products that come together in a block fit, 15 times 127 each.
///
/// # Safety
/// The operands must be those of a block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn dots_maddubs<const R: usize, const INT4: bool>(
    operands: Operands,
    offsets: [__m256i; R],
    zeros: __m256i,
) -> [__m256i; R] {
    let mut dots = [_mm256_setzero_si256(); R];
    if INT4 {
        let low = _mm256_set1_epi8(15);
        for index in 0..4 {
            // SAFETY: the caller vouches for the block, which has four registers.
            let codes = unsafe { operands.codes(index) };
            let halves = [_mm256_and_si256(codes, low), _mm256_and_si256(_mm256_srli_epi16::<4>(codes), low)];
            for (half, codes) in halves.into_iter().enumerate() {
                for (r, dot) in dots.iter_mut().enumerate() {
                    // SAFETY: the caller vouches for the block and R rows.
                    let quad = unsafe { operands.quad(r, 2 * index + half) };
                    *dot = _mm256_add_epi16(*dot, _mm256_maddubs_epi16(codes, quad));
                }
            }
        }
        for (dot, offset) in dots.iter_mut().zip(offsets) {
            let sum = _mm256_madd_epi16(*dot, _mm256_set1_epi16(INT4_STEP as i16));
            // The upper halves of the zeros' lanes are zero, and the lower half of the offset is all of it.
            *dot = _mm256_add_epi32(sum, _mm256_madd_epi16(zeros, offset));
        }
    } else {
        let middle = _mm256_set1_epi8(-128);
        let ones = _mm256_set1_epi16(1);
        for index in 0..8 {
            // SAFETY: the caller vouches for the block, which has eight registers.
            let codes = _mm256_xor_si256(unsafe { operands.codes(index) }, middle);
            let magnitudes = _mm256_abs_epi8(codes);
            for (r, dot) in dots.iter_mut().enumerate() {
                // SAFETY: the caller vouches for the block and R rows.
                let quad = _mm256_sign_epi8(unsafe { operands.quad(r, index) }, codes);
                *dot = _mm256_add_epi32(*dot, _mm256_madd_epi16(_mm256_maddubs_epi16(magnitudes, quad), ones));
            }
        }
    }
    dots
}

/// The sums of a block with VPDPBUSD, which adds four products in 32 bits.
///
/// # Safety
/// The operands must be those of a block.
#[inline]
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
unsafe fn dots_vnni<const R: usize, const INT4: bool>(
    operands: Operands,
    offsets: [__m256i; R],
    zeros: __m256i,
) -> [__m256i; R] {
    let mut dots = offsets;
    if INT4 {
        // Codes come as sixteen times themselves.
        let upper = _mm256_set1_epi8(0xf0_u8 as i8);
        // The upper halves of the zeros' lanes are zero, and the lower half of the offset is all of it.
        dots.iter_mut().for_each(|dot| *dot = _mm256_madd_epi16(zeros, *dot));
        for index in 0..4 {
            // SAFETY: the caller vouches for the block, which has four registers.
            let codes = unsafe { operands.codes(index) };
            let halves = [_mm256_and_si256(_mm256_slli_epi16::<4>(codes), upper), _mm256_and_si256(codes, upper)];
            for (half, codes) in halves.into_iter().enumerate() {
                for (r, dot) in dots.iter_mut().enumerate() {
                    // SAFETY: the caller vouches for the block and R rows.
                    *dot = _mm256_dpbusd_avx_epi32(*dot, codes, unsafe { operands.quad(r, 2 * index + half) });
                }
            }
        }
    } else {
        for index in 0..8 {
            // SAFETY: the caller vouches for the block, which has eight registers.
            let codes = unsafe { operands.codes(index) };
            for (r, dot) in dots.iter_mut().enumerate() {
                // SAFETY: the caller vouches for the block and R rows.
                *dot = _mm256_dpbusd_avx_epi32(*dot, codes, unsafe { operands.quad(r, index) });
            }
        }
    }
    dots
}
