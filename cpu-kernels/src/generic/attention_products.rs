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
    /// What is read next, laid out as `b`: it is fetched meanwhile. `b` itself where nothing is.
    pub(crate) next: &'a [bf16],
    pub(crate) pairs: usize,
    pub(crate) out: Submatrix<'a, f32>,
    pub(crate) accumulate: bool,
}

/// How products are computed: an element's bits do not depend on the rows and panels that come with it.
pub(crate) trait Products {
    /// What queries are rounded to.
    type Query: Copy + Default;
    /// What weights are rounded to.
    type Weight: Copy + Default;
    /// Numbers that stand for an element of a query: it is their sum.
    const QUERY_PARTS: usize;
    /// Query rows to give at a time, at most 32.
    const ROWS: usize;

    /// Elements of a query row, `head_dim` and zeros.
    fn depth(head_dim: usize) -> usize;
    /// One of the parts of an element of a query.
    fn query(x: f32, part: usize) -> Self::Query;
    /// Rounds a vector of weights and writes it to `out`, which is as long.
    fn store_weights<S: Simd>(s: S, v: S::Vector, out: &mut [Self::Weight]);
    /// Multiplies at most [`Self::ROWS`] queries by keys.
    ///
    /// # Panics
    /// If an operand ends too early.
    fn multiply_keys<S: Simd>(&mut self, s: S, product: PairProduct<'_, Self::Query>);
    /// Multiplies weights of at most [`Self::ROWS`] rows and one slice by values.
    ///
    /// # Panics
    /// As [`Self::multiply_keys`].
    fn multiply_values<S: Simd>(&mut self, s: S, product: PairProduct<'_, Self::Weight>);
}

/// Products in fp32 with the vectors of any instruction set.
#[derive(Clone, Copy)]
pub(crate) struct Fp32;

impl Products for Fp32 {
    type Query = f32;
    type Weight = f32;
    const QUERY_PARTS: usize = 1;
    const ROWS: usize = 24;

    fn depth(head_dim: usize) -> usize {
        head_dim
    }

    #[inline(always)]
    fn query(x: f32, _: usize) -> f32 {
        x
    }

    #[inline(always)]
    fn store_weights<S: Simd>(s: S, v: S::Vector, out: &mut [f32]) {
        s.store(v, out);
    }

    #[inline(always)]
    fn multiply_keys<S: Simd>(&mut self, s: S, product: PairProduct<'_, f32>) {
        multiply_fp32(s, product);
    }

    #[inline(always)]
    fn multiply_values<S: Simd>(&mut self, s: S, product: PairProduct<'_, f32>) {
        multiply_fp32(s, product);
    }
}

/// Vectors of the output taken at a time.
const COLUMNS: usize = 2;

/// A product in fp32: even then odd elements of every pair are added, in their order, to one running sum.
#[inline(always)]
pub(crate) fn multiply_fp32<S: Simd>(s: S, mut product: PairProduct<'_, f32>) {
    // With 32 registers, 16 sums stand beside the panels; with 16, eight do. Either hides the latency.
    let at_once = if S::LANES == 16 { 8 } else { 4 };
    let rows = product.out.rows();
    let mut first = 0;
    while first < rows {
        let left = rows - first;
        let count = if left >= at_once { at_once } else { left.min(4) };
        match count {
            1 => rows_product::<S, 1>(s, &mut product, first),
            2 => rows_product::<S, 2>(s, &mut product, first),
            3 => rows_product::<S, 3>(s, &mut product, first),
            4 => rows_product::<S, 4>(s, &mut product, first),
            _ => rows_product::<S, 8>(s, &mut product, first),
        }
        first += count;
    }
}

/// The product of rows `first..first + R`.
#[inline(always)]
fn rows_product<S: Simd, const R: usize>(s: S, product: &mut PairProduct<'_, f32>, first: usize) {
    let columns = product.out.columns();
    let mut column = 0;
    while columns - column >= COLUMNS * S::LANES {
        columns_product::<S, R, COLUMNS>(s, product, first, column);
        column += COLUMNS * S::LANES;
    }
    // Vectors of 16 lanes are a panel each, and the last may be alone.
    if S::LANES == PANEL_COLUMNS && column < columns {
        columns_product::<S, R, 1>(s, product, first, column);
    }
}

/// Pairs of a slice.
pub(crate) const PAIRS: usize = SLICE / 2;

/// A pair of k of a panel.
pub(crate) type Pair = [bf16; 2 * PANEL_COLUMNS];

/// A panel of b: whole slices, and the pairs that are left.
type Panel<'a> = (&'a [[Pair; PAIRS]], &'a [Pair]);

/// So few rows use what they read faster than memory delivers it.
const FEW_ROWS: usize = 4;

/// The product of R rows and C vectors of columns. Loops stand where closures would not be inlined.
#[inline(always)]
fn columns_product<S: Simd, const R: usize, const C: usize>(
    s: S,
    product: &mut PairProduct<'_, f32>,
    first: usize,
    column: usize,
) {
    let PairProduct { a, b, b_stride, next, pairs, .. } = *product;
    let mut panels: [[Panel<'_>; C]; 2] = [[(&[], &[]); C]; 2];
    for (panels, b) in panels.iter_mut().zip([b, next]) {
        for (c, panel) in panels.iter_mut().enumerate() {
            let start = (column + c * S::LANES) / PANEL_COLUMNS * b_stride;
            *panel = b[start..][..2 * PANEL_COLUMNS * pairs].as_chunks().0.as_chunks();
        }
    }
    let [panels, next] = panels;
    let mut sums = [[s.splat(0.0); C]; R];
    if product.accumulate {
        for (r, sums) in sums.iter_mut().enumerate() {
            let out = &product.out.row(first + r)[column..][..C * S::LANES];
            for (c, sum) in sums.iter_mut().enumerate() {
                *sum = s.load(&out[c * S::LANES..][..S::LANES]);
            }
        }
    }
    for slice in 0..pairs / PAIRS {
        let rows = &a.elements[slice * a.stride + first..].as_chunks::<R>().0[0];
        let mut chunks = [[&panels[0].0[slice]; C]; 2];
        for c in 0..C {
            chunks[0][c] = &panels[c].0[slice];
            chunks[1][c] = &next[c].0[slice];
        }
        for pair in 0..PAIRS {
            let mut b = [&panels[0].0[slice][pair]; C];
            for (b, chunk) in b.iter_mut().zip(chunks[0]) {
                *b = &chunk[pair];
            }
            if R <= FEW_ROWS {
                for chunk in chunks[1].iter().step_by((PANEL_COLUMNS / S::LANES).max(1)) {
                    s.prefetch(&chunk[pair]);
                }
            }
            add_pair(s, rows, pair, b, &mut sums);
        }
    }
    let slice = pairs / PAIRS;
    for pair in 0..pairs % PAIRS {
        let rows = &a.elements[slice * a.stride + first..].as_chunks::<R>().0[0];
        let mut b = [&panels[0].1[pair]; C];
        for (b, panel) in b.iter_mut().zip(panels) {
            *b = &panel.1[pair];
        }
        add_pair(s, rows, pair, b, &mut sums);
    }
    for (r, sums) in sums.into_iter().enumerate() {
        let out = &mut product.out.row(first + r)[column..][..C * S::LANES];
        for (c, sum) in sums.into_iter().enumerate() {
            s.store(sum, &mut out[c * S::LANES..][..S::LANES]);
        }
    }
}

/// Adds the products of a pair of k of a slice.
#[inline(always)]
fn add_pair<S: Simd, const R: usize, const C: usize>(
    s: S,
    rows: &[[f32; SLICE]; R],
    pair: usize,
    b: [&Pair; C],
    sums: &mut [[S::Vector; C]; R],
) {
    let mut wide = [[s.splat(0.0); 2]; C];
    for (c, wide) in wide.iter_mut().enumerate() {
        let half = 2 * (c * S::LANES % PANEL_COLUMNS);
        *wide = s.load_pairs(&b[c][half..][..2 * S::LANES]);
    }
    for (sums, row) in sums.iter_mut().zip(rows) {
        let [even, odd] = [s.splat(row[2 * pair]), s.splat(row[2 * pair + 1])];
        for (sum, wide) in sums.iter_mut().zip(wide) {
            *sum = s.fma(odd, wide[1], s.fma(even, wide[0], *sum));
        }
    }
}
