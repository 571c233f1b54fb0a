//! Attention of a few queries that share a KV head, with the softmax taken as the keys go by.
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

use half::bf16;

use super::exp::exp;
use crate::attention::Attention;
use crate::simd::{Simd, TRANSPOSED_COLUMNS, TRANSPOSED_ROWS, Task};
use crate::tile::Tile;

/// Keys taken at a time.
const KEYS: usize = 32;

/// Query rows taken at a time; with [`COLUMNS`], eight independent sums hide the latency of a multiply-add.
const ROWS: usize = 4;

/// Vectors of the output taken at a time.
const COLUMNS: usize = 2;

/// Some consecutive tokens of one sequence, and the query heads of one KV head.
pub(crate) struct QueryTile<'a> {
    pub(crate) args: Attention<'a>,
    /// The block table of the sequence.
    pub(crate) blocks: &'a [u32],
    /// The first token's index in `args.q`.
    pub(crate) token: usize,
    /// The first token's position in the sequence.
    pub(crate) start: usize,
    pub(crate) kv_head: usize,
    /// `[tokens, heads of this KV head * head_dim]`
    pub(crate) out: Tile<'a, bf16>,
}

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
struct Block {
    /// `[head_dim, KEYS]`, and zeros up to a multiple of [`TRANSPOSED_COLUMNS`]
    keys: Vec<f32>,
    /// `[KEYS, width]`
    values: Vec<f32>,
    /// The position of the first key.
    base: usize,
}

impl Task for QueryTile<'_> {
    #[inline(always)]
    fn run<S: Simd>(mut self, s: S) {
        let head_dim = self.args.head_dim;
        let width = head_dim.next_multiple_of(COLUMNS * S::LANES);
        let group = self.args.heads / self.args.kv_heads;
        let count = self.out.rows() * group;
        let mut rows = Rows {
            queries: self.queries(group),
            sums: vec![0.0; count * width],
            largest: vec![f32::NEG_INFINITY; count],
            total: vec![0.0; count],
        };
        let mut block = Block {
            keys: vec![0.0; head_dim.next_multiple_of(TRANSPOSED_COLUMNS) * KEYS],
            values: vec![0.0; KEYS * width],
            base: 0,
        };

        let (first, end) = (self.args.first_visible(self.start), self.start + self.out.rows());
        for base in (first / KEYS * KEYS..end).step_by(KEYS) {
            self.fill(s, &mut block, base, first.max(base)..end.min(base + KEYS), width);
            for row in (0..count).step_by(ROWS) {
                match count - row {
                    1 => self.attend::<S, 1>(s, &block, &mut rows, row, group, width),
                    2 => self.attend::<S, 2>(s, &block, &mut rows, row, group, width),
                    3 => self.attend::<S, 3>(s, &block, &mut rows, row, group, width),
                    _ => self.attend::<S, ROWS>(s, &block, &mut rows, row, group, width),
                }
            }
        }
        self.finish(s, &rows, group, width);
    }
}

impl QueryTile<'_> {
    fn queries(&self, group: usize) -> Vec<f32> {
        let Attention { heads, head_dim, scale, .. } = self.args;
        let (token, share) = (heads * head_dim, group * head_dim);
        let tokens = self.args.q[self.token * token..][..self.out.rows() * token].chunks_exact(token);
        let mut queries = vec![0.0; tokens.len() * share];
        for (queries, token) in queries.chunks_exact_mut(share).zip(tokens) {
            for (query, q) in queries.iter_mut().zip(&token[self.kv_head * share..]) {
                *query = q * scale;
            }
        }
        queries
    }

    /// Reads the keys and values of `positions`, which are all in the block at `base`.
    #[inline(always)]
    fn fill<S: Simd>(&self, s: S, block: &mut Block, base: usize, positions: std::ops::Range<usize>, width: usize) {
        let Attention { kv_heads, head_dim, tokens_per_block, keys, values, .. } = self.args;
        block.base = base;
        if positions.len() < KEYS {
            block.values.fill(0.0);
        }
        let start = |position: usize| {
            let page = self.blocks[position / tokens_per_block] as usize;
            let slot = position % tokens_per_block;
            ((page * kv_heads + self.kv_head) * tokens_per_block + slot) * head_dim
        };
        for first in (0..KEYS).step_by(TRANSPOSED_ROWS) {
            let mut rows: [&[bf16]; TRANSPOSED_ROWS] = [&[]; TRANSPOSED_ROWS];
            for (row, position) in rows.iter_mut().zip(base + first..) {
                if positions.contains(&position) {
                    *row = &keys[start(position)..][..head_dim];
                }
            }
            let out = block.keys.chunks_exact_mut(TRANSPOSED_COLUMNS * KEYS);
            for (out, column) in out.zip((0..).step_by(TRANSPOSED_COLUMNS)) {
                let mut tile = [[bf16::ZERO; TRANSPOSED_COLUMNS]; TRANSPOSED_ROWS];
                for (tile, row) in tile.iter_mut().zip(rows) {
                    let part = row.get(column..).unwrap_or_default();
                    let part = &part[..part.len().min(TRANSPOSED_COLUMNS)];
                    tile[..part.len()].copy_from_slice(part);
                }
                s.transpose(&tile, &mut out[first..], KEYS);
            }
        }
        for position in positions {
            let row = &mut block.values[(position - base) * width..][..head_dim];
            let values = &values[start(position)..][..head_dim];
            for (slot, value) in row.chunks_mut(S::LANES).zip(values.chunks(S::LANES)) {
                s.store(s.load_bf16(value), slot);
            }
        }
    }

    /// The keys of the block that a row sees, as a range within it; empty where it sees none.
    #[inline(always)]
    fn visible(&self, block: &Block, row: usize, group: usize) -> (usize, usize) {
        let position = self.start + row / group;
        let first = self.args.first_visible(position).saturating_sub(block.base);
        let end = (position + 1).saturating_sub(block.base).min(KEYS);
        (first.min(end), end)
    }

    /// Takes the block into account for rows `first..first + R`.
    #[inline(always)]
    fn attend<S: Simd, const R: usize>(
        &self,
        s: S,
        block: &Block,
        rows: &mut Rows,
        first: usize,
        group: usize,
        width: usize,
    ) {
        let mut visible = [(0, 0); R];
        for (r, visible) in visible.iter_mut().enumerate() {
            *visible = self.visible(block, first + r, group);
        }
        let begin = visible.iter().filter(|(a, b)| a < b).map(|v| v.0).min();
        let end = visible.iter().map(|v| v.1).max().unwrap_or(0);
        let Some(begin) = begin else { return };

        let mut weights = [[0.0; KEYS]; R];
        score(s, &rows.queries[first * self.args.head_dim..], self.args.head_dim, &block.keys, &mut weights);
        let mut fade = [1.0; R];
        for r in 0..R {
            let (largest, total) = (&mut rows.largest[first + r], &mut rows.total[first + r]);
            fade[r] = soften(s, &mut weights[r], visible[r], largest, total);
        }
        let sums = &mut rows.sums[first * width..][..R * width];
        gather(s, &weights, begin..end, &fade, &block.values, sums, width);
    }

    #[inline(always)]
    fn finish<S: Simd>(&mut self, s: S, rows: &Rows, group: usize, width: usize) {
        let head_dim = self.args.head_dim;
        for token in 0..self.out.rows() {
            for (head, out) in self.out.row(token).chunks_exact_mut(head_dim).enumerate() {
                let row = token * group + head;
                let total = s.splat(rows.total[row]);
                let sums = &rows.sums[row * width..][..head_dim];
                for (sum, out) in sums.chunks(S::LANES).zip(out.chunks_mut(S::LANES)) {
                    s.store_bf16(s.div(s.add(s.load(sum), s.splat(0.0)), total), out);
                }
            }
        }
    }
}

/// weights `[R, KEYS]` = queries `[R, head_dim]` . keys `[head_dim, KEYS]`
#[inline(always)]
fn score<S: Simd, const R: usize>(
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

/// sums `[R, width]` = sums fade + weights `[R, KEYS]` . values `[KEYS, width]`, over `keys`
#[inline(always)]
fn gather<S: Simd, const R: usize>(
    s: S,
    weights: &[[f32; KEYS]; R],
    keys: std::ops::Range<usize>,
    fade: &[f32; R],
    values: &[f32],
    sums: &mut [f32],
    width: usize,
) {
    let values = &values[keys.start * width..keys.end * width];
    for column in (0..width).step_by(COLUMNS * S::LANES) {
        let mut registers = [[s.splat(0.0); COLUMNS]; R];
        for (r, register) in registers.iter_mut().enumerate() {
            for (c, register) in register.iter_mut().enumerate() {
                *register = s.mul(s.load(&sums[r * width + column + c * S::LANES..][..S::LANES]), s.splat(fade[r]));
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

/// Turns one row's scores into weights, 0 outside the visible range, and updates the row's largest score and total.
/// Returns what earlier sums must be multiplied by.
#[inline(always)]
fn soften<S: Simd>(s: S, scores: &mut [f32; KEYS], visible: (usize, usize), largest: &mut f32, total: &mut f32) -> f32 {
    if visible.0 == visible.1 {
        scores.fill(0.0);
        return 1.0;
    }
    scores[..visible.0].fill(f32::NEG_INFINITY);
    scores[visible.1..].fill(f32::NEG_INFINITY);
    let mut best = s.splat(*largest);
    for scores in scores.chunks_exact(S::LANES) {
        best = s.max(s.load(scores), best);
    }
    let best = s.largest(best);
    let mut sum = s.splat(0.0);
    for scores in scores.chunks_exact_mut(S::LANES) {
        let weight = exp(s, s.sub(s.load(scores), s.splat(best)));
        sum = s.add(sum, weight);
        s.store(weight, scores);
    }
    let mut fade = [0.0; KEYS];
    s.store(exp(s, s.splat(*largest - best)), &mut fade[..S::LANES]);
    *largest = best;
    *total = *total * fade[0] + s.sum(sum);
    fade[0]
}
