//! Blocks of random bytes against their formulas, in exact arithmetic over single bits.

use engine_builder::gguf::blocks::BlockType;
use half::f16;
use proptest::prelude::*;

/// Bits `first..first + count` of a block, the lowest of each byte first.
fn bits(block: &[u8], first: usize, count: usize) -> u32 {
    (0..count).map(|i| u32::from(block[(first + i) / 8] >> ((first + i) % 8) & 1) << i).sum()
}

fn byte(block: &[u8], at: usize) -> f64 {
    f64::from(bits(block, 8 * at, 8) as u8 as i8)
}

fn half(block: &[u8], at: usize) -> f64 {
    f16::from_bits(bits(block, 8 * at, 16) as u16).to_f64()
}

/// Four bits of weight `i` of 32 whose halves begin at byte `at`.
fn nibble(block: &[u8], at: usize, i: usize) -> u32 {
    bits(block, 8 * (at + i % 16) + i / 16 * 4, 4)
}

/// Factor, code and minimum of weight `i`: it is `factor * code - minimum`.
fn terms(kind: BlockType, block: &[u8], i: usize) -> (f64, f64, f64) {
    const VALUES: [i32; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];
    let d = half(block, 0);
    match kind {
        BlockType::Q8_0 => (d, byte(block, 2 + i), 0.0),
        BlockType::Q4_0 => (d, f64::from(nibble(block, 2, i)) - 8.0, 0.0),
        BlockType::Iq4Nl => (d, f64::from(VALUES[nibble(block, 2, i) as usize]), 0.0),
        BlockType::Q4_1 => (d, f64::from(nibble(block, 4, i)), -half(block, 2)),
        BlockType::Q5_0 => (d, f64::from(nibble(block, 6, i) + 16 * bits(block, 16 + i, 1)) - 16.0, 0.0),
        BlockType::Q5_1 => (d, f64::from(nibble(block, 8, i) + 16 * bits(block, 32 + i, 1)), -half(block, 2)),
        BlockType::Q4K | BlockType::Q5K => {
            let fifths = if kind == BlockType::Q5K { 32 } else { 0 };
            let group = i / 32;
            let mut code = bits(block, 8 * (16 + fifths + i / 64 * 32 + i % 32) + group % 2 * 4, 4);
            if fifths > 0 {
                code += 16 * bits(block, 8 * (16 + i % 32) + group, 1);
            }
            let (scale, min) = match group {
                0..4 => (bits(block, 8 * (4 + group), 6), bits(block, 8 * (8 + group), 6)),
                _ => (
                    bits(block, 8 * (8 + group), 4) + 16 * bits(block, 8 * group + 6, 2),
                    bits(block, 8 * (8 + group) + 4, 4) + 16 * bits(block, 8 * (4 + group) + 6, 2),
                ),
            };
            (d * f64::from(scale), f64::from(code), half(block, 2) * f64::from(min))
        }
        BlockType::Q6K => {
            let (part, place) = (i / 128, i % 128);
            let low = bits(block, 8 * (64 * part + place % 64) + place / 64 * 4, 4);
            let high = bits(block, 8 * (128 + 32 * part + place % 32) + place / 32 * 2, 2);
            (half(block, 208) * byte(block, 192 + i / 16), f64::from(low + 16 * high) - 32.0, 0.0)
        }
    }
}

proptest! {
    #[test]
    fn blocks_are_what_their_formulas_say(bytes in proptest::collection::vec(any::<u8>(), 210)) {
        for kind in BlockType::ALL {
            let block = &bytes[..kind.bytes()];
            let mut numbers = vec![0.0; kind.len()];
            kind.decode(block, &mut numbers);
            for (i, number) in numbers.into_iter().enumerate() {
                let (factor, code, minimum) = terms(kind, block, i);
                let exact = factor * code - minimum;
                if exact.is_finite() {
                    // Up to three products and a difference, each rounded to fp32, which has the exponents that f16 lacks.
                    let bound = (factor * code).abs().max(minimum.abs()) * 4.0 * f64::from(f32::EPSILON);
                    prop_assert!((f64::from(number) - exact).abs() <= bound, "{kind:?} {i}: {number}, not {exact}");
                } else {
                    prop_assert!(!number.is_finite(), "{kind:?} {i}: {number}, not {exact}");
                }
            }
        }
    }
}
