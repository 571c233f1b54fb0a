//! Types whose weights are integer codes in blocks along a row, each block with its scale.
//!
//! In each formula q is a weight's code, and all sums and products are rounded to fp32 one by one, as written: the numbers are those
//! of the Python package `gguf`, bit for bit. Blocks of 32 have a scale d, some a minimum m. Blocks of 256 are eight sub-blocks of 32 (or
//! sixteen of 16), whose scales are whole multiples of the block's.
//!
//! | type | block | value |
//! | --- | --- | --- |
//! | Q8_0 | f16 d, 32 codes (i8) | d q |
//! | Q4_0 | f16 d, 16 bytes: low halves, then high halves | d (q - 8) |
//! | Q4_1 | f16 d, f16 m, 16 bytes | d q + m |
//! | Q5_0 | f16 d, 32 fifth bits, 16 bytes | d (q - 16) |
//! | Q5_1 | f16 d, f16 m, 32 fifth bits, 16 bytes | d q + m |
//! | Q4_K | f16 d, f16 dmin, 12 bytes of 6-bit scales s and minima m, 128 bytes | (d s) q - (dmin m) |
//! | Q5_K | the same, with 256 fifth bits before the 128 bytes | (d s) q - (dmin m) |
//! | Q6_K | 128 bytes of low halves, 64 of upper pairs, 16 scales s (i8), f16 d | (d s) (q - 32) |
//! | IQ4_NL | as Q4_0 | `d table[q]` |
//!
//! What has one scale in f16 for 32 weights and no minimum can be held by the CPU engine's layouts as it is: Q8_0, Q4_0, Q5_0 and IQ4_NL
//! by `int8`, Q4_0 by `int4`. The minima of Q4_1 and the 19-bit products d s of Q4_K cannot.

use cpu_kernels::Quantization;
use cpu_kernels::quantized::BlockCodes;
use half::f16;

/// A type of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "they are the format's own names")]
pub enum BlockType {
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4K,
    Q5K,
    Q6K,
    Iq4Nl,
}

/// Weights of the largest block.
pub const MAX_LEN: usize = 256;

/// The values that the codes of IQ4_NL stand for.
pub(crate) const IQ4_NL_VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

impl BlockType {
    /// All of them.
    pub const ALL: [Self; 9] =
        [Self::Q4_0, Self::Q4_1, Self::Q5_0, Self::Q5_1, Self::Q8_0, Self::Q4K, Self::Q5K, Self::Q6K, Self::Iq4Nl];

    /// The format's number, its name, weights and bytes of a block.
    const fn facts(self) -> (u32, &'static str, usize, usize) {
        match self {
            Self::Q4_0 => (2, "Q4_0", 32, 18),
            Self::Q4_1 => (3, "Q4_1", 32, 20),
            Self::Q5_0 => (6, "Q5_0", 32, 22),
            Self::Q5_1 => (7, "Q5_1", 32, 24),
            Self::Q8_0 => (8, "Q8_0", 32, 34),
            Self::Q4K => (12, "Q4_K", 256, 144),
            Self::Q5K => (13, "Q5_K", 256, 176),
            Self::Q6K => (14, "Q6_K", 256, 210),
            Self::Iq4Nl => (20, "IQ4_NL", 32, 18),
        }
    }

    /// The format's number of the type.
    pub const fn id(self) -> u32 {
        self.facts().0
    }

    /// The format's name of the type.
    pub const fn name(self) -> &'static str {
        self.facts().1
    }

    /// Weights of a block.
    #[allow(clippy::len_without_is_empty, reason = "no block is empty")]
    pub const fn len(self) -> usize {
        self.facts().2
    }

    /// Bytes of a block.
    pub const fn bytes(self) -> usize {
        self.facts().3
    }

    /// Reads a block as a layout of the CPU engine has it: the same numbers, exactly. `None` where the layout cannot hold them.
    pub fn codes(self, quantization: Quantization) -> Option<fn(&[u8]) -> BlockCodes> {
        match (self, quantization) {
            (Self::Q4_0, Quantization::Int4) => Some(|block| four_bits(block, |q| q)),
            // A code of zero is 128 in `int8`.
            (Self::Q4_0, Quantization::Int8) => Some(|block| four_bits(block, |q| q + 120)),
            (Self::Iq4Nl, Quantization::Int8) => {
                Some(|block| four_bits(block, |q| IQ4_NL_VALUES[usize::from(q)].cast_unsigned().wrapping_add(128)))
            }
            (Self::Q5_0, Quantization::Int8) => Some(|block| {
                let bits = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
                let code = |i: usize| (block[6 + i % 16] >> (i / 16 * 4) & 15) + (bits >> i & 1) as u8 * 16;
                with_scale(block, std::array::from_fn(|i| code(i) + 112))
            }),
            (Self::Q8_0, Quantization::Int8) => {
                Some(|block| with_scale(block, std::array::from_fn(|i| block[2 + i].wrapping_add(128))))
            }
            _ => None,
        }
    }

    /// The weights of a block.
    ///
    /// # Panics
    /// When `block` has not [`Self::bytes`] bytes, or `out` not room for [`Self::len`] numbers.
    pub fn decode(self, block: &[u8], out: &mut [f32]) {
        assert_eq!((block.len(), out.len()), (self.bytes(), self.len()));
        match self {
            Self::Q8_0 => {
                let d = half_at(block, 0);
                out.iter_mut().zip(&block[2..]).for_each(|(out, &q)| *out = d * f32::from(q as i8));
            }
            Self::Q4_0 => {
                let d = half_at(block, 0);
                halves(&block[2..], out, |q| d * f32::from(q as i8 - 8));
            }
            Self::Iq4Nl => {
                let d = half_at(block, 0);
                halves(&block[2..], out, |q| d * f32::from(IQ4_NL_VALUES[usize::from(q)]));
            }
            Self::Q4_1 => {
                let (d, m) = (half_at(block, 0), half_at(block, 2));
                halves(&block[4..], out, |q| d * f32::from(q) + m);
            }
            Self::Q5_0 => {
                let d = half_at(block, 0);
                fifth_bits(&block[2..], out, |q| d * f32::from(q as i8 - 16));
            }
            Self::Q5_1 => {
                let (d, m) = (half_at(block, 0), half_at(block, 2));
                fifth_bits(&block[4..], out, |q| d * f32::from(q) + m);
            }
            Self::Q4K => {
                let (head, codes) = block.split_at(16);
                sub_blocks(head, out, |sub_block, i| codes[sub_block / 2 * 32 + i] >> (sub_block % 2 * 4) & 15);
            }
            Self::Q5K => {
                let (head, codes) = block.split_at(16);
                let (fifths, codes) = codes.split_at(32);
                sub_blocks(head, out, |sub_block, i| {
                    let low = codes[sub_block / 2 * 32 + i] >> (sub_block % 2 * 4) & 15;
                    low | (fifths[i] >> sub_block & 1) << 4
                });
            }
            Self::Q6K => q6_k(block, out),
        }
    }
}

/// Codes with the scale at the beginning of a block.
fn with_scale(block: &[u8], codes: [u8; 32]) -> BlockCodes {
    BlockCodes { codes, scale: f16::from_le_bytes([block[0], block[1]]), zero: 128 }
}

/// Codes of four bits behind a scale.
fn four_bits(block: &[u8], code: fn(u8) -> u8) -> BlockCodes {
    with_scale(block, std::array::from_fn(|i| code(block[2 + i % 16] >> (i / 16 * 4) & 15)))
}

/// The f16 at a place.
fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// 32 codes of 4 bits: the low halves of 16 bytes, then the high ones.
fn halves(bytes: &[u8], out: &mut [f32], value: impl Fn(u8) -> f32) {
    let (low, high) = out.split_at_mut(16);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(bytes) {
        (*low, *high) = (value(byte & 15), value(byte >> 4));
    }
}

/// 32 codes of 5 bits: their highest bits, then as [`halves`].
fn fifth_bits(bytes: &[u8], out: &mut [f32], value: impl Fn(u8) -> f32) {
    let bits = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    let (low, high) = out.split_at_mut(16);
    for (i, ((low, high), byte)) in low.iter_mut().zip(high).zip(&bytes[4..]).enumerate() {
        let fifth = |i: usize| (bits >> i & 1) as u8 * 16;
        (*low, *high) = (value(byte & 15 | fifth(i)), value(byte >> 4 | fifth(i + 16)));
    }
}

/// Eight sub-blocks of 32; `head` is the two scales of the block and those of its sub-blocks.
fn sub_blocks(head: &[u8], out: &mut [f32], code: impl Fn(usize, usize) -> u8) {
    let (d, dmin) = (half_at(head, 0), half_at(head, 2));
    for (sub_block, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, min) = six_bits(&head[4..], sub_block);
        let (scale, min) = (d * f32::from(scale), dmin * f32::from(min));
        for (i, out) in out.iter_mut().enumerate() {
            *out = scale * f32::from(code(sub_block, i)) - min;
        }
    }
}

/// Scale and minimum of a sub-block, 6 bits each, of the 12 bytes that hold eight of both.
fn six_bits(bytes: &[u8], sub_block: usize) -> (u8, u8) {
    if sub_block < 4 {
        return (bytes[sub_block] & 63, bytes[sub_block + 4] & 63);
    }
    let (low, scale_top, min_top) = (bytes[sub_block + 4], bytes[sub_block - 4], bytes[sub_block]);
    (low & 15 | scale_top >> 6 << 4, low >> 4 | min_top >> 6 << 4)
}

/// Two halves of 128 weights, each in four runs of 32; every 16 weights have a scale.
fn q6_k(block: &[u8], out: &mut [f32]) {
    let (low, rest) = block.split_at(128);
    let (pairs, rest) = rest.split_at(64);
    let (scales, _) = rest.split_at(16);
    let d = half_at(block, 208);
    for (run, out) in out.chunks_exact_mut(32).enumerate() {
        let (half, run_of_half) = (run / 4, run % 4);
        let low = &low[half * 64 + run_of_half % 2 * 32..][..32];
        let pairs = &pairs[half * 32..][..32];
        for (i, out) in out.iter_mut().enumerate() {
            let code = low[i] >> (run_of_half / 2 * 4) & 15 | (pairs[i] >> (2 * run_of_half) & 3) << 4;
            let scale = d * f32::from(scales[run * 2 + i / 16] as i8);
            *out = scale * f32::from(code as i8 - 32);
        }
    }
}
