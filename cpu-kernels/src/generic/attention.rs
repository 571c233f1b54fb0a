//! Attention of a few queries that share a KV head, with the softmax taken as the keys go by.
//!
//! Keys are walked in blocks of 32, cut at absolute positions. A block costs each query row 2 `head_dim` x 32 multiply-adds
//! and 32 exponentials. What is held meanwhile does not grow with the number of keys. For each block, and some query rows
//! at a time:
//!
//! ```text
//! s = q . K^T        m' = max(m, max s)        p = e^(s - m')
//! l = l e^(m - m') + sum p                     acc = acc e^(m - m') + p . V
//! ```
//!
//! A block that one page holds is read where it lies, any other is copied first. What happens to a query depends on its
//! position and on its keys: not on its chunk, its tile, or the pages. A block without a key that it sees leaves its state
//! as it was, and so do keys that it does not see, whose weights are zero. (They can turn a sum of -0 into +0, so a +0 is
//! added at the end.)

use std::ops::Range;

use half::bf16;

use super::attention_products::{Products, Slices};
use super::exp::exp;
use super::key_block::{BlockCopy, KEYS};
use crate::attention::QueryTile;
use crate::packed::PANEL_COLUMNS;
use crate::simd::{Simd, Task};
use crate::submatrix::Submatrix;

/// What is known about each query row of a tile after some of its keys.
pub(crate) struct Partial {
    /// `[rows, width]`, the values by weight; the width is `head_dim` in whole panels.
    sums: Vec<f32>,
    /// The largest score; the least number where there was none.
    largest: Vec<f32>,
    /// The sum of e^(score - largest).
    total: Vec<f32>,
    width: usize,
}

impl Partial {
    /// Before any key.
    pub(crate) fn new(tile: &QueryTile<'_>) -> Partial {
        let (rows, width) = (tile.rows(), tile.args.head_dim.next_multiple_of(PANEL_COLUMNS));
        Partial { sums: vec![0.0; rows * width], largest: vec![f32::MIN; rows], total: vec![0.0; rows], width }
    }
}

/// Takes the keys at some positions of one part into account, which are the first that `partial` hears of.
pub(crate) struct Attend<'a, P> {
    pub(crate) products: P,
    pub(crate) tile: &'a QueryTile<'a>,
    pub(crate) positions: Range<usize>,
    pub(crate) partial: &'a mut Partial,
}

impl<P: Products> Task for Attend<'_, P> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Attend { mut products, tile, positions, partial } = self;
        let (rows, depth, width) = (tile.rows(), P::depth(tile.args.head_dim), partial.width);
        let queries = tile.scaled_queries(P::QUERY_PARTS, P::query);
        let mut copy = BlockCopy::new(depth, width, tile.args.head_dim);
        // A sum for each lane, which are added at the end.
        let mut totals = vec![0.0; rows * S::LANES];
        let mut scores = [[0.0; KEYS]; MAX_ROWS];
        let mut weights = [[0.0; KEYS]; MAX_ROWS];
        let mut rounded = [[P::Weight::default(); KEYS]; MAX_ROWS];

        for base in (positions.start / KEYS * KEYS..positions.end).step_by(KEYS) {
            let seen = positions.start.max(base)..positions.end.min(base + KEYS);
            let next = (base + KEYS < positions.end).then_some(base + KEYS);
            let block = copy.block_at(s, tile, base, seen, next);
            for first in (0..rows).step_by(P::ROWS) {
                let count = P::ROWS.min(rows - first);
                let (scores, weights) = (&mut scores[..count], &mut weights[..count]);
                let queries = Slices { elements: &queries[first..], stride: rows };
                let flat = scores.as_flattened_mut();
                block.scores(s, &mut products, queries, depth, flat, weights.as_flattened_mut());
                softmax(s, tile, (base, first), scores, partial, &mut totals, weights);
                let sums = &mut partial.sums[first * width..(first + count) * width];
                block.add_values(s, &mut products, weights, &mut rounded[..count], sums, width);
            }
        }
        for (total, lanes) in partial.total.iter_mut().zip(totals.chunks_exact(S::LANES)) {
            *total = s.sum(s.load(lanes));
        }
    }
}

/// The most query rows that products are given.
pub(crate) const MAX_ROWS: usize = 32;

/// Turns the scores of some rows, those from `first` on, into weights; zeros where a row sees nothing.
#[inline(always)]
fn softmax<S: Simd>(
    s: S,
    tile: &QueryTile<'_>,
    (base, first): (usize, usize),
    scores: &mut [[f32; KEYS]],
    partial: &mut Partial,
    totals: &mut [f32],
    weights: &mut [[f32; KEYS]],
) {
    let all_see = tile.all_see(base, KEYS);
    let width = partial.width;
    let rows = (first..).zip(scores).zip(weights);
    for ((row, scores), weights) in rows {
        if !all_see {
            let Range { start, end } = tile.visible_to(row, base, KEYS);
            if start == end {
                weights.fill(0.0);
                continue;
            }
            scores[..start].fill(f32::NEG_INFINITY);
            scores[end..].fill(f32::NEG_INFINITY);
        }
        let total = &mut totals[row * S::LANES..][..S::LANES];
        let sums = &mut partial.sums[row * width..][..width];
        softmax_step(s, scores, &mut partial.largest[row], total, sums, weights);
    }
}

/// Turns one row's scores into weights e^(score - largest). Where the largest score rises, it fades what was summed before.
#[inline(always)]
fn softmax_step<S: Simd>(
    s: S,
    scores: &[f32; KEYS],
    largest: &mut f32,
    total: &mut [f32],
    sums: &mut [f32],
    weights: &mut [f32; KEYS],
) {
    let mut best = s.load(&scores[..S::LANES]);
    for part in scores[S::LANES..].chunks_exact(S::LANES) {
        best = s.max(s.load(part), best);
    }
    if s.any_above(best, s.splat(*largest)) {
        let risen = s.largest(best);
        let factor = exp(s, s.splat(*largest - risen));
        *largest = risen;
        for part in sums.chunks_exact_mut(S::LANES).chain([&mut *total]) {
            s.store(s.mul(s.load(part), factor), part);
        }
    }
    let largest = s.splat(*largest);
    let mut lanes = s.load(total);
    for (part, out) in scores.chunks_exact(S::LANES).zip(weights.chunks_exact_mut(S::LANES)) {
        let weight = exp(s, s.sub(s.load(part), largest));
        lanes = s.add(lanes, weight);
        s.store(weight, out);
    }
    s.store(lanes, total);
}

/// Adds what the next part gave.
pub(crate) struct Merge<'a> {
    pub(crate) whole: &'a mut Partial,
    pub(crate) next: &'a Partial,
}

impl Task for Merge<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Merge { whole, next } = self;
        let sums = whole.sums.chunks_exact_mut(whole.width).zip(next.sums.chunks_exact(next.width));
        for (row, (sums, next_sums)) in sums.enumerate() {
            let largest = whole.largest[row].max(next.largest[row]);
            let factor = exp(s, s.splat(whole.largest[row] - largest));
            let next_factor = exp(s, s.splat(next.largest[row] - largest));
            whole.largest[row] = largest;
            let total = s.mul(s.splat(whole.total[row]), factor);
            s.store(s.fma(s.splat(next.total[row]), next_factor, total), &mut whole.total[row..=row]);
            for (part, next) in sums.chunks_exact_mut(S::LANES).zip(next_sums.chunks_exact(S::LANES)) {
                s.store(s.fma(s.load(next), next_factor, s.mul(s.load(part), factor)), part);
            }
        }
    }
}

/// out = sums / total, rounded once, for each query row of the tile.
pub(crate) struct Quotients<'a> {
    pub(crate) partial: &'a Partial,
    pub(crate) tile: &'a QueryTile<'a>,
    /// `[tokens, query heads of the KV head * head_dim]`
    pub(crate) out: Submatrix<'a, bf16>,
}

impl Task for Quotients<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let Quotients { partial, tile, mut out } = self;
        let head_dim = tile.args.head_dim;
        let mut rows = partial.sums.chunks_exact(partial.width).zip(&partial.total);
        for token in 0..tile.tokens {
            for (out, (sums, total)) in out.row(token).chunks_exact_mut(head_dim).zip(&mut rows) {
                for (sum, out) in sums[..head_dim].chunks(S::LANES).zip(out.chunks_mut(S::LANES)) {
                    // This turns a sum of -0 into +0, as the module's head explains.
                    s.store_bf16(s.div(s.add(s.load(sum), s.splat(0.0)), s.splat(*total)), out);
                }
            }
        }
    }
}
