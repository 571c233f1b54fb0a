//! Attention in tiles: what `generic/attention.rs` computes, with both products in bf16.
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

use super::unit::{B_TILE, PANELS_OF_FEW, PANELS_OF_MANY, Product, TILE_ROWS, TileSession, TileUnit};
use crate::generic::attention::QueryTile;
use crate::generic::exp::exp;
use crate::packed::{K_TILE, PANEL_COLUMNS, pack_panels, padded_k};
use crate::simd::{Simd, Task, WOVEN_COLUMNS, WOVEN_ROWS};
use crate::tile::Tile;

/// Keys of a block: the rows of one product, and one step of the other.
const KEYS: usize = K_TILE;

/// Query rows of a product.
const ROWS: usize = PANELS_OF_MANY * PANEL_COLUMNS;

/// Some queries that share a KV head, and the unit to compute them with.
pub(super) struct Tiles<'a, U> {
    pub(super) unit: U,
    pub(super) queries: QueryTile<'a>,
}

/// What is known about each query row so far. Rows are tokens times heads of the group, token by token, and enough
/// of nothing to fill the last panel.
struct Rows {
    /// Rows that are queries.
    count: usize,
    /// Query heads that share the KV head.
    group: usize,
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
struct Block {
    /// The position of the first key.
    base: usize,
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

impl<U: TileUnit> Task for Tiles<'_, U> {
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let head_dim = self.queries.args.head_dim;
        let (depth, width) = (padded_k(head_dim), head_dim.next_multiple_of(PANEL_COLUMNS));
        let mut rows = self.rows(depth, width);
        let mut block = Block { base: 0, keys: vec![bf16::ZERO; KEYS * depth], values: vec![bf16::ZERO; KEYS * width] };
        let mut scratch =
            Scratch { scores: [0.0; KEYS * ROWS], weights: [bf16::ZERO; ROWS * KEYS], part: [0.0; ROWS * ROWS] };

        let QueryTile { args, start, .. } = self.queries;
        let (first, end) = (args.first_visible(start), start + self.queries.out.rows());
        let panels = rows.largest.len() / PANEL_COLUMNS;
        let mut session = self.unit.open();
        for base in (first / KEYS * KEYS..end).step_by(KEYS) {
            block.base = base;
            let positions = first.max(base)..end.min(base + KEYS);
            self.interleave(&mut block.values, base, positions.clone());
            let (keys, stride) = self.keys(&mut block.keys, base, positions, depth);
            for panel in (0..panels).step_by(PANELS_OF_MANY) {
                let panels = PANELS_OF_MANY.min(panels - panel);
                let columns = panels * PANEL_COLUMNS;
                session.multiply(Product {
                    a: keys,
                    a_stride: stride,
                    b: &rows.queries[panel * PANEL_COLUMNS * depth..],
                    b_stride: PANEL_COLUMNS * depth,
                    steps: depth / K_TILE,
                    out: Tile::new(&mut scratch.scores[..KEYS * columns], KEYS, columns),
                    accumulate: false,
                });
                let mut fade = [1.0; ROWS];
                for p in 0..panels {
                    let row = (panel + p) * PANEL_COLUMNS;
                    let scores = &mut scratch.scores[p * PANEL_COLUMNS..];
                    let fade = &mut fade[p * PANEL_COLUMNS..][..PANEL_COLUMNS];
                    self.hide(&rows, base, row, scores, columns);
                    soften(s, scores, columns, &mut rows, row, fade);
                    let weights = scratch.weights.as_chunks_mut::<{ WOVEN_ROWS * WOVEN_COLUMNS }>().0;
                    s.weave(scores, columns, &mut weights[p]);
                }
                gather(s, &mut session, &mut scratch, &block.values, &fade, &mut rows, panel * PANEL_COLUMNS, columns);
            }
        }
        drop(session);
        self.finish(s, &rows, width);
    }
}

impl<U> Tiles<'_, U> {
    fn rows(&self, depth: usize, width: usize) -> Rows {
        let QueryTile { args, token, kv_head, ref out, .. } = self.queries;
        let group = args.heads / args.kv_heads;
        let (stride, share) = (args.heads * args.head_dim, group * args.head_dim);
        let mut queries = Vec::with_capacity(out.rows() * share);
        for token in args.q[token * stride..].chunks_exact(stride).take(out.rows()) {
            queries.extend(token[kv_head * share..][..share].iter().map(|q| bf16::from_f32(q * args.scale)));
        }
        let count = out.rows() * group;
        let padded = count.next_multiple_of(PANEL_COLUMNS);
        let mut packed = vec![bf16::ZERO; padded * depth];
        pack_panels(&queries, args.head_dim, &mut packed);
        Rows {
            count,
            group,
            queries: packed,
            sums: vec![0.0; padded * width],
            largest: vec![f32::NEG_INFINITY; padded],
            total: vec![0.0; padded],
        }
    }

    /// Where the key or value of a position begins.
    fn at(&self, position: usize) -> usize {
        let QueryTile { args, blocks, kv_head, .. } = self.queries;
        let page = blocks[position / args.tokens_per_block] as usize;
        let slot = position % args.tokens_per_block;
        ((page * args.kv_heads + kv_head) * args.tokens_per_block + slot) * args.head_dim
    }

    /// The keys of the block at `base`, zeros but for `positions`, and how many elements they are apart: the page
    /// itself where it holds them all, otherwise `copy`.
    fn keys<'a>(
        &'a self,
        copy: &'a mut [bf16],
        base: usize,
        positions: Range<usize>,
        depth: usize,
    ) -> (&'a [bf16], usize) {
        let args = &self.queries.args;
        let d = args.head_dim;
        if positions.len() == KEYS && d == depth && base % args.tokens_per_block + KEYS <= args.tokens_per_block {
            return (&args.keys[self.at(base)..][..KEYS * d], d);
        }
        for (row, position) in copy.chunks_exact_mut(depth).zip(base..) {
            if positions.contains(&position) {
                row[..d].copy_from_slice(&args.keys[self.at(position)..][..d]);
            } else {
                row.fill(bf16::ZERO);
            }
        }
        (copy, depth)
    }

    /// Makes B tiles of the values of `positions`, all in the block at `base`, and of zeros for its other keys.
    #[inline(always)]
    fn interleave(&self, out: &mut [bf16], base: usize, positions: Range<usize>) {
        let args = &self.queries.args;
        let row = |position| match positions.contains(&position) {
            true => &args.values[self.at(position)..][..args.head_dim],
            false => &[],
        };
        for pair in 0..KEYS / 2 {
            let (even, odd) = (row(base + 2 * pair), row(base + 2 * pair + 1));
            for (tile, column) in out.chunks_exact_mut(B_TILE).zip((0..).step_by(PANEL_COLUMNS)) {
                let slots = &mut tile[pair * 2 * PANEL_COLUMNS..][..2 * PANEL_COLUMNS];
                let (even, odd) = (columns(even, column), columns(odd, column));
                for (slot, (even, odd)) in slots.as_chunks_mut::<2>().0.iter_mut().zip(even.iter().zip(&odd)) {
                    *slot = [*even, *odd];
                }
            }
        }
    }

    /// Puts minus infinity for the keys that a row of the panel at `first` does not see.
    #[inline(always)]
    fn hide(&self, rows: &Rows, base: usize, first: usize, scores: &mut [f32], stride: usize) {
        for row in first..rows.count.min(first + PANEL_COLUMNS) {
            let position = self.queries.start + row / rows.group;
            let end = (position + 1).saturating_sub(base).min(KEYS);
            let begin = self.queries.args.first_visible(position).saturating_sub(base).min(end);
            for key in (0..begin).chain(end..KEYS) {
                scores[key * stride + row - first] = f32::NEG_INFINITY;
            }
        }
    }

    #[inline(always)]
    fn finish<S: Simd>(&mut self, s: S, rows: &Rows, width: usize) {
        let head_dim = self.queries.args.head_dim;
        for token in 0..self.queries.out.rows() {
            for (head, out) in self.queries.out.row(token).chunks_exact_mut(head_dim).enumerate() {
                let row = token * rows.group + head;
                let total = s.splat(rows.total[row]);
                let sums = &rows.sums[row * width..][..head_dim];
                for (sum, out) in sums.chunks(S::LANES).zip(out.chunks_mut(S::LANES)) {
                    s.store_bf16(s.div(s.add(s.load(sum), s.splat(0.0)), total), out);
                }
            }
        }
    }
}

/// 16 elements from `column` on; zeros where there are none.
#[inline(always)]
fn columns(row: &[bf16], column: usize) -> [bf16; PANEL_COLUMNS] {
    let rest = row.get(column..).unwrap_or_default();
    if let Some(full) = rest.first_chunk() {
        return *full;
    }
    let mut some = [bf16::ZERO; PANEL_COLUMNS];
    some[..rest.len()].copy_from_slice(rest);
    some
}

/// Turns the scores of 16 rows into weights, a column being a row, and updates each row's largest score and total.
/// Writes to `fade` what earlier sums must be multiplied by.
#[inline(always)]
fn soften<S: Simd>(s: S, scores: &mut [f32], stride: usize, rows: &mut Rows, row: usize, fade: &mut [f32]) {
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
        let best = s.max(best, s.splat(f32::MIN));
        let mut sum = s.splat(0.0);
        for key in 0..KEYS {
            let score = &mut scores[key * stride + lane..][..S::LANES];
            let weight = exp(s, s.sub(s.load(score), best));
            sum = s.add(sum, weight);
            s.store(weight, score);
        }
        let faded = exp(s, s.sub(before, best));
        s.store(faded, &mut fade[lanes.clone()]);
        s.store(s.fma(s.load(&total[lanes.clone()]), faded, sum), &mut total[lanes]);
    }
}

/// sums `[count, width]` = sums fade + weights `[count, KEYS]` . values, for `count` rows from `row` on.
#[inline(always)]
#[expect(clippy::too_many_arguments, reason = "every one is another thing, and this has one caller")]
fn gather<S: Simd, T: TileSession>(
    s: S,
    session: &mut T,
    scratch: &mut Scratch,
    values: &[bf16],
    fade: &[f32; ROWS],
    rows: &mut Rows,
    row: usize,
    count: usize,
) {
    let width = values.len() / KEYS;
    let across = if count > TILE_ROWS { PANELS_OF_MANY } else { PANELS_OF_FEW };
    for (values, column) in values.chunks(across * B_TILE).zip((0..).step_by(across * PANEL_COLUMNS)) {
        let columns = values.len() / KEYS;
        let part = &mut scratch.part[..count * columns];
        session.multiply(Product {
            a: &scratch.weights,
            a_stride: KEYS,
            b: values,
            b_stride: B_TILE,
            steps: 1,
            out: Tile::new(part, count, columns),
            accumulate: false,
        });
        // The rows that only fill a tile are left alone.
        let queries = count.min(rows.count - row);
        for ((part, fade), r) in part.chunks_exact(columns).zip(fade).zip(row..row + queries) {
            let sums = &mut rows.sums[r * width + column..][..columns];
            for (sum, part) in sums.chunks_exact_mut(S::LANES).zip(part.chunks_exact(S::LANES)) {
                s.store(s.fma(s.load(sum), s.splat(*fade), s.load(part)), sum);
            }
        }
    }
}
