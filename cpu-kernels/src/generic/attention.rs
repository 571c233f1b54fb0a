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

use super::attention_products::{PairProduct, Products};
use super::exp::exp;
use crate::attention::{Attention, QueryTile};
use crate::kv_layout::KvLayout;
use crate::packed::PANEL_COLUMNS;
use crate::simd::{Simd, Task};
use crate::submatrix::Submatrix;

/// Keys taken at a time.
pub(crate) const KEYS: usize = 32;

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
        let queries = tile.scaled_queries(depth, P::ZERO, P::element);
        let mut copy = BlockCopy::new(depth, width);
        // A sum for each lane, which are added at the end.
        let mut totals = vec![0.0; rows * S::LANES];
        let mut scores = [0.0; MAX_ROWS * KEYS];
        let mut weights = [P::ZERO; MAX_ROWS * KEYS];

        for base in (positions.start / KEYS * KEYS..positions.end).step_by(KEYS) {
            let seen = positions.start.max(base)..positions.end.min(base + KEYS);
            let block = block_at(tile, base, seen, &mut copy);
            let all_see = tile.all_see(base, KEYS);
            for first in (0..rows).step_by(P::ROWS) {
                let count = P::ROWS.min(rows - first);
                products.multiply(
                    s,
                    PairProduct {
                        a: &queries[first * depth..][..count * depth],
                        a_stride: depth,
                        b: block.keys,
                        b_stride: PANEL_COLUMNS * depth,
                        pairs: depth / 2,
                        out: Submatrix::new(&mut scores[..count * KEYS], count, KEYS),
                        accumulate: false,
                    },
                );
                let sums = &mut partial.sums[first * width..][..count * width];
                let row_scores = scores.as_chunks_mut::<KEYS>().0.iter_mut();
                let row_weights = weights.as_chunks_mut::<KEYS>().0.iter_mut();
                for (((row, scores), weights), sums) in
                    (first..).zip(row_scores).zip(row_weights).zip(sums.chunks_exact_mut(width))
                {
                    if !all_see {
                        let Range { start, end } = tile.visible_to(row, base, KEYS);
                        if start == end {
                            weights.fill(P::ZERO);
                            continue;
                        }
                        scores[..start].fill(f32::NEG_INFINITY);
                        scores[end..].fill(f32::NEG_INFINITY);
                    }
                    let total = &mut totals[row * S::LANES..][..S::LANES];
                    softmax_step::<S, P>(s, scores, &mut partial.largest[row], total, sums, weights);
                }
                products.multiply(
                    s,
                    PairProduct {
                        a: &weights[..count * KEYS],
                        a_stride: KEYS,
                        b: block.values,
                        b_stride: block.value_stride,
                        pairs: KEYS / 2,
                        out: Submatrix::new(sums, count, width),
                        accumulate: true,
                    },
                );
            }
        }
        for (total, lanes) in partial.total.iter_mut().zip(totals.chunks_exact(S::LANES)) {
            *total = s.sum(s.load(lanes));
        }
    }
}

/// The most query rows that products are given.
pub(crate) const MAX_ROWS: usize = 32;

/// Turns one row's scores into weights e^(score - largest). Where the largest score rises, it fades what was summed before.
#[inline(always)]
fn softmax_step<S: Simd, P: Products>(
    s: S,
    scores: &[f32; KEYS],
    largest: &mut f32,
    total: &mut [f32],
    sums: &mut [f32],
    weights: &mut [P::Element; KEYS],
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
        P::store(s, weight, out);
    }
    s.store(lanes, total);
}

/// Keys and values of 32 positions: B operands of the two products.
struct KeyBlock<'a> {
    /// Two panels of 16 keys.
    keys: &'a [bf16],
    /// Panels of 16 elements, `value_stride` from one to the next.
    values: &'a [bf16],
    value_stride: usize,
}

/// A place for what must be copied.
struct BlockCopy {
    keys: Vec<bf16>,
    key_layout: KvLayout,
    values: Vec<bf16>,
    value_layout: KvLayout,
}

impl BlockCopy {
    fn new(depth: usize, width: usize) -> BlockCopy {
        let key_layout = KvLayout { head_dim: depth, tokens_per_block: KEYS };
        let value_layout = KvLayout { head_dim: width, tokens_per_block: KEYS };
        let (keys, values) = (vec![bf16::ZERO; key_layout.page_len()], vec![bf16::ZERO; value_layout.page_len()]);
        BlockCopy { keys, key_layout, values, value_layout }
    }
}

/// The keys and values of the block at `base`; zeros but for the positions that are `seen`, for others may never have been
/// written.
#[inline(always)]
fn block_at<'a>(tile: &'a QueryTile<'_>, base: usize, seen: Range<usize>, copy: &'a mut BlockCopy) -> KeyBlock<'a> {
    let Attention { head_dim, tokens_per_block, keys, values, .. } = tile.args;
    let whole_panels = copy.key_layout.head_dim == head_dim && copy.value_layout.head_dim == head_dim;
    let slot = base % tokens_per_block;
    if seen.len() == KEYS && whole_panels && slot.is_multiple_of(PANEL_COLUMNS) && slot + KEYS <= tokens_per_block {
        let (page, _) = tile.page(base);
        return KeyBlock {
            keys: &keys[page + slot * head_dim..][..KEYS * head_dim],
            values: &values[page + slot * PANEL_COLUMNS..page + tokens_per_block * head_dim],
            value_stride: tokens_per_block * PANEL_COLUMNS,
        };
    }
    if seen.len() < KEYS {
        copy.keys.fill(bf16::ZERO);
        copy.values.fill(bf16::ZERO);
    }
    let layout = tile.layout();
    for position in seen {
        let (page, slot) = tile.page(position);
        let to = position - base;
        layout.copy_key(&keys[page..][..layout.page_len()], slot, copy.key_layout, &mut copy.keys, to);
        layout.copy_value(&values[page..][..layout.page_len()], slot, copy.value_layout, &mut copy.values, to);
    }
    KeyBlock { keys: &copy.keys, values: &copy.values, value_stride: KEYS * PANEL_COLUMNS }
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
