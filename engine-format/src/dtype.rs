//! Element types of stored tensors, and their conversion to bfloat16.
//!
//! Everything that leaves this project is bfloat16, rounded to nearest, ties to even, through fp32, whatever the
//! source was (fp16 to fp32 is exact, so fp16 is rounded once).

use half::{bf16, f16};

/// An element type that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// bfloat16, 2 bytes.
    Bf16,
    /// IEEE 754 binary16, 2 bytes.
    F16,
    /// IEEE 754 binary32, 4 bytes.
    F32,
}

impl Dtype {
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            Self::Bf16 | Self::F16 => 2,
            Self::F32 => 4,
        }
    }

    /// The type's name in TensorRT-LLM's and Transformers' configurations.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bf16 => "bfloat16",
            Self::F16 => "float16",
            Self::F32 => "float32",
        }
    }

    /// The readable type that safetensors calls by this name (`BF16`, `F16`, `F32`).
    pub fn from_safetensors(dtype: safetensors::Dtype) -> Option<Self> {
        match dtype {
            safetensors::Dtype::BF16 => Some(Self::Bf16),
            safetensors::Dtype::F16 => Some(Self::F16),
            safetensors::Dtype::F32 => Some(Self::F32),
            _ => None,
        }
    }

    /// Converts little-endian elements to bfloat16; `bytes` may have any alignment.
    ///
    /// # Panics
    /// When `bytes` is not exactly `out.len()` elements long.
    pub fn convert_to_bf16(self, bytes: &[u8], out: &mut [bf16]) {
        match self {
            Self::Bf16 => self.convert(bytes, out, bf16::from_le_bytes),
            Self::F16 => self.convert(bytes, out, |bytes| round_to_bf16(f16::from_le_bytes(bytes).to_f32())),
            Self::F32 => self.convert(bytes, out, |bytes| round_to_bf16(f32::from_le_bytes(bytes))),
        }
    }

    /// Converts little-endian elements times `scale`, the product taken in fp32, to bfloat16; `bytes` may have any
    /// alignment.
    ///
    /// # Panics
    /// As [`Dtype::convert_to_bf16`].
    pub fn scale_to_bf16(self, bytes: &[u8], scale: f32, out: &mut [bf16]) {
        let scaled = |value: f32| round_to_bf16(value * scale);
        match self {
            Self::Bf16 => self.convert(bytes, out, |bytes| scaled(bf16::from_le_bytes(bytes).to_f32())),
            Self::F16 => self.convert(bytes, out, |bytes| scaled(f16::from_le_bytes(bytes).to_f32())),
            Self::F32 => self.convert(bytes, out, |bytes| scaled(f32::from_le_bytes(bytes))),
        }
    }

    /// Little-endian elements, exactly; `bytes` may have any alignment.
    pub fn values(self, bytes: &[u8]) -> impl Iterator<Item = f32> {
        bytes.chunks_exact(self.size()).map(move |bytes| match *bytes {
            [a, b, c, d] => f32::from_le_bytes([a, b, c, d]),
            [a, b] if self == Self::F16 => f16::from_le_bytes([a, b]).to_f32(),
            [a, b] => bf16::from_le_bytes([a, b]).to_f32(),
            _ => f32::NAN,
        })
    }

    fn convert<const N: usize>(self, bytes: &[u8], out: &mut [bf16], element: impl Fn([u8; N]) -> bf16) {
        assert_eq!(bytes.len(), out.len() * self.size(), "source and destination must hold the same elements");
        for (out, bytes) in out.iter_mut().zip(bytes.as_chunks().0) {
            *out = element(*bytes);
        }
    }
}

/// Rounds to the nearest bfloat16, ties to even; a NaN stays one. Written without branches so that loops over it vectorise.
#[inline]
pub fn round_to_bf16(value: f32) -> bf16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let quiet_nan = (bits >> 16) | 0x40;
    bf16::from_bits(if value.is_nan() { quiet_nan } else { rounded } as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rounding_agrees_with_the_half_crate(bits: u32) {
            let value = f32::from_bits(bits);
            prop_assert_eq!(round_to_bf16(value).to_bits(), bf16::from_f32(value).to_bits());
        }

        #[test]
        fn conversion_ignores_alignment(values in proptest::collection::vec(any::<f32>(), 1..40), shift in 0usize..4) {
            for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
                let mut bytes = vec![0u8; shift];
                let mut expected = Vec::new();
                for &value in &values {
                    match dtype {
                        Dtype::F32 => { bytes.extend(value.to_le_bytes()); expected.push(bf16::from_f32(value)); }
                        Dtype::F16 => {
                            let value = f16::from_f32(value);
                            bytes.extend(value.to_le_bytes());
                            expected.push(bf16::from_f32(value.to_f32()));
                        }
                        Dtype::Bf16 => { let value = bf16::from_f32(value); bytes.extend(value.to_le_bytes()); expected.push(value); }
                    }
                }
                let mut out = vec![bf16::ZERO; values.len()];
                dtype.convert_to_bf16(&bytes[shift..], &mut out);
                for (value, expected) in dtype.values(&bytes[shift..]).zip(&expected) {
                    prop_assert_eq!(bf16::from_f32(value).to_bits(), expected.to_bits());
                }
                let bits = |v: &[bf16]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                prop_assert_eq!(bits(&out), bits(&expected));
                let mut scaled = vec![bf16::ZERO; values.len()];
                dtype.scale_to_bf16(&bytes[shift..], 1.0, &mut scaled);
                for (scaled, expected) in scaled.iter().zip(&expected) {
                    prop_assert!(scaled.to_bits() == expected.to_bits() || scaled.is_nan() && expected.is_nan());
                }
            }
        }
    }
}
