//! Attention of a few queries that share a KV head, with the softmax taken as the keys go by.
//!
//! For each block of the cache this converts 2 `head_dim` x 32 bf16 once, and does 2 `head_dim` x 32 multiply-adds for
//! each query row. What it holds meanwhile does not grow with the number of keys.
//!
//! Keys are walked in blocks of 32, cut at absolute positions. For each block: copy it out of the pages and widen
//! it (keys transposed, so that a vector is one element of several keys), then for four query rows at a time
//!
//! ```text
//! s = q . K^T        m' = max(m, max s)        p = e^(s - m')
//! l = l e^(m - m') + sum p                     acc = acc e^(m - m') + p . V
//! ```
//!
//! A query takes part in exactly the blocks that hold a key it sees, so what happens to it depends on its position
//! and on its keys: not on its chunk, its tile, or the pages. (Keys of a block that it does not see have weight
//! zero. That can turn a sum of -0 into +0, so a +0 is added at the end.)

use std::ops::Range;

use half::bf16;

use super::exp::exp;
use crate::attention::{Attention, QueryTile};
use crate::simd::{Simd, Task, WIDENED_COLUMNS, WIDENED_ROWS};

/// Keys taken at a time.
const KEYS: usize = 32;

/// Query rows taken at a time; with [`COLUMNS`], eight independent sums hide the latency of a multiply-add.
const ROWS: usize = 4;

/// Vectors of the output taken at a time.
const COLUMNS: usize = 2;

/// Attention of a query tile, with the vectors of any instruction set.
pub(crate) struct VectorAttention<'a>(pub(crate) QueryTile<'a>);

/// What is known about each query row so far. Rows are tokens times heads of the group, token by token.
struct Rows {
    /// `[rows, head_dim]`, scaled
    queries: Vec<f32>,
    /// `[rows, width]`
    sums: Vec<f32>,
    /// The largest score.
    largest: Vec<f32>,
    /// The sum of e^(score - largest).
    total: Vec<f32>,
}

/// One block of the cache, as f32; zeros where no query of the tile looks.
struct KeyBlock {
    /// `[head_dim, KEYS]`, and zeros up to a multiple of [`WIDENED_COLUMNS`]
    keys: Vec<f32>,
    /// `[KEYS, width]`
    values: Vec<f32>,
    /// The position of the first key.
    base: usize,
}

impl Task for VectorAttention<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let VectorAttention(mut tile) = self;
        let head_dim = tile.args.head_dim;
        let width = head_dim.next_multiple_of(COLUMNS * S::LANES);
        let count = tile.rows();
        let mut rows = Rows {
            queries: tile.scaled_queries(|x| x),
            sums: vec![0.0; count * width],
            largest: vec![f32::NEG_INFINITY; count],
            total: vec![0.0; count],
        };
        let mut block = KeyBlock {
            keys: vec![0.0; head_dim.next_multiple_of(WIDENED_COLUMNS) * KEYS],
            values: vec![0.0; KEYS * width],
            base: 0,
        };

        let Range { start, end } = tile.visible_positions();
        for base in (start / KEYS * KEYS..end).step_by(KEYS) {
            block.load(s, &tile, base, start.max(base)..end.min(base + KEYS), width);
            for row in (0..count).step_by(ROWS) {
                match count - row {
                    1 => attend::<S, 1>(s, &tile, &block, &mut rows, row, width),
                    2 => attend::<S, 2>(s, &tile, &block, &mut rows, row, width),
                    3 => attend::<S, 3>(s, &tile, &block, &mut rows, row, width),
                    _ => attend::<S, ROWS>(s, &tile, &block, &mut rows, row, width),
                }
            }
        }
        write_quotients(s, &mut tile, &rows.sums, &rows.total, width);
    }
}

impl KeyBlock {
    /// Reads the keys and values of `positions`, which are all in the block at `base`.
    #[inline(always)]
    fn load<S: Simd>(&mut self, s: S, tile: &QueryTile<'_>, base: usize, positions: Range<usize>, width: usize) {
        debug_assert!(base.is_multiple_of(KEYS) && positions.start >= base && positions.end <= base + KEYS);
        let Attention { head_dim, keys, values, .. } = tile.args;
        self.base = base;
        if positions.len() < KEYS {
            self.values.fill(0.0);
        }
        for first in (0..KEYS).step_by(WIDENED_ROWS) {
            let mut rows: [&[bf16]; WIDENED_ROWS] = [&[]; WIDENED_ROWS];
            for (row, position) in rows.iter_mut().zip(base + first..) {
                if positions.contains(&position) {
                    *row = &keys[tile.cache_offset(position)..][..head_dim];
                }
            }
            let columns = self.keys.chunks_exact_mut(WIDENED_COLUMNS * KEYS);
            for (out, column) in columns.zip((0..).step_by(WIDENED_COLUMNS)) {
                let mut square = [[bf16::ZERO; WIDENED_COLUMNS]; WIDENED_ROWS];
                for (copy, row) in square.iter_mut().zip(rows) {
                    let part = row.get(column..).unwrap_or_default();
                    let part = &part[..part.len().min(WIDENED_COLUMNS)];
                    copy[..part.len()].copy_from_slice(part);
                }
                s.widen_transposed(&square, &mut out[first..], KEYS);
            }
        }
        for position in positions {
            let value = &values[tile.cache_offset(position)..][..head_dim];
            let copy = &mut self.values[(position - base) * width..][..head_dim];
            for (from, to) in value.chunks(S::LANES).zip(copy.chunks_mut(S::LANES)) {
                s.store(s.load_bf16(from), to);
            }
        }
    }
}

/// Takes the block into account for rows `first..first + R`.
#[inline(always)]
fn attend<S: Simd, const R: usize>(
    s: S,
    tile: &QueryTile<'_>,
    block: &KeyBlock,
    rows: &mut Rows,
    first: usize,
    width: usize,
) {
    let mut visible = [(0, 0); R];
    for (r, visible) in visible.iter_mut().enumerate() {
        let Range { start, end } = tile.visible_to(first + r, block.base, KEYS);
        *visible = (start, end);
    }
    let start = visible.iter().filter(|(start, end)| start < end).map(|(start, _)| *start).min();
    let end = visible.iter().map(|(_, end)| *end).max().unwrap_or(0);
    let Some(start) = start else { return };

    let head_dim = tile.args.head_dim;
    let mut weights = [[0.0; KEYS]; R];
    query_key_products(s, &rows.queries[first * head_dim..], head_dim, &block.keys, &mut weights);
    let mut rescale = [1.0; R];
    for r in 0..R {
        let (largest, total) = (&mut rows.largest[first + r], &mut rows.total[first + r]);
        rescale[r] = softmax_step(s, &mut weights[r], visible[r], largest, total);
    }
    let sums = &mut rows.sums[first * width..][..R * width];
    add_weighted_values(s, &weights, start..end, &rescale, &block.values, sums, width);
}

/// out = sums / total, rounded once, for each query row of the tile; `sums` is `[rows, width]`.
#[inline(always)]
pub(crate) fn write_quotients<S: Simd>(s: S, tile: &mut QueryTile<'_>, sums: &[f32], total: &[f32], width: usize) {
    let (head_dim, group) = (tile.args.head_dim, tile.group);
    for token in 0..tile.out.rows() {
        for (head, out) in tile.out.row(token).chunks_exact_mut(head_dim).enumerate() {
            let row = token * group + head;
            let total = s.splat(total[row]);
            for (sum, out) in sums[row * width..][..head_dim].chunks(S::LANES).zip(out.chunks_mut(S::LANES)) {
                // This turns a sum of -0 into +0, as the module's head explains.
                s.store_bf16(s.div(s.add(s.load(sum), s.splat(0.0)), total), out);
            }
        }
    }
}

/// weights `[R, KEYS]` = queries `[R, head_dim]` . keys `[head_dim, KEYS]`
#[inline(always)]
fn query_key_products<S: Simd, const R: usize>(
    s: S,
    queries: &[f32],
    head_dim: usize,
    keys: &[f32],
    weights: &mut [[f32; KEYS]; R],
) {
    let mut rows = [queries; R];
    for (r, row) in rows.iter_mut().enumerate() {
        *row = &queries[r * head_dim..][..head_dim];
    }
    for column in (0..KEYS).step_by(COLUMNS * S::LANES) {
        let mut sums = [[s.splat(0.0); COLUMNS]; R];
        for (i, keys) in keys.chunks_exact(KEYS).enumerate().take(head_dim) {
            multiply_add(s, &mut sums, rows.map(|row| row[i]), &keys[column..][..COLUMNS * S::LANES]);
        }
        for (weights, sums) in weights.iter_mut().zip(sums) {
            for (c, sum) in sums.into_iter().enumerate() {
                s.store(sum, &mut weights[column + c * S::LANES..][..S::LANES]);
            }
        }
    }
}

/// sums `[R, width]` = sums * rescale + weights `[R, KEYS]` . values `[KEYS, width]`, over `keys`
#[inline(always)]
fn add_weighted_values<S: Simd, const R: usize>(
    s: S,
    weights: &[[f32; KEYS]; R],
    keys: Range<usize>,
    rescale: &[f32; R],
    values: &[f32],
    sums: &mut [f32],
    width: usize,
) {
    let values = &values[keys.start * width..keys.end * width];
    for column in (0..width).step_by(COLUMNS * S::LANES) {
        let mut registers = [[s.splat(0.0); COLUMNS]; R];
        for (r, register) in registers.iter_mut().enumerate() {
            for (c, register) in register.iter_mut().enumerate() {
                *register = s.mul(s.load(&sums[r * width + column + c * S::LANES..][..S::LANES]), s.splat(rescale[r]));
            }
        }
        for (key, values) in keys.clone().zip(values.chunks_exact(width)) {
            let mut weight = [0.0; R];
            for (weight, row) in weight.iter_mut().zip(weights) {
                *weight = row[key];
            }
            multiply_add(s, &mut registers, weight, &values[column..][..COLUMNS * S::LANES]);
        }
        for (r, register) in registers.into_iter().enumerate() {
            for (c, register) in register.into_iter().enumerate() {
                s.store(register, &mut sums[r * width + column + c * S::LANES..][..S::LANES]);
            }
        }
    }
}

/// sums `[R, COLUMNS vectors]` += a `[R]` b `[COLUMNS vectors]`
#[inline(always)]
fn multiply_add<S: Simd, const R: usize>(s: S, sums: &mut [[S::Vector; COLUMNS]; R], a: [f32; R], b: &[f32]) {
    let b = [s.load(&b[..S::LANES]), s.load(&b[S::LANES..][..S::LANES])];
    for (sums, a) in sums.iter_mut().zip(a) {
        let a = s.splat(a);
        for (sum, b) in sums.iter_mut().zip(b) {
            *sum = s.fma(a, b, *sum);
        }
    }
}

/// Turns one row's scores into weights e^(score - largest), 0 outside the visible range, and updates the row's largest
/// score and total. Returns e^(old largest - new largest), by which what was summed before must be multiplied.
#[inline(always)]
fn softmax_step<S: Simd>(
    s: S,
    scores: &mut [f32; KEYS],
    (start, end): (usize, usize),
    largest: &mut f32,
    total: &mut f32,
) -> f32 {
    debug_assert!(start <= end && end <= KEYS);
    if start == end {
        scores.fill(0.0);
        return 1.0;
    }
    scores[..start].fill(f32::NEG_INFINITY);
    scores[end..].fill(f32::NEG_INFINITY);
    let mut maxima = s.splat(*largest);
    for part in scores.chunks_exact(S::LANES) {
        maxima = s.max(s.load(part), maxima);
    }
    let new_largest = s.largest(maxima);
    let mut sum = s.splat(0.0);
    for part in scores.chunks_exact_mut(S::LANES) {
        let weight = exp(s, s.sub(s.load(part), s.splat(new_largest)));
        sum = s.add(sum, weight);
        s.store(weight, part);
    }
    let mut rescale = [0.0; KEYS];
    s.store(exp(s, s.splat(*largest - new_largest)), &mut rescale[..S::LANES]);
    *largest = new_largest;
    *total = *total * rescale[0] + s.sum(sum);
    rescale[0]
}
