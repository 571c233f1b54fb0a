//! Keys and values of 32 positions, and the products with them.
//!
//! A block in bf16 that one page holds is read where it lies. Any other is copied first: codes of eight bits as numbers in bf16,
//! which costs about as much as the products of a few query rows. Their scales are taken into account after the first product and before
//! the second, a block of 32 elements at a time.

use std::ops::Range;

use half::bf16;

use super::attention_products::{PairProduct, Products, SLICE, Slices};
use crate::attention::{Attention, QueryTile};
use crate::kv_int8::BLOCK;
use crate::kv_layout::{KvDtype, KvLayout};
use crate::packed::PANEL_COLUMNS;
use crate::simd::{Simd, widen};
use crate::submatrix::Submatrix;

/// Keys taken at a time.
pub(crate) const KEYS: usize = 32;

/// Keys and values of 32 positions: B operands of the two products.
pub(crate) struct KeyBlock<'a> {
    /// Two panels of 16 keys.
    keys: &'a [bf16],
    next_keys: &'a [bf16],
    /// Panels of 16 elements, `value_stride` from one to the next.
    values: &'a [bf16],
    next_values: &'a [bf16],
    value_stride: usize,
    scales: Option<Scales<'a>>,
}

/// What codes are multiplied by: for each block of elements, the scales of 32 positions.
struct Scales<'a> {
    keys: &'a [[f32; KEYS]],
    values: &'a [[f32; KEYS]],
}

impl KeyBlock<'_> {
    /// scores `[rows, KEYS]` = queries `[rows, depth]` . K^T; `part` is as long as `scores`.
    #[inline(always)]
    pub(crate) fn scores<S: Simd, P: Products>(
        &self,
        s: S,
        products: &mut P,
        queries: Slices<'_, P::Query>,
        depth: usize,
        scores: &mut [f32],
        part: &mut [f32],
    ) {
        let rows = scores.len() / KEYS;
        // The elements that are multiplied at a time: those of one scale, or all.
        let at_once = if self.scales.is_some() { BLOCK } else { depth };
        for first in (0..depth).step_by(at_once) {
            for query_part in 0..P::QUERY_PARTS {
                let slice = query_part * depth.div_ceil(SLICE) + first / SLICE;
                products.multiply_keys(
                    s,
                    PairProduct {
                        a: Slices { elements: &queries.elements[slice * queries.stride..], ..queries },
                        b: &self.keys[first * PANEL_COLUMNS..],
                        next: &self.next_keys[first * PANEL_COLUMNS..],
                        b_stride: PANEL_COLUMNS * depth,
                        pairs: at_once.min(depth - first) / 2,
                        out: Submatrix::new(if self.scales.is_some() { part } else { scores }, rows, KEYS),
                        accumulate: query_part > 0,
                    },
                );
            }
            if let Some(scales) = &self.scales {
                if first == 0 {
                    scores.fill(0.0);
                }
                add_scaled(s, scores, part, &scales.keys[first / BLOCK]);
            }
        }
    }

    /// sums `[rows, width]` += weights `[rows, KEYS]` . V; `rounded` is as long as `weights`.
    #[inline(always)]
    pub(crate) fn add_values<S: Simd, P: Products>(
        &self,
        s: S,
        products: &mut P,
        weights: &[[f32; KEYS]],
        rounded: &mut [[P::Weight; KEYS]],
        sums: &mut [f32],
        width: usize,
    ) {
        let rows = weights.len();
        let mut sums = Submatrix::new(sums, rows, width);
        let at_once = if self.scales.is_some() { BLOCK } else { width };
        for first in (0..width).step_by(at_once) {
            let scales = self.scales.as_ref().map(|scales| &scales.values[first / BLOCK]);
            for (weights, rounded) in weights.iter().zip(&mut *rounded) {
                for lane in (0..KEYS).step_by(S::LANES) {
                    let mut weight = s.load(&weights[lane..]);
                    if let Some(scales) = scales {
                        weight = s.mul(weight, s.load(&scales[lane..]));
                    }
                    P::store_weights(s, weight, &mut rounded[lane..]);
                }
            }
            let panels = first / PANEL_COLUMNS * self.value_stride;
            products.multiply_values(
                s,
                PairProduct {
                    a: Slices { elements: rounded, stride: rows },
                    b: &self.values[panels..],
                    next: &self.next_values[panels..],
                    b_stride: self.value_stride,
                    pairs: KEYS / 2,
                    out: sums.part(0, rows, first, at_once.min(width - first)),
                    accumulate: true,
                },
            );
        }
    }
}

/// scores += part by the scales of their keys, row by row.
#[inline(always)]
fn add_scaled<S: Simd>(s: S, scores: &mut [f32], part: &[f32], scales: &[f32; KEYS]) {
    for (scores, part) in scores.chunks_exact_mut(KEYS).zip(part.chunks_exact(KEYS)) {
        let parts = part.chunks_exact(S::LANES).zip(scales.chunks_exact(S::LANES));
        for (score, (part, scale)) in scores.chunks_exact_mut(S::LANES).zip(parts) {
            s.store(s.fma(s.load(part), s.load(scale), s.load(score)), score);
        }
    }
}

/// A place for what must be copied.
pub(crate) struct BlockCopy {
    keys: Vec<bf16>,
    key_layout: KvLayout,
    values: Vec<bf16>,
    value_layout: KvLayout,
    key_scales: Vec<[f32; KEYS]>,
    value_scales: Vec<[f32; KEYS]>,
}

impl BlockCopy {
    /// For keys of `depth` elements, and values of `width`: `head_dim` and zeros, `width` in whole panels.
    pub(crate) fn new(depth: usize, width: usize, head_dim: usize) -> BlockCopy {
        let layout = |head_dim| KvLayout { head_dim, tokens_per_block: KEYS, dtype: KvDtype::Bf16 };
        let (key_layout, value_layout) = (layout(depth), layout(width));
        let scales = vec![[0.0; KEYS]; head_dim.div_ceil(BLOCK)];
        BlockCopy {
            keys: vec![bf16::ZERO; key_layout.page_len()],
            key_layout,
            values: vec![bf16::ZERO; value_layout.page_len()],
            value_layout,
            key_scales: scales.clone(),
            value_scales: scales,
        }
    }

    /// The keys and values of the block at `base`; zeros but for the positions that are `seen`, for others may never have been
    /// written. The block at `next` is read after it.
    #[inline(always)]
    pub(crate) fn block_at<'a, S: Simd>(
        &'a mut self,
        s: S,
        tile: &'a QueryTile<'_>,
        base: usize,
        seen: Range<usize>,
        next: Option<usize>,
    ) -> KeyBlock<'a> {
        let Attention { head_dim, tokens_per_block, keys, values, dtype, .. } = tile.args;
        let of_page = |base| {
            let (page, slot) = tile.page(base);
            let keys = &keys[page + slot * head_dim..page + tokens_per_block * head_dim];
            (keys, &values[page + slot * PANEL_COLUMNS..page + tokens_per_block * head_dim])
        };
        let whole_panels = self.key_layout.head_dim == head_dim && self.value_layout.head_dim == head_dim;
        let slot = base % tokens_per_block;
        let is_of_one_page = whole_panels && slot.is_multiple_of(PANEL_COLUMNS) && slot + KEYS <= tokens_per_block;
        match dtype {
            KvDtype::Bf16 if is_of_one_page && seen.len() == KEYS => {
                let (keys, values) = of_page(base);
                // The page of the next block has room for as many, where blocks divide pages.
                let next = next.filter(|_| tokens_per_block.is_multiple_of(KEYS)).map(of_page);
                let (next_keys, next_values) = next.unwrap_or((keys, values));
                return KeyBlock {
                    keys,
                    next_keys,
                    values,
                    next_values,
                    value_stride: tokens_per_block * PANEL_COLUMNS,
                    scales: None,
                };
            }
            // Codes are numbers whatever was written, so scales alone have to be zero where nothing was.
            KvDtype::Int8 if is_of_one_page => self.widen_page(s, tile, base),
            KvDtype::Bf16 | KvDtype::Int8 => self.copy_tokens(tile, base, seen.clone()),
        }
        if dtype == KvDtype::Int8 {
            self.copy_scales(tile, base, seen);
        }
        let scales = Scales { keys: &self.key_scales, values: &self.value_scales };
        KeyBlock {
            keys: &self.keys,
            next_keys: &self.keys,
            values: &self.values,
            next_values: &self.values,
            value_stride: KEYS * PANEL_COLUMNS,
            scales: (dtype == KvDtype::Int8).then_some(scales),
        }
    }

    /// Copies the elements of the tokens that are `seen`, without their scales.
    #[inline(always)]
    fn copy_tokens(&mut self, tile: &QueryTile<'_>, base: usize, seen: Range<usize>) {
        let Attention { keys, values, .. } = tile.args;
        if seen.len() < KEYS {
            self.keys.fill(bf16::ZERO);
            self.values.fill(bf16::ZERO);
        }
        let layout = tile.layout();
        for position in seen {
            let (page, slot) = tile.page(position);
            let to = position - base;
            layout.copy_key(&keys[page..][..layout.page_len()], slot, self.key_layout, &mut self.keys, to);
            layout.copy_value(&values[page..][..layout.page_len()], slot, self.value_layout, &mut self.values, to);
        }
    }

    /// Copies the codes of the block, which lies in one page.
    #[inline(always)]
    fn widen_page<S: Simd>(&mut self, s: S, tile: &QueryTile<'_>, base: usize) {
        let Attention { head_dim, tokens_per_block, keys, values, .. } = tile.args;
        let (page, slot) = tile.page(base);
        s.widen_codes(&keys[page + slot * head_dim / 2..][..KEYS * head_dim / 2], &mut self.keys);
        let panels = values[page..].chunks(tokens_per_block * PANEL_COLUMNS / 2);
        for (out, panel) in self.values.chunks_exact_mut(KEYS * PANEL_COLUMNS).zip(panels) {
            s.widen_codes(&panel[slot * PANEL_COLUMNS / 2..][..KEYS * PANEL_COLUMNS / 2], out);
        }
    }

    /// Copies the scales of the tokens that are `seen`.
    #[inline(always)]
    fn copy_scales(&mut self, tile: &QueryTile<'_>, base: usize, seen: Range<usize>) {
        let Attention { keys, values, tokens_per_block, .. } = tile.args;
        let layout = tile.layout();
        if seen.len() < KEYS {
            self.key_scales.fill([0.0; KEYS]);
            self.value_scales.fill([0.0; KEYS]);
        }
        let mut position = seen.start;
        while position < seen.end {
            let (page, slot) = tile.page(position);
            let count = (tokens_per_block - slot).min(seen.end - position);
            for (scales, pool) in [(&mut self.key_scales, keys), (&mut self.value_scales, values)] {
                for (block, scales) in scales.iter_mut().enumerate() {
                    let from = &pool[page + layout.scale(block, slot)..][..count];
                    for (scale, from) in scales[position - base..].iter_mut().zip(from) {
                        *scale = widen(*from);
                    }
                }
            }
            position += count;
        }
    }
}
