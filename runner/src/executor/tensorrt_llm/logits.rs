//! Logits as the contract has them: rows in fp32, of the model's vocabulary. They stay where TensorRT-LLM has them, which pads the
//! vocabulary and may have another type; only a piece that differs is copied.

use std::ops::RangeInclusive;

use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::{bf16, f16};
use trtllm_sys::gpu::{GpuLogits, LogitValues};

/// The first rows of some logits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a> {
    logits: GpuLogits<'a>,
    vocab_size: usize,
}

impl<'a> Rows<'a> {
    /// As many rows as are wanted, `of` something; `None` where TensorRT-LLM gave nothing.
    ///
    /// # Errors
    /// There are fewer or more, or they are shorter than the vocabulary, as a sentence.
    pub(super) fn new(
        logits: Option<GpuLogits<'a>>,
        wanted: RangeInclusive<usize>,
        vocab_size: usize,
        of: &str,
    ) -> Result<Self, String> {
        let there = logits.map(|logits| Self { logits, vocab_size });
        let (rows, columns) = there.map_or((0, 0), |there| (there.rows(), there.logits.columns));
        let wrong = || {
            let wanted = wanted.start();
            format!(
                "TensorRT-LLM gave logits of {rows} tokens and {columns} columns for {of} of {wanted} tokens and a vocabulary of {vocab_size}"
            )
        };
        there.filter(|_| wanted.contains(&rows) && columns >= vocab_size).ok_or_else(wrong)
    }

    fn rows(&self) -> usize {
        let numbers = match self.logits.values {
            LogitValues::F32(values) => values.len(),
            LogitValues::F16(bits) | LogitValues::Bf16(bits) => bits.len(),
        };
        numbers / self.logits.columns
    }

    /// `count` rows from `first`, `[count, vocab_size]`, in place or through `buffer`.
    pub(super) fn piece<'b>(&self, first: usize, count: usize, buffer: &'b mut Vec<f32>) -> &'b [f32]
    where
        'a: 'b,
    {
        let columns = self.logits.columns;
        if let (LogitValues::F32(values), true) = (self.logits.values, columns == self.vocab_size) {
            return &values[first * columns..(first + count) * columns];
        }
        buffer.clear();
        buffer.resize(count * self.vocab_size, 0.0);
        for (row, out) in (first..).zip(buffer.chunks_exact_mut(self.vocab_size)) {
            let range = row * columns..row * columns + self.vocab_size;
            match self.logits.values {
                LogitValues::F32(values) => out.copy_from_slice(&values[range]),
                LogitValues::F16(bits) => bits[range].reinterpret_cast::<f16>().convert_to_f32_slice(out),
                LogitValues::Bf16(bits) => bits[range].reinterpret_cast::<bf16>().convert_to_f32_slice(out),
            }
        }
        buffer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_cut_and_converted_and_stay_where_they_are_if_they_can() {
        let numbers: Vec<f32> = (0..12).map(|number| number as f32 * 0.25).collect();
        let halves: Vec<u16> = numbers.iter().map(|&number| f16::from_f32(number).to_bits()).collect();
        let brains: Vec<u16> = numbers.iter().map(|&number| bf16::from_f32(number).to_bits()).collect();
        for values in [LogitValues::F32(&numbers), LogitValues::F16(&halves), LogitValues::Bf16(&brains)] {
            let rows = Rows::new(Some(GpuLogits { values, columns: 4 }), 3..=3, 3, "a prompt").unwrap();
            assert_eq!(rows.piece(1, 2, &mut Vec::new()), [1.0, 1.25, 1.5, 2.0, 2.25, 2.5]);
        }
        let logits = GpuLogits { values: LogitValues::F32(&numbers), columns: 4 };
        let mut buffer = Vec::new();
        let whole = Rows::new(Some(logits), 2..=9, 4, "a prompt").unwrap();
        assert_eq!(whole.piece(2, 1, &mut buffer).as_ptr(), numbers[8..].as_ptr());
        assert_eq!(buffer.capacity(), 0);
        for (wanted, vocab_size) in [(4..=9, 4), (2..=2, 4), (3..=3, 5)] {
            let error = Rows::new(Some(logits), wanted.clone(), vocab_size, "a prompt").unwrap_err();
            let words = format!("a prompt of {} tokens and a vocabulary of {vocab_size}", wanted.start());
            assert!(error.contains("3 tokens and 4 columns for") && error.contains(&words), "{error}");
        }
        assert!(Rows::new(None, 1..=1, 1, "a prompt").unwrap_err().contains("0 tokens"));
    }
}
