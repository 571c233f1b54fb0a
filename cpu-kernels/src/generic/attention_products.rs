//! The two products of attention, queries by keys and weights by values: what an instruction set brings of its own, and how
//! they are computed in fp32.

use half::bf16;

use crate::packed::PANEL_COLUMNS;
use crate::simd::Simd;
use crate::submatrix::Submatrix;

/// k of a slice.
pub(crate) const SLICE: usize = 32;

/// Rows of k elements in slices: `[slices, rows, 32]`, zeros at the end. So rows that are multiplied together lie together.
#[derive(Clone, Copy)]
pub(crate) struct Slices<'a, E> {
    /// Begins at the first row that is meant.
    pub(crate) elements: &'a [[E; SLICE]],
    /// From a row to the same row of the next slice.
    pub(crate) stride: usize,
}

/// out `[rows, 16 panels]` = a `[rows, 2 pairs]` . b, plus `out` itself if it is accumulated.
///
/// Panels are those of [`crate::packed`].
pub(crate) struct PairProduct<'a, E> {
    pub(crate) a: Slices<'a, E>,
    /// Panel p is `b[p * b_stride..][..32 * pairs]`.
    pub(crate) b: &'a [bf16],
    pub(crate) b_stride: usize,
    pub(crate) pairs: usize,
    pub(crate) out: Submatrix<'a, f32>,
    pub(crate) accumulate: bool,
}

/// How products are computed: an element's bits do not depend on the rows and panels that come with it.
pub(crate) trait Products {
    /// What queries and weights are rounded to.
    type Element: Copy;
    /// Zero.
    const ZERO: Self::Element;
    /// Query rows to give at a time, at most 32.
    const ROWS: usize;

    /// Elements of a query row, `head_dim` and zeros.
    fn depth(head_dim: usize) -> usize;
    /// Rounds a number.
    fn element(x: f32) -> Self::Element;
    /// Rounds a vector and writes it to `out`, which is as long.
    fn store<S: Simd>(s: S, v: S::Vector, out: &mut [Self::Element]);
    /// Computes a product of at most [`Self::ROWS`] rows.
    ///
    /// # Panics
    /// If an operand ends too early.
    fn multiply<S: Simd>(&mut self, s: S, product: PairProduct<'_, Self::Element>);
}

/// Products in fp32 with the vectors of any instruction set: even then odd elements of every pair are added, in their
/// order, to one running sum.
#[derive(Clone, Copy)]
pub(crate) struct Fp32;

/// Vectors of the output taken at a time.
const COLUMNS: usize = 2;

impl Products for Fp32 {
    type Element = f32;
    const ZERO: f32 = 0.0;
    const ROWS: usize = 24;

    fn depth(head_dim: usize) -> usize {
        head_dim
    }

    #[inline(always)]
    fn element(x: f32) -> f32 {
        x
    }

    #[inline(always)]
    fn store<S: Simd>(s: S, v: S::Vector, out: &mut [f32]) {
        s.store(v, out);
    }

    #[inline(always)]
    fn multiply<S: Simd>(&mut self, s: S, mut product: PairProduct<'_, f32>) {
        // With 32 registers, 16 sums stand beside the panels; with 16, eight do. Either hides the latency.
        let at_once = if S::LANES == 16 { 8 } else { 4 };
        let rows = product.out.rows();
        let mut first = 0;
        while first < rows {
            let count = at_once.min(rows - first);
            match count {
                1 => rows_product::<S, 1>(s, &mut product, first),
                2 => rows_product::<S, 2>(s, &mut product, first),
                3 => rows_product::<S, 3>(s, &mut product, first),
                4 => rows_product::<S, 4>(s, &mut product, first),
                5 => rows_product::<S, 5>(s, &mut product, first),
                6 => rows_product::<S, 6>(s, &mut product, first),
                7 => rows_product::<S, 7>(s, &mut product, first),
                _ => rows_product::<S, 8>(s, &mut product, first),
            }
            first += count;
        }
    }
}

/// The product of rows `first..first + R`.
#[inline(always)]
fn rows_product<S: Simd, const R: usize>(s: S, product: &mut PairProduct<'_, f32>, first: usize) {
    let columns = product.out.columns();
    let mut column = 0;
    // Vectors of 16 lanes are a panel each, and the last may be alone.
    while columns - column >= COLUMNS * S::LANES {
        columns_product::<S, R, COLUMNS>(s, product, first, column);
        column += COLUMNS * S::LANES;
    }
    if column < columns {
        columns_product::<S, R, 1>(s, product, first, column);
    }
}

/// The product of R rows and C vectors of columns. In the innermost loop nothing is checked, so the sums stay in registers.
#[inline(always)]
fn columns_product<S: Simd, const R: usize, const C: usize>(
    s: S,
    product: &mut PairProduct<'_, f32>,
    first: usize,
    column: usize,
) {
    let PairProduct { a, b, b_stride, pairs, .. } = *product;
    let panels: [&[[bf16; 2 * PANEL_COLUMNS]]; C] = std::array::from_fn(|c| {
        let panel = (column + c * S::LANES) / PANEL_COLUMNS;
        b[panel * b_stride..][..2 * PANEL_COLUMNS * pairs].as_chunks().0
    });
    let mut sums = [[s.splat(0.0); C]; R];
    if product.accumulate {
        for (r, sums) in sums.iter_mut().enumerate() {
            let out = &product.out.row(first + r)[column..][..C * S::LANES];
            for (c, sum) in sums.iter_mut().enumerate() {
                *sum = s.load(&out[c * S::LANES..][..S::LANES]);
            }
        }
    }
    for slice in 0..pairs.div_ceil(SLICE / 2) {
        let Some(rows) = a.elements[slice * a.stride + first..].first_chunk::<R>() else { return };
        let pairs = slice * (SLICE / 2)..pairs.min((slice + 1) * (SLICE / 2));
        let panels = panels.map(|panel| &panel[pairs.clone()]);
        for pair in 0..pairs.len().min(SLICE / 2) {
            let b: [[S::Vector; 2]; C] = std::array::from_fn(|c| {
                let half = 2 * (c * S::LANES % PANEL_COLUMNS);
                s.load_pairs(&panels[c][pair][half..][..2 * S::LANES])
            });
            for (sums, row) in sums.iter_mut().zip(rows) {
                let [even, odd] = [s.splat(row[2 * pair]), s.splat(row[2 * pair + 1])];
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum = s.fma(odd, b[1], s.fma(even, b[0], *sum));
                }
            }
        }
    }
    for (r, sums) in sums.into_iter().enumerate() {
        let out = &mut product.out.row(first + r)[column..][..C * S::LANES];
        for (c, sum) in sums.into_iter().enumerate() {
            s.store(sum, &mut out[c * S::LANES..][..S::LANES]);
        }
    }
}
