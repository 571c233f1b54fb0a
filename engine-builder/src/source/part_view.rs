//! The one form in which a source gives weights: rows of a stored tensor, as numbers rounded to bfloat16, or in place where they
//! are stored so.

use std::ops::Range;
use std::path::Path;

use cpu_kernels::Quantization;
use cpu_kernels::quantized::BlockCodes;
use engine_format::mmap::MappedFile;
use engine_format::safetensors_dir::TensorView;
use engine_format::{Dtype, bf16};

use super::encoding::{Encoding, is_outside};

/// Rows of a stored tensor, seen as a matrix (a vector of n elements is n rows of one column).
#[derive(Debug, Clone)]
pub struct PartView<'a> {
    file: &'a MappedFile,
    name: &'a str,
    /// The whole tensor, row after row.
    bytes: &'a [u8],
    encoding: Encoding,
    order: RowOrder,
    rows: Range<usize>,
    columns: usize,
}

/// In which order a tensor's rows are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RowOrder {
    /// As the decoder counts them.
    Decoder,
    /// The two elements of a head that rotate together are neighbours: row `half * head_size / 2 + i` of a head is stored as its row
    /// `2 * i + half`.
    NeighbouringPairs {
        /// Rows of a head.
        head_size: usize,
    },
    /// A run of rows in each group of rows: the others are of other weights.
    Grouped {
        /// Rows of a run.
        run: usize,
        /// Rows of a group.
        group: usize,
        /// The run's first row in its group.
        first: usize,
    },
}

impl RowOrder {
    /// Where row `row` is stored.
    fn stored(self, row: usize) -> usize {
        match self {
            Self::Decoder => row,
            Self::NeighbouringPairs { head_size } => {
                let (head, row) = (row / head_size, row % head_size);
                let (half, i) = (row / (head_size / 2), row % (head_size / 2));
                head * head_size + 2 * i + half
            }
            Self::Grouped { run, group, first } => row / run * group + first + row % run,
        }
    }

    /// Stored rows that hold at least `rows`.
    fn covering(self, rows: &Range<usize>) -> Range<usize> {
        match self {
            Self::Decoder => rows.clone(),
            Self::NeighbouringPairs { head_size } => {
                rows.start / head_size * head_size..rows.end.next_multiple_of(head_size)
            }
            Self::Grouped { .. } if rows.is_empty() => 0..0,
            Self::Grouped { .. } => self.stored(rows.start)..self.stored(rows.end - 1) + 1,
        }
    }
}

impl<'a> From<TensorView<'a>> for PartView<'a> {
    fn from(tensor: TensorView<'a>) -> Self {
        let TensorView { file, name, dtype, bytes, shape } = tensor;
        Self::new(file, name, bytes, shape, Encoding::Plain(dtype))
    }
}

impl<'a> PartView<'a> {
    /// The tensor of this shape in `bytes`, a part of `file`.
    pub(crate) fn new(
        file: &'a MappedFile,
        name: &'a str,
        bytes: &'a [u8],
        shape: &[usize],
        encoding: Encoding,
    ) -> Self {
        let (rows, columns) = match shape {
            [] => (1, 1),
            [rows] => (*rows, 1),
            [rows, rest @ ..] => (*rows, rest.iter().product()),
        };
        Self { file, name, bytes, encoding, order: RowOrder::Decoder, rows: 0..rows, columns }
    }

    /// The same tensor, whose rows are stored in this order.
    pub(crate) fn in_order(self, order: RowOrder) -> Self {
        Self { order, ..self }
    }

    /// Only some rows of this view.
    ///
    /// # Panics
    /// When the view has no such rows.
    #[must_use]
    pub fn rows(mut self, rows: Range<usize>) -> Self {
        self.rows = self.absolute(&rows);
        self
    }

    /// Number of rows.
    pub fn row_count(&self) -> usize {
        self.rows.len()
    }

    /// Number of columns.
    pub fn column_count(&self) -> usize {
        self.columns
    }

    /// Name of the element type, as the source spells it.
    pub fn type_name(&self) -> &'static str {
        self.encoding.name()
    }

    /// The elements of some rows where they are stored as bfloat16 and can be used in place; `None` otherwise.
    ///
    /// # Panics
    /// When the view has no such rows.
    pub fn as_bf16(&self, rows: Range<usize>) -> Option<&'a [bf16]> {
        let in_place = (self.encoding, self.order) == (Encoding::Plain(Dtype::Bf16), RowOrder::Decoder);
        if !in_place || cfg!(target_endian = "big") {
            return None;
        }
        bytemuck::try_cast_slice(&self.bytes[self.byte_range(&rows)]).ok()
    }

    /// The elements of this view and of `next` where both are whole tensors, stored as bfloat16 one after the other in one file.
    pub(crate) fn followed_by(&self, next: &Self) -> Option<&'a [bf16]> {
        let (first, second) = (self.as_bf16(0..self.row_count())?, next.as_bf16(0..next.row_count())?);
        let (file, bytes) = (self.file, size_of::<bf16>());
        let start = file.offset_of(bytemuck::cast_slice(first))?;
        let end = start + first.len() * bytes;
        if file.offset_of(bytemuck::cast_slice(second)) != Some(end) {
            return None;
        }
        bytemuck::try_cast_slice(&file.bytes()[start..end + second.len() * bytes]).ok()
    }

    /// Writes the given columns of the given rows to `out`, row by row, rounded to bfloat16.
    ///
    /// # Panics
    /// When the view has no such rows or columns, or `out` is not of their size.
    pub fn convert(&self, rows: Range<usize>, columns: Range<usize>, out: &mut [bf16]) {
        assert!(columns.start <= columns.end && columns.end <= self.columns);
        assert_eq!(out.len(), rows.len() * columns.len());
        if let (Encoding::Plain(dtype), RowOrder::Decoder, true) =
            (self.encoding, self.order, columns == (0..self.columns))
        {
            return dtype.convert_to_bf16(&self.bytes[self.byte_range(&rows)], out);
        }
        if columns.is_empty() {
            return;
        }
        for (row, out) in self.absolute(&rows).zip(out.chunks_exact_mut(columns.len())) {
            self.encoding.convert(self.stored_row(self.order.stored(row)), columns.clone(), out);
        }
    }

    /// Whether the rows are integer codes with scales.
    pub fn has_codes(&self) -> bool {
        matches!(self.encoding, Encoding::Blocks(_))
    }

    /// Reads codes as a layout has them, where that can hold them as they are: from a row and the number of a block of 32 columns.
    pub(crate) fn codes(
        &self,
        quantization: Quantization,
    ) -> Option<impl Fn(usize, usize) -> BlockCodes + Clone + use<'a>> {
        let (view, read) = (self.clone(), self.encoding.codes(quantization)?);
        Some(move |row, block| read(view.stored_row(view.order.stored(view.rows.start + row)), block))
    }

    /// Calls `found` with row and column in the stored tensor, and with the value, of each element in the given rows and
    /// columns that is not a number as a bfloat16, or above `largest` in magnitude.
    ///
    /// # Panics
    /// When the view has no such rows or columns.
    pub(crate) fn for_each_outside(
        &self,
        rows: Range<usize>,
        columns: Range<usize>,
        largest: bf16,
        mut found: impl FnMut((usize, usize), f32),
    ) {
        for row in self.absolute(&rows).map(|row| self.order.stored(row)) {
            self.encoding.for_each(self.stored_row(row), |column, value| {
                if columns.contains(&column) && is_outside(value, largest) {
                    found((row, column), value);
                }
            });
        }
    }

    /// The file that holds it, and the tensor's name there.
    pub(crate) fn name(&self) -> (&'a Path, &'a str) {
        (self.file.path(), self.name)
    }

    /// Asks the system to read some rows ahead of their use.
    ///
    /// # Panics
    /// When the view has no such rows.
    pub fn prefetch(&self, rows: Range<usize>) {
        self.with_file_range(&rows, |range| self.file.prefetch(range));
    }

    /// Gives the memory of some rows back to the system; they may still be read again.
    ///
    /// # Panics
    /// When the view has no such rows.
    pub fn release(&self, rows: Range<usize>) {
        self.with_file_range(&rows, |range| self.file.release(range));
    }

    fn with_file_range(&self, rows: &Range<usize>, act: impl FnOnce(Range<usize>)) {
        let range = self.byte_range(rows);
        if let Some(start) = self.file.offset_of(self.bytes) {
            act(start + range.start..start + range.end);
        }
    }

    /// Bytes of the tensor that hold at least `rows` of the view.
    fn byte_range(&self, rows: &Range<usize>) -> Range<usize> {
        let stored = self.order.covering(&self.absolute(rows));
        let row = self.encoding.row_bytes(self.columns);
        stored.start * row..stored.end * row
    }

    /// Rows of the view, as the tensor's rows.
    fn absolute(&self, rows: &Range<usize>) -> Range<usize> {
        assert!(rows.start <= rows.end && rows.end <= self.row_count());
        self.rows.start + rows.start..self.rows.start + rows.end
    }

    fn stored_row(&self, row: usize) -> &'a [u8] {
        let bytes = self.encoding.row_bytes(self.columns);
        &self.bytes[row * bytes..][..bytes]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_pairs_are_all_rows_of_their_heads() {
        // Rows of a head of 6 elements, by the element that they hold: 0 and 3 rotate together, 1 and 4, 2 and 5.
        let stored = [0, 3, 1, 4, 2, 5];
        let order = RowOrder::NeighbouringPairs { head_size: 6 };
        for row in 0..18 {
            assert_eq!(stored[order.stored(row) % 6], row % 6);
            assert_eq!(order.stored(row) / 6, row / 6);
        }
        assert_eq!(order.covering(&(7..13)), 6..18);
        assert_eq!(RowOrder::Decoder.covering(&(7..13)), 7..13);
    }

    #[test]
    fn runs_are_rows_of_their_groups() {
        // Two queries that share a key, that key, its value, each of two rows; the weight of each stored row.
        let stored = [0, 1, 2, 3, 100, 101, 200, 201, 4, 5, 6, 7, 102, 103, 202, 203];
        for (run, first, weight) in [(4, 0, 0), (2, 4, 100), (2, 6, 200)] {
            let order = RowOrder::Grouped { run, group: 8, first };
            for row in 0..2 * run {
                assert_eq!(stored[order.stored(row)], weight + row);
            }
            assert_eq!(order.covering(&(1..2 * run)), first + 1..8 + first + run);
            assert_eq!(order.covering(&(3..3)), 0..0);
        }
    }
}
