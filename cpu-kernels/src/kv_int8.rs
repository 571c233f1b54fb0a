//! Keys and values in eight bits: every [`BLOCK`] of 32 elements of a token is codes of -127..=127 and a scale of its own.
//!
//! The scale is the largest magnitude over 127, rounded to bf16; codes are the nearest, so an element is off by at most half a
//! scale. A block below 2^-100 is zero; one with an element that is not finite has a scale that is not a number. That is 8.5
//! bits an element.
//!
//! A page is the codes, in the order in which [`crate::kv_layout`] has elements, then the scales `[head_dim / 32, tokens_per_block]`.
//! Two codes share a word of 16 bits, the first of them in its lower half: pairs of that layout are words.
//!
//! Codes are exact in bf16, so products are those of bf16 pages, over 32 elements at a time:
//!
//! ```text
//! q . k = sum over blocks of s (q . c)        p . V = (p s) . C for each block of columns
//! ```
//!
//! Blocks of 32 rather than a whole head, because rotary embedding leaves some elements of a key much larger than others: over
//! SmolLM2-135M's distributions (heads of 64), the divergence from a cache in fp32 is 3.4e-4 with them and 7.7e-4 with a scale for
//! each head, of which the keys' are nearly all.

#![forbid(unsafe_code)]

use half::bf16;

use crate::quantized::nearest;

/// Elements of a token that share a scale.
pub(crate) const BLOCK: usize = 32;

/// 2^-100: whatever is below is zero, so that no scale is near the end of the range.
const TINY: f32 = f32::from_bits((127 - 100) << 23);

/// The scale and the codes of up to 32 elements.
pub(crate) fn round_block(elements: &[f32]) -> (bf16, [i8; BLOCK]) {
    let mut codes = [0; BLOCK];
    // Magnitudes are ordered as their bits are, and what is not finite is above all.
    let largest = elements.iter().fold(0, |largest, x| (x.to_bits() & 0x7fff_ffff).max(largest));
    let largest = f32::from_bits(largest);
    if largest < TINY {
        return (bf16::ZERO, codes);
    }
    if !largest.is_finite() {
        return (bf16::NAN, codes);
    }
    let scale = bf16::from_f32(largest / 127.0);
    let inverse = 1.0 / scale.to_f32();
    for (code, x) in codes.iter_mut().zip(elements) {
        // At most 127.3 in magnitude.
        *code = nearest(x * inverse) as i8;
    }
    (scale, codes)
}

/// Writes the code at `place`.
pub(crate) fn set_code(words: &mut [bf16], place: usize, code: i8) {
    let word = &mut words[place / 2];
    let mut bytes = word.to_bits().to_le_bytes();
    bytes[place % 2] = code as u8;
    *word = bf16::from_bits(u16::from_le_bytes(bytes));
}

/// The code at `place`, as a number.
#[inline(always)]
pub(crate) fn code_at(words: &[bf16], place: usize) -> bf16 {
    codes(words[place / 2])[place % 2]
}

/// The two codes of a word, as numbers.
#[inline(always)]
pub(crate) fn codes(word: bf16) -> [bf16; 2] {
    // Seven bits and a sign: what is cut off is zero.
    word.to_bits().to_le_bytes().map(|code| bf16::from_bits((f32::from(code as i8).to_bits() >> 16) as u16))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_off_by_half_a_scale_at_most() {
        let mut state = 1_u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        for round in 0..2000 {
            let magnitude = 2.0_f32.powi(round % 200 - 98);
            let elements: Vec<f32> = (0..1 + round as usize % BLOCK).map(|_| random() * magnitude).collect();
            let (scale, codes) = round_block(&elements);
            let largest = elements.iter().fold(0.0_f64, |largest, x| largest.max(f64::from(x.abs())));
            let scale = scale.to_f64();
            if largest >= f64::from(TINY) {
                assert!((scale / (largest / 127.0) - 1.0).abs() <= 1.0 / 256.0, "{scale} of {largest}");
            }
            for (x, code) in elements.iter().zip(codes) {
                let error = (f64::from(*x) - scale * f64::from(code)).abs();
                assert!(error <= scale * 0.500_001 + f64::from(TINY), "{x}: {code} of {scale}");
            }
            assert!(codes[elements.len()..].iter().all(|code| *code == 0));
        }
    }

    #[test]
    fn blocks_that_are_no_numbers_or_nothing() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(round_block(&[1.0, bad, 2.0]).0.is_nan());
        }
        assert_eq!(round_block(&[0.0, -0.0, 1e-38]), (bf16::ZERO, [0; BLOCK]));
        let (scale, codes) = round_block(&[f32::MAX, f32::MIN]);
        assert!(scale.is_finite() && codes[..2] == [127, -127]);
    }

    #[test]
    fn every_code_is_a_number_in_either_half_of_a_word() {
        for code in i8::MIN..=i8::MAX {
            let mut words = [bf16::NAN; 2];
            set_code(&mut words, 2, code);
            set_code(&mut words, 3, code.wrapping_add(1));
            let expected = [code, code.wrapping_add(1)].map(|code| bf16::from_f32(code.into()));
            assert_eq!((codes(words[1]), [code_at(&words, 2), code_at(&words, 3)]), (expected, expected));
            assert!(words[0].is_nan());
        }
    }
}
