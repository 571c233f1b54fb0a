//! Weights that are codes already, put in their places.

use half::f16;

use super::{BLOCK, Places, Quantization};
use crate::packed::PANEL_COLUMNS;

/// A block of a row as the layout has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BlockCodes {
    /// C of [`crate::quantized`]; below 16 for `int4`.
    pub codes: [u8; BLOCK],
    /// s.
    pub scale: f16,
    /// z; put aside for `int8`.
    pub zero: u8,
}

/// Packs up to 16 rows of `blocks` blocks into a panel of zeros.
pub(super) fn pack(
    quantization: Quantization,
    rows: usize,
    blocks: usize,
    places: Places,
    panel: &mut [u8],
    block_of: impl Fn(usize, usize) -> BlockCodes,
) {
    let (codes, rest) = panel.split_at_mut(places.scales);
    let (scales, zeros) = rest.split_at_mut(places.zeros - places.scales);
    let (scales, _) = scales.as_chunks_mut::<2>();
    let codes_len = match quantization {
        Quantization::Int8 => BLOCK * PANEL_COLUMNS,
        Quantization::Int4 => BLOCK * PANEL_COLUMNS / 2,
    };
    for (block, codes) in codes.chunks_exact_mut(codes_len).enumerate().take(blocks) {
        for column in 0..rows {
            let given = block_of(column, block);
            scales[block * PANEL_COLUMNS + column] = given.scale.to_le_bytes();
            let slots = codes.chunks_exact_mut(4 * PANEL_COLUMNS);
            match quantization {
                Quantization::Int8 => {
                    for (slot, quad) in slots.zip(given.codes.as_chunks::<4>().0) {
                        slot[4 * column..][..4].copy_from_slice(quad);
                    }
                }
                Quantization::Int4 => {
                    zeros[block * PANEL_COLUMNS + column] = given.zero;
                    for (slot, [a, b, c, d, e, f, g, h]) in slots.zip(given.codes.as_chunks::<8>().0) {
                        slot[4 * column..][..4].copy_from_slice(&[a | e << 4, b | f << 4, c | g << 4, d | h << 4]);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::super::{Panels, Quantization};
    use super::*;

    #[test]
    fn codes_are_put_where_packing_puts_its_own() {
        let (rows, k) = (37, 96);
        let weights: Vec<_> = (0..rows * k).map(|i| bf16::from_f32((i * 7919 % 257) as f32 / 99.0 - 1.1)).collect();
        for quantization in Quantization::ALL {
            let mut packed = vec![0; quantization.packed_bytes(rows, k).unwrap()];
            quantization.pack(&weights, k, &mut packed);
            let panels = Panels::new(quantization, k, &packed);
            let block_of = |row: usize, block: usize| {
                let (read, column) = (panels.block(row / PANEL_COLUMNS, block), row % PANEL_COLUMNS);
                BlockCodes {
                    codes: std::array::from_fn(|i| read.code(i, column)),
                    scale: f16::from_f32(read.scales[column]),
                    zero: read.zeros.map_or(0, |zeros| zeros[column]),
                }
            };
            let mut again = vec![255; packed.len()];
            quantization.pack_codes(rows, k, &mut again, block_of);
            assert!(again == packed, "{quantization:?}");
        }
    }
}
