//! `int8`: the scale is the largest magnitude of the block over 127, rounded to f16; codes are the nearest.
//!
//! A weight is off by at most half a scale, plus what the scale's rounding takes off the largest: 2^-11 of it, or 127 times
//! 2^-25, which is 4e-6, where all weights of the block are below 0.008.

use half::{bf16, f16};

use super::{BLOCK, INT8_ZERO, Places, nearest};
use crate::packed::PANEL_COLUMNS;

/// Packs up to 16 rows into a panel of zeros.
#[inline(always)]
pub(super) fn pack(rows: &[bf16], k: usize, places: Places, panel: &mut [u8]) {
    let (codes, scales) = panel.split_at_mut(places.scales);
    let (scales, _) = scales.as_chunks_mut::<2>();
    for (column, row) in rows.chunks_exact(k).enumerate() {
        for (block, weights) in row.chunks(BLOCK).enumerate() {
            let (scale, block_codes) = quantize(weights);
            scales[block * PANEL_COLUMNS + column] = scale.to_le_bytes();
            let slots = codes[block * BLOCK * PANEL_COLUMNS..].chunks_exact_mut(4 * PANEL_COLUMNS);
            for (slot, quad) in slots.zip(block_codes.as_chunks::<4>().0) {
                slot[4 * column..][..4].copy_from_slice(quad);
            }
        }
    }
}

/// The scale and the codes of up to 32 weights.
#[inline(always)]
fn quantize(weights: &[bf16]) -> (f16, [u8; BLOCK]) {
    let mut block = [0.0_f32; BLOCK];
    block.iter_mut().zip(weights).for_each(|(to, from)| *to = f32::from_bits(u32::from(from.to_bits()) << 16));
    // Magnitudes are ordered as their bits are, and what is not finite is above all.
    let largest = f32::from_bits(block.iter().fold(0, |largest, x| largest.max(x.to_bits() & 0x7fff_ffff)));
    let scale = f16::from_f32(largest / 127.0);
    let mut codes = [INT8_ZERO as u8; BLOCK];
    if !scale.is_finite() {
        return (f16::NAN, codes);
    }
    let inverse = if scale == f16::ZERO { 0.0 } else { 1.0 / scale.to_f32() };
    for (code, x) in codes.iter_mut().zip(block) {
        let place = x * inverse;
        let place = if place < 127.0 { place } else { 127.0 };
        let place = if place > -127.0 { place } else { -127.0 };
        *code = (nearest(place) + INT8_ZERO) as u8;
    }
    (scale, codes)
}
