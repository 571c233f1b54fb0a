//! How the elements of a stored row become numbers.

use std::ops::Range;

use cpu_kernels::Quantization;
use cpu_kernels::quantized::BlockCodes;
use engine_format::dtype::round_to_bf16;
use engine_format::{Dtype, bf16};

use crate::gguf::blocks::{BlockType, MAX_LEN};

/// What the bytes of a row are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// One number after the other.
    Plain(Dtype),
    /// Codes in blocks, as in GGUF files.
    Blocks(BlockType),
}

impl Encoding {
    /// The type's name, as the source spells it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain(dtype) => dtype.name(),
            Self::Blocks(block) => block.name(),
        }
    }

    /// Bytes of a row of `columns` elements.
    pub(crate) fn row_bytes(self, columns: usize) -> usize {
        match self {
            Self::Plain(dtype) => columns * dtype.size(),
            Self::Blocks(block) => columns / block.len() * block.bytes(),
        }
    }

    /// Rounds `columns` of a row to bfloat16.
    pub(crate) fn convert(self, row: &[u8], columns: Range<usize>, out: &mut [bf16]) {
        match self {
            Self::Plain(dtype) => {
                let bytes = &row[columns.start * dtype.size()..columns.end * dtype.size()];
                dtype.convert_to_bf16(bytes, out);
            }
            Self::Blocks(block) => {
                for_each_block(block, row, columns.clone(), |first, numbers| {
                    let out = &mut out[first - columns.start..][..numbers.len()];
                    out.iter_mut().zip(numbers).for_each(|(out, &number)| *out = round_to_bf16(number));
                });
            }
        }
    }

    /// Reads a block of a row as a layout has it, where that can hold the codes as they are: from the row's bytes and the number of the
    /// block.
    pub(crate) fn codes(self, quantization: Quantization) -> Option<impl Fn(&[u8], usize) -> BlockCodes + Clone> {
        let Self::Blocks(kind) = self else { return None };
        let read = kind.codes(quantization)?;
        Some(move |row: &[u8], block| read(&row[block * kind.bytes()..][..kind.bytes()]))
    }

    /// Calls `act` with each column of a row and its number.
    pub(crate) fn for_each(self, row: &[u8], mut act: impl FnMut(usize, f32)) {
        match self {
            Self::Plain(dtype) => dtype.values(row).enumerate().for_each(|(column, value)| act(column, value)),
            Self::Blocks(block) => {
                let columns = row.len() / block.bytes() * block.len();
                for_each_block(block, row, 0..columns, |first, numbers| {
                    numbers.iter().enumerate().for_each(|(i, &value)| act(first + i, value));
                });
            }
        }
    }
}

/// Calls `act` with those numbers of each block that are in `columns`, and the column of the first of them.
fn for_each_block(block: BlockType, row: &[u8], columns: Range<usize>, mut act: impl FnMut(usize, &[f32])) {
    let (len, bytes) = (block.len(), block.bytes());
    let mut numbers = [0.0; MAX_LEN];
    let numbers = &mut numbers[..len];
    for index in columns.start / len..columns.end.div_ceil(len) {
        block.decode(&row[index * bytes..][..bytes], numbers);
        let (from, to) = (columns.start.max(index * len), columns.end.min((index + 1) * len));
        act(from, &numbers[from - index * len..to - index * len]);
    }
}

/// Whether a number is none as a bfloat16, or above `largest` in magnitude.
pub(crate) fn is_outside(value: f32, largest: bf16) -> bool {
    !crate::non_finite::all_within(&[round_to_bf16(value)], largest)
}
