//! Rectangles of one row-major matrix, handed to several threads at once.
//!
//! Nothing is copied: a [`Submatrix`] is a pointer, two sizes and a stride, and splitting one takes constant time.

use std::marker::PhantomData;

/// A rectangle of a row-major matrix that nothing else can touch while this exists.
///
/// Invariant: the elements of all `rows` x `columns` lie in the slice that [`Submatrix::new`] borrowed, row r from
/// `r * stride` elements after `first` on, and belong to no other submatrix.
///
/// What `split_at_mut` is to a slice, [`Submatrix::split_rows`] and [`Submatrix::split_columns`] are to this.
pub(crate) struct Submatrix<'a, T> {
    first: *mut T,
    rows: usize,
    columns: usize,
    stride: usize,
    matrix: PhantomData<&'a mut [T]>,
}

// SAFETY: a submatrix is a unique borrow of its elements (the constructor takes `&mut`, and splitting gives disjoint
// parts), so sending it is sending `&mut [T]`.
unsafe impl<T: Send> Send for Submatrix<'_, T> {}

impl<'a, T> Submatrix<'a, T> {
    /// The whole of `matrix` `[rows, columns]`.
    ///
    /// # Panics
    /// If the length is another.
    pub(crate) fn new(matrix: &'a mut [T], rows: usize, columns: usize) -> Self {
        assert_eq!(Some(matrix.len()), rows.checked_mul(columns), "matrix must be {rows} x {columns}");
        Submatrix { first: matrix.as_mut_ptr(), rows, columns, stride: columns, matrix: PhantomData }
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Row `row` of this rectangle: `columns` elements.
    #[inline(always)]
    pub(crate) fn row(&mut self, row: usize) -> &mut [T] {
        assert!(row < self.rows, "row {row} of {}", self.rows);
        // SAFETY: `first` starts a rectangle inside the slice that `new` was given, by the assertion there and
        // since splits only shrink it; the row is below `rows`. `&mut self` makes the borrow unique within this
        // submatrix, and submatrices do not overlap.
        unsafe { std::slice::from_raw_parts_mut(self.first.add(row * self.stride), self.columns) }
    }

    /// Elements from one row to the next.
    pub(crate) fn stride(&self) -> usize {
        self.stride
    }

    /// The first element; row r begins `r * stride` after it.
    pub(crate) fn as_mut_ptr(&mut self) -> *mut T {
        self.first
    }

    /// `rows` rows from `row` on, of these the columns `column..column + columns`.
    pub(crate) fn part(&mut self, row: usize, rows: usize, column: usize, columns: usize) -> Submatrix<'_, T> {
        assert!(row < self.rows && rows <= self.rows - row, "rows {row}.. of {}", self.rows);
        assert!(column < self.columns && columns <= self.columns - column, "columns {column}.. of {}", self.columns);
        // SAFETY: row and column exist, so their element lies in the rectangle.
        let first = unsafe { self.first.add(row * self.stride + column) };
        Submatrix { first, rows, columns, stride: self.stride, matrix: PhantomData }
    }

    /// Rows `..at` and rows `at..`; `at` is clamped to the number of rows.
    pub(crate) fn split_rows(self, at: usize) -> (Self, Self) {
        let at = at.min(self.rows);
        // Where no row is left below, the pointer is not moved: the matrix may end before a whole stride.
        let offset = if at < self.rows { at * self.stride } else { 0 };
        // SAFETY: row `at` exists wherever the offset is not zero, so the pointer stays inside the matrix.
        let below = unsafe { self.first.add(offset) };
        (Submatrix { rows: at, ..self }, Submatrix { first: below, rows: self.rows - at, ..self })
    }

    /// Columns `..at` and columns `at..`; `at` is clamped to the number of columns.
    pub(crate) fn split_columns(self, at: usize) -> (Self, Self) {
        let at = at.min(self.columns);
        let offset = if self.rows > 0 { at } else { 0 };
        // SAFETY: with at least one row, `first + at` is inside that row or one past its end, hence inside the
        // matrix or one past it.
        let right = unsafe { self.first.add(offset) };
        (Submatrix { columns: at, ..self }, Submatrix { first: right, columns: self.columns - at, ..self })
    }

    /// Cuts into parts of `rows` x `columns` (fewer at the edges), left to right, then top to bottom.
    ///
    /// # Panics
    /// If a step is zero.
    pub(crate) fn grid(self, rows: usize, columns: usize) -> Vec<Self> {
        assert!(rows > 0 && columns > 0, "a grid needs a step");
        let mut parts = Vec::new();
        let mut below = self;
        while below.rows > 0 {
            let (mut right, rest) = below.split_rows(rows);
            below = rest;
            while right.columns > 0 {
                let (left, rest) = right.split_columns(columns);
                parts.push(left);
                right = rest;
            }
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_covers_every_element_once() {
        for (rows, columns, down, across) in [(1, 1, 1, 1), (5, 7, 2, 3), (4, 16, 4, 5), (3, 2, 9, 9), (0, 4, 1, 1)] {
            let mut matrix = vec![0_u32; rows * columns];
            let parts = Submatrix::new(&mut matrix, rows, columns).grid(down, across);
            assert_eq!(parts.len(), usize::div_ceil(rows, down) * usize::div_ceil(columns, across));
            for (index, mut part) in parts.into_iter().enumerate() {
                for row in 0..part.rows() {
                    part.row(row).iter_mut().for_each(|x| *x += 1 + index as u32);
                }
            }
            let across_count = usize::div_ceil(columns, across);
            for (i, x) in matrix.iter().enumerate() {
                let (row, column) = (i / columns, i % columns);
                assert_eq!(*x as usize, 1 + row / down * across_count + column / across);
            }
        }
    }
}
