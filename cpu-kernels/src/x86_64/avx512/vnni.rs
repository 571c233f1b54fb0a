//! The product of codes with VPDPBUSD: four k of a panel are one register, a lane is one output column.
//!
//! For each block of 32 k, row and panel: eight VPDPBUSD, and four operations more that make fp32 of the sum and add it.

use std::arch::x86_64::*;

use crate::packed::PANEL_COLUMNS;
use crate::quantized::rows::Rows;
use crate::quantized::walk::{LINE, Step, walk};
use crate::quantized::{BLOCK, Panels, Quantization};
use crate::submatrix::Submatrix;
use crate::x86_64::avx512::registers::first_lanes;

/// Rows whose sums are held in registers, of one panel: 8 of 32 for a block's and 8 for all blocks'. Activations come from
/// memory as operands, which costs nothing here.
pub(super) const ROWS: usize = 8;

/// Rows that leave registers for the sums of two panels, and of four. Several panels read from several places of memory, which
/// is faster than from one, and hide the latency of a sum.
const ROWS_OF_TWO_PANELS: usize = 6;
const ROWS_OF_FOUR_PANELS: usize = 3;

/// How many bytes ahead of their use scales and zeros are fetched.
const AHEAD: usize = 128;

/// The same for the codes that a single row reads, which is done with them sooner than memory is. It is near: processors fetch
/// ahead by themselves, and a distance of kilobytes stands in their way.
const CODES_AHEAD_OF_ONE_ROW: usize = 256;

/// See [`crate::instruction_set::InstructionSet::multiply_quantized`].
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
pub(super) fn multiply(rows: Rows<'_>, panels: Panels<'_>, out: Submatrix<'_, f32>) {
    let most_rows = rows.group.min(rows.count());
    let panels_at_once = if most_rows <= ROWS_OF_FOUR_PANELS {
        4
    } else if most_rows <= ROWS_OF_TWO_PANELS {
        2
    } else {
        1
    };
    match panels.quantization() {
        Quantization::Int8 => walk(rows, panels, out, panels_at_once, |step, out| dispatch::<false>(step, out)),
        Quantization::Int4 => walk(rows, panels, out, panels_at_once, |step, out| dispatch::<true>(step, out)),
    }
}

/// The last group may have fewer rows than the others, and the last panels may be fewer.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn dispatch<const INT4: bool>(step: &Step<'_>, out: &mut Submatrix<'_, f32>) {
    match step.panels.count() {
        1 => match step.rows.count() {
            1 => accumulate::<1, 1, INT4>(step, out),
            2 => accumulate::<2, 1, INT4>(step, out),
            3 => accumulate::<3, 1, INT4>(step, out),
            4 => accumulate::<4, 1, INT4>(step, out),
            5 => accumulate::<5, 1, INT4>(step, out),
            6 => accumulate::<6, 1, INT4>(step, out),
            7 => accumulate::<7, 1, INT4>(step, out),
            _ => accumulate::<ROWS, 1, INT4>(step, out),
        },
        2 => match step.rows.count() {
            1 => accumulate::<1, 2, INT4>(step, out),
            2 => accumulate::<2, 2, INT4>(step, out),
            3 => accumulate::<3, 2, INT4>(step, out),
            4 => accumulate::<4, 2, INT4>(step, out),
            5 => accumulate::<5, 2, INT4>(step, out),
            _ => accumulate::<ROWS_OF_TWO_PANELS, 2, INT4>(step, out),
        },
        3 => match step.rows.count() {
            1 => accumulate::<1, 3, INT4>(step, out),
            2 => accumulate::<2, 3, INT4>(step, out),
            _ => accumulate::<ROWS_OF_FOUR_PANELS, 3, INT4>(step, out),
        },
        _ => match step.rows.count() {
            1 => accumulate::<1, 4, INT4>(step, out),
            2 => accumulate::<2, 4, INT4>(step, out),
            _ => accumulate::<ROWS_OF_FOUR_PANELS, 4, INT4>(step, out),
        },
    }
}

/// out `[R, 16 P]` += rows . W^T for the blocks of the step, from zero where they are the first.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")]
fn accumulate<const R: usize, const P: usize, const INT4: bool>(step: &Step<'_>, out: &mut Submatrix<'_, f32>) {
    let Step { rows, panels, first, end, row, column, ahead, ref lines } = *step;
    let lines = lines.clone();
    let (blocks, places) = (rows.blocks(), panels.places());
    assert!(rows.count() == R && end <= blocks && rows.padded_k == panels.padded_k(), "rows of one step");
    assert!(rows.scales.len() == R * blocks && rows.offsets.len() == R * blocks, "scales of one step");
    assert!(panels.bytes().len() == P * places.panel_bytes, "panels of one step");
    assert_eq!(panels.quantization() == Quantization::Int4, INT4, "codes of one step");
    let width = (P * PANEL_COLUMNS).min(out.columns() - column);
    let code_bytes = if INT4 { BLOCK * PANEL_COLUMNS / 2 } else { BLOCK * PANEL_COLUMNS };
    let bytes = panels.bytes().as_ptr();
    let upper = _mm512_set1_epi8(0xf0_u8 as i8);

    let mut sums = [[_mm512_setzero_ps(); P]; R];
    if first > 0 {
        for (r, sums) in sums.iter_mut().enumerate() {
            for (sum, saved) in sums.iter_mut().zip(out.row(row + r)[column..][..width].chunks(PANEL_COLUMNS)) {
                // SAFETY: the mask has no lane that `saved` has not.
                *sum = unsafe { _mm512_maskz_loadu_ps(first_lanes(saved.len()), saved.as_ptr()) };
            }
        }
    }
    for block in first..end {
        let mut dots = [[_mm512_setzero_si512(); P]; R];
        for (r, dots) in dots.iter_mut().enumerate() {
            // SAFETY: block < blocks, and there are R rows of that (asserted above).
            let offset = _mm512_set1_epi32(unsafe { *rows.offsets.get_unchecked(block * R + r) });
            for (p, dot) in dots.iter_mut().enumerate() {
                *dot = offset;
                if INT4 {
                    // SAFETY: block < blocks, so the 16 zeros from here on lie in panel p of P (asserted above).
                    let zeros = unsafe {
                        let at = bytes.add(p * places.panel_bytes + places.zeros + block * PANEL_COLUMNS);
                        if r == 0 {
                            _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(AHEAD).cast());
                        }
                        _mm_loadu_si128(at.cast())
                    };
                    // The upper halves of the zeros' lanes are zero, and the lower half of the offset is all of it.
                    *dot = _mm512_madd_epi16(_mm512_cvtepu8_epi32(zeros), offset);
                }
            }
        }
        for line in lines.clone().filter(|_| R > 1) {
            for p in 0..P {
                let at = bytes.wrapping_add(p * places.panel_bytes + block * code_bytes + ahead + line * LINE);
                _mm_prefetch::<_MM_HINT_T1>(at.cast());
            }
        }
        for index in 0..code_bytes / 64 {
            let mut codes = [_mm512_setzero_si512(); P];
            for (p, codes) in codes.iter_mut().enumerate() {
                // SAFETY: block < blocks and index is one of the block's registers, so the 64 bytes lie in panel p of P
                // (asserted above).
                *codes = unsafe {
                    let at = bytes.add(p * places.panel_bytes + block * code_bytes + index * 64);
                    if R == 1 {
                        _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(CODES_AHEAD_OF_ONE_ROW).cast());
                    }
                    _mm512_loadu_si512(at.cast())
                };
            }
            let k = if INT4 { 8 * index } else { 4 * index };
            // Codes of four bits come as sixteen times themselves.
            let halves = if INT4 {
                [
                    codes.map(|codes| _mm512_and_si512(_mm512_slli_epi16::<4>(codes), upper)),
                    codes.map(|codes| _mm512_and_si512(codes, upper)),
                ]
            } else {
                [codes, codes]
            };
            for (half, codes) in halves.into_iter().take(if INT4 { 2 } else { 1 }).enumerate() {
                for (r, dots) in dots.iter_mut().enumerate() {
                    // SAFETY: block < blocks, there are R rows of that (asserted above), and k + 4 half is within a block.
                    let quad = unsafe {
                        let block = rows.codes.as_ptr().add((block * R + r) * BLOCK);
                        block.add(k + 4 * half).cast::<i32>().read_unaligned()
                    };
                    let quad = _mm512_set1_epi32(quad);
                    for (dot, codes) in dots.iter_mut().zip(codes) {
                        *dot = _mm512_dpbusd_epi32(*dot, codes, quad);
                    }
                }
            }
        }
        let mut scales = [_mm512_setzero_ps(); P];
        for (p, scales) in scales.iter_mut().enumerate() {
            // SAFETY: block < blocks, so the 16 scales from here on, 2 bytes each, lie in panel p of P (asserted above).
            *scales = unsafe {
                let at = bytes.add(p * places.panel_bytes + places.scales + block * 2 * PANEL_COLUMNS);
                _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(AHEAD).cast());
                _mm512_cvtph_ps(_mm256_loadu_si256(at.cast()))
            };
        }
        for (r, (sums, dots)) in sums.iter_mut().zip(dots).enumerate() {
            // SAFETY: block < blocks, and there are R rows of that (asserted above).
            let scale = _mm512_set1_ps(unsafe { *rows.scales.get_unchecked(block * R + r) });
            for ((sum, dot), scales) in sums.iter_mut().zip(dots).zip(scales) {
                *sum = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), _mm512_mul_ps(scales, scale), *sum);
            }
        }
    }
    for (r, sums) in sums.into_iter().enumerate() {
        for (sum, out) in sums.into_iter().zip(out.row(row + r)[column..][..width].chunks_mut(PANEL_COLUMNS)) {
            // SAFETY: the mask has no lane that `out` has not.
            unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), first_lanes(out.len()), sum) };
        }
    }
}
