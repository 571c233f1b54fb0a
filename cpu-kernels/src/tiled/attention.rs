//! Attention in tiles: what `generic/attention.rs` computes, with both products in bf16.
//!
//! A block costs each query row 2 `head_dim` x 32 multiply-adds in tiles and 32 exponentials in vectors, and each query
//! tile one pass over the block's values. Keys are copied only where pages or `head_dim` break them up.
//!
//! Keys are walked in blocks of 32, cut at absolute positions, and query rows are taken 16 at a time (32 to a
//! product). For each block
//!
//! ```text
//! s^T = K . q^T        m' = max(m, max s)        p = e^(s - m')
//! l = l e^(m - m') + sum p                       acc = acc e^(m - m') + p . V
//! ```
//!
//! K is read from the pages as it lies, q^T was packed once like a weight, p is rounded to bf16 and transposed, and V
//! is interleaved by pairs of keys. Every tile is full: what is missing is zeros. So a row is computed the same way
//! whatever shares its tile. Where it sees no key of a block, its weights are 0 and m' is m, which leaves all of its
//! state as it was (but for the sign of a zero, so a +0 is added at the end).

#![forbid(unsafe_code)]

use std::ops::Range;

use half::bf16;

use super::tile_unit::{
    B_TILE, PANELS_OF_ONE_TILE, PANELS_OF_TWO_TILES, TILE_ROWS, TileProduct, TileSession, TileUnit,
};
use crate::attention::QueryTile;
use crate::generic::attention::write_quotients;
use crate::generic::exp::exp;
use crate::packed::{K_TILE, PANEL_COLUMNS, pack_panels, padded_k};
use crate::simd::{NARROWED_COLUMNS, NARROWED_ROWS, Simd, Task};
use crate::submatrix::Submatrix;

/// Keys of a block: the rows of one product, and one step of the other.
const KEYS: usize = K_TILE;

/// Query rows of a product.
const ROWS: usize = PANELS_OF_TWO_TILES * PANEL_COLUMNS;

/// Attention of a query tile, with a tile unit and the vectors of any instruction set.
pub(super) struct TiledAttention<'a, U> {
    pub(super) unit: U,
    pub(super) tile: QueryTile<'a>,
}

/// What is known about each query row so far. After the rows that are queries come rows of zeros that fill the last
/// panel.
struct Rows {
    /// Rows that are queries.
    count: usize,
    /// Scaled, rounded, packed: panels of 16 rows.
    queries: Vec<bf16>,
    /// `[rows, width]`
    sums: Vec<f32>,
    /// The largest score.
    largest: Vec<f32>,
    /// The sum of e^(score - largest).
    total: Vec<f32>,
}

/// One block of the cache; zeros where no query looks.
struct KeyBlock {
    /// `[KEYS, depth]`, for keys that cannot be read where they are.
    keys: Vec<bf16>,
    /// For each 16 columns of the values, a B tile.
    values: Vec<bf16>,
}

/// What one product leaves for the next.
struct Scratch {
    /// `[KEYS, rows of the product]`
    scores: [f32; KEYS * ROWS],
    /// `[rows of the product, KEYS]`
    weights: [bf16; ROWS * KEYS],
    /// `[rows of the product, columns of the product]`
    part: [f32; ROWS * ROWS],
}

impl<U: TileUnit> Task for TiledAttention<'_, U> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let TiledAttention { unit, mut tile } = self;
        let head_dim = tile.args.head_dim;
        let (depth, width) = (padded_k(head_dim), head_dim.next_multiple_of(PANEL_COLUMNS));
        let mut rows = Rows::new(&tile, depth, width);
        let mut block = KeyBlock { keys: vec![bf16::ZERO; KEYS * depth], values: vec![bf16::ZERO; KEYS * width] };
        let mut scratch =
            Scratch { scores: [0.0; KEYS * ROWS], weights: [bf16::ZERO; ROWS * KEYS], part: [0.0; ROWS * ROWS] };

        let Range { start, end } = tile.visible_positions();
        let panels = rows.largest.len() / PANEL_COLUMNS;
        let mut session = unit.open();
        for base in (start / KEYS * KEYS..end).step_by(KEYS) {
            let positions = start.max(base)..end.min(base + KEYS);
            interleave_values(&tile, &mut block.values, base, positions.clone());
            let (keys, stride) = contiguous_keys(&tile, &mut block.keys, base, positions, depth);
            for panel in (0..panels).step_by(PANELS_OF_TWO_TILES) {
                let panels = PANELS_OF_TWO_TILES.min(panels - panel);
                let columns = panels * PANEL_COLUMNS;
                session.multiply(TileProduct {
                    a: keys,
                    a_stride: stride,
                    b: &rows.queries[panel * PANEL_COLUMNS * depth..],
                    b_stride: PANEL_COLUMNS * depth,
                    steps: depth / K_TILE,
                    out: Submatrix::new(&mut scratch.scores[..KEYS * columns], KEYS, columns),
                    accumulate: false,
                });
                let mut rescale = [1.0; ROWS];
                for p in 0..panels {
                    let row = (panel + p) * PANEL_COLUMNS;
                    let scores = &mut scratch.scores[p * PANEL_COLUMNS..];
                    let rescale = &mut rescale[p * PANEL_COLUMNS..][..PANEL_COLUMNS];
                    mask_unseen(&tile, rows.count, base, row, scores, columns);
                    softmax_step(s, scores, columns, &mut rows, row, rescale);
                    let weights = scratch.weights.as_chunks_mut::<{ NARROWED_ROWS * NARROWED_COLUMNS }>().0;
                    s.narrow_transposed(scores, columns, &mut weights[p]);
                }
                let row = panel * PANEL_COLUMNS;
                add_weighted_values(s, &mut session, &mut scratch, &block.values, &rescale, &mut rows, row, columns);
            }
        }
        drop(session);
        write_quotients(s, &mut tile, &rows.sums, &rows.total, width);
    }
}

impl Rows {
    fn new(tile: &QueryTile<'_>, depth: usize, width: usize) -> Rows {
        let count = tile.rows();
        let padded = count.next_multiple_of(PANEL_COLUMNS);
        let mut queries = vec![bf16::ZERO; padded * depth];
        pack_panels(&tile.scaled_queries(bf16::from_f32), tile.args.head_dim, &mut queries);
        Rows {
            count,
            queries,
            sums: vec![0.0; padded * width],
            largest: vec![f32::NEG_INFINITY; padded],
            total: vec![0.0; padded],
        }
    }
}

/// The keys of the block at `base`, zeros but for `positions`, and how many elements they are apart: the page
/// itself where it holds them all, otherwise `copy`.
fn contiguous_keys<'a>(
    tile: &'a QueryTile<'_>,
    copy: &'a mut [bf16],
    base: usize,
    positions: Range<usize>,
    depth: usize,
) -> (&'a [bf16], usize) {
    let args = &tile.args;
    let d = args.head_dim;
    if positions.len() == KEYS && d == depth && base % args.tokens_per_block + KEYS <= args.tokens_per_block {
        return (&args.keys[tile.cache_offset(base)..][..KEYS * d], d);
    }
    for (row, position) in copy.chunks_exact_mut(depth).zip(base..) {
        if positions.contains(&position) {
            row[..d].copy_from_slice(&args.keys[tile.cache_offset(position)..][..d]);
        } else {
            row.fill(bf16::ZERO);
        }
    }
    (copy, depth)
}

/// Makes B tiles of the values of `positions`, all in the block at `base`, and of zeros for its other keys.
#[inline(always)]
fn interleave_values(tile: &QueryTile<'_>, out: &mut [bf16], base: usize, positions: Range<usize>) {
    let args = &tile.args;
    let value = |position| match positions.contains(&position) {
        true => &args.values[tile.cache_offset(position)..][..args.head_dim],
        false => &[],
    };
    for pair in 0..KEYS / 2 {
        let (even, odd) = (value(base + 2 * pair), value(base + 2 * pair + 1));
        for (b_tile, column) in out.chunks_exact_mut(B_TILE).zip((0..).step_by(PANEL_COLUMNS)) {
            let slots = &mut b_tile[pair * 2 * PANEL_COLUMNS..][..2 * PANEL_COLUMNS];
            let (even, odd) = (panel_columns(even, column), panel_columns(odd, column));
            for (slot, (even, odd)) in slots.as_chunks_mut::<2>().0.iter_mut().zip(even.iter().zip(&odd)) {
                *slot = [*even, *odd];
            }
        }
    }
}

/// Puts minus infinity for the keys that a row of the panel at `first` does not see.
#[inline(always)]
fn mask_unseen(tile: &QueryTile<'_>, count: usize, base: usize, first: usize, scores: &mut [f32], stride: usize) {
    for row in first..count.min(first + PANEL_COLUMNS) {
        let Range { start, end } = tile.visible_to(row, base, KEYS);
        for key in (0..start).chain(end..KEYS) {
            scores[key * stride + row - first] = f32::NEG_INFINITY;
        }
    }
}

/// 16 elements from `column` on; zeros where there are none.
#[inline(always)]
fn panel_columns(row: &[bf16], column: usize) -> [bf16; PANEL_COLUMNS] {
    let rest = row.get(column..).unwrap_or_default();
    if let Some(full) = rest.first_chunk() {
        return *full;
    }
    let mut some = [bf16::ZERO; PANEL_COLUMNS];
    some[..rest.len()].copy_from_slice(rest);
    some
}

/// Turns the scores of 16 rows into weights, a column being a row, and updates each row's largest score and total.
/// Writes to `rescale` what earlier sums must be multiplied by.
#[inline(always)]
fn softmax_step<S: Simd>(s: S, scores: &mut [f32], stride: usize, rows: &mut Rows, row: usize, rescale: &mut [f32]) {
    debug_assert!(stride >= PANEL_COLUMNS && scores.len() >= (KEYS - 1) * stride + PANEL_COLUMNS);
    let (largest, total) = (&mut rows.largest[row..], &mut rows.total[row..]);
    for lane in (0..PANEL_COLUMNS).step_by(S::LANES) {
        let lanes = lane..lane + S::LANES;
        let before = s.load(&largest[lanes.clone()]);
        let mut best = before;
        for key in 0..KEYS {
            best = s.max(s.load(&scores[key * stride + lane..][..S::LANES]), best);
        }
        s.store(best, &mut largest[lanes.clone()]);
        // Where nothing was seen yet, the largest score is minus infinity, which would give infinity - infinity.
        let finite = s.max(best, s.splat(f32::MIN));
        let mut sum = s.splat(0.0);
        for key in 0..KEYS {
            let score = &mut scores[key * stride + lane..][..S::LANES];
            let weight = exp(s, s.sub(s.load(score), finite));
            sum = s.add(sum, weight);
            s.store(weight, score);
        }
        let factor = exp(s, s.sub(before, finite));
        s.store(factor, &mut rescale[lanes.clone()]);
        s.store(s.fma(s.load(&total[lanes.clone()]), factor, sum), &mut total[lanes]);
    }
}

/// sums `[count, width]` = sums * rescale + weights `[count, KEYS]` . values, for `count` rows from `row` on.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "every one is another thing, and this has one caller")]
fn add_weighted_values<S: Simd, T: TileSession>(
    s: S,
    session: &mut T,
    scratch: &mut Scratch,
    values: &[bf16],
    rescale: &[f32; ROWS],
    rows: &mut Rows,
    row: usize,
    count: usize,
) {
    let width = values.len() / KEYS;
    let panels_at_once = if count > TILE_ROWS { PANELS_OF_TWO_TILES } else { PANELS_OF_ONE_TILE };
    for (values, column) in values.chunks(panels_at_once * B_TILE).zip((0..).step_by(panels_at_once * PANEL_COLUMNS)) {
        let columns = values.len() / KEYS;
        let part = &mut scratch.part[..count * columns];
        session.multiply(TileProduct {
            a: &scratch.weights,
            a_stride: KEYS,
            b: values,
            b_stride: B_TILE,
            steps: 1,
            out: Submatrix::new(part, count, columns),
            accumulate: false,
        });
        // The rows that only fill a tile are left alone.
        let queries = count.min(rows.count - row);
        for ((part, factor), r) in part.chunks_exact(columns).zip(rescale).zip(row..row + queries) {
            let sums = &mut rows.sums[r * width + column..][..columns];
            for (sum, part) in sums.chunks_exact_mut(S::LANES).zip(part.chunks_exact(S::LANES)) {
                s.store(s.fma(s.load(sum), s.splat(*factor), s.load(part)), sum);
            }
        }
    }
}
