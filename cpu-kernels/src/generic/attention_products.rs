//! The two products of attention, queries by keys and weights by values: what an instruction set brings of its own, and how
//! they are computed in fp32.

use half::bf16;

use crate::packed::PANEL_COLUMNS;
use crate::simd::Simd;
use crate::submatrix::Submatrix;

/// out `[rows, 16 panels]` = a `[rows, 2 pairs]` . b, plus `out` itself if it is accumulated.
///
/// Panels are those of [`crate::packed`].
pub(crate) struct PairProduct<'a, E> {
    /// Row r is `a[r * a_stride..][..2 * pairs]`.
    pub(crate) a: &'a [E],
    pub(crate) a_stride: usize,
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
    let PairProduct { a, a_stride, b, b_stride, pairs, .. } = *product;
    let mut rows: [&[[f32; 2]]; R] = [&[]; R];
    for (r, row) in rows.iter_mut().enumerate() {
        *row = a[(first + r) * a_stride..][..2 * pairs].as_chunks().0;
    }
    let columns = product.out.columns();
    for column in (0..columns).step_by(COLUMNS * S::LANES) {
        // Vectors of 16 lanes are a panel each; the last may be alone.
        if columns - column >= COLUMNS * S::LANES {
            let mut panels: [&[bf16]; COLUMNS] = [&[]; COLUMNS];
            for (v, panel) in panels.iter_mut().enumerate() {
                let column = column + v * S::LANES;
                let start = column / PANEL_COLUMNS * b_stride + 2 * (column % PANEL_COLUMNS);
                *panel = &b[start..];
            }
            columns_product::<S, R, COLUMNS>(s, rows, panels, product, first, column);
        } else {
            columns_product::<S, R, 1>(s, rows, [&b[column / PANEL_COLUMNS * b_stride..]], product, first, column);
        }
    }
}

/// The product of R rows and C vectors of columns.
#[inline(always)]
fn columns_product<S: Simd, const R: usize, const C: usize>(
    s: S,
    rows: [&[[f32; 2]]; R],
    panels: [&[bf16]; C],
    product: &mut PairProduct<'_, f32>,
    first: usize,
    column: usize,
) {
    let mut sums = [[s.splat(0.0); C]; R];
    if product.accumulate {
        for (r, sums) in sums.iter_mut().enumerate() {
            let out = &product.out.row(first + r)[column..];
            for (sum, out) in sums.iter_mut().zip(out.chunks_exact(S::LANES)) {
                *sum = s.load(out);
            }
        }
    }
    // Slices of a known length, so that their bounds are not checked for every pair.
    let pairs = product.pairs;
    let rows = rows.map(|row| &row[..pairs]);
    for pair in 0..pairs {
        let mut b = [[s.splat(0.0); 2]; C];
        for (b, panel) in b.iter_mut().zip(panels) {
            *b = s.load_pairs(&panel[2 * PANEL_COLUMNS * pair..][..2 * S::LANES]);
        }
        for (sums, row) in sums.iter_mut().zip(rows) {
            let [even, odd] = row[pair].map(|x| s.splat(x));
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum = s.fma(odd, b[1], s.fma(even, b[0], *sum));
            }
        }
    }
    for (r, sums) in sums.into_iter().enumerate() {
        let out = &mut product.out.row(first + r)[column..];
        for (sum, out) in sums.into_iter().zip(out.chunks_exact_mut(S::LANES)) {
            s.store(sum, out);
        }
    }
}
