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
    /// Panels of 16 elements, `value_stride` from one to the next.
    values: &'a [bf16],
    value_stride: usize,
    scales: Option<Scales<'a>>,
}

/// What codes are multiplied by: for each block of elements, the scales of 32 positions.
struct Scales<'a> {
    keys: &'a [[f32; KEYS]],
    values: &'a [[f32; KEYS]],
}

impl KeyBlock<'_> {
    /// Whether values must be added by [`Self::add_scaled_values`].
    pub(crate) fn is_scaled(&self) -> bool {
        self.scales.is_some()
    }

    /// scores `[rows, KEYS]` = queries `[rows, depth]` . K^T; `part` is as long as `scores`.
    #[inline(always)]
    pub(crate) fn scores<S: Simd, P: Products>(
        &self,
        s: S,
        products: &mut P,
        queries: Slices<'_, P::Element>,
        depth: usize,
        scores: &mut [f32],
        part: &mut [f32],
    ) {
        let rows = scores.len() / KEYS;
        let Some(scales) = &self.scales else {
            products.multiply(s, self.score_product(queries, depth, 0..depth, Submatrix::new(scores, rows, KEYS)));
            return;
        };
        scores.fill(0.0);
        for (scales, first) in scales.keys.iter().zip((0..).step_by(BLOCK)) {
            let elements = first..depth.min(first + BLOCK);
            products.multiply(s, self.score_product(queries, depth, elements, Submatrix::new(part, rows, KEYS)));
            for (scores, part) in scores.chunks_exact_mut(KEYS).zip(part.chunks_exact(KEYS)) {
                let parts = part.chunks_exact(S::LANES).zip(scales.chunks_exact(S::LANES));
                for (score, (part, scale)) in scores.chunks_exact_mut(S::LANES).zip(parts) {
                    s.store(s.fma(s.load(part), s.load(scale), s.load(score)), score);
                }
            }
        }
    }

    /// out `[rows, KEYS]` = queries . K^T, over the elements of some slices.
    #[inline(always)]
    fn score_product<'a, E>(
        &'a self,
        queries: Slices<'a, E>,
        depth: usize,
        elements: Range<usize>,
        out: Submatrix<'a, f32>,
    ) -> PairProduct<'a, E> {
        PairProduct {
            a: Slices { elements: &queries.elements[elements.start / SLICE * queries.stride..], ..queries },
            b: &self.keys[elements.start * PANEL_COLUMNS..],
            b_stride: PANEL_COLUMNS * depth,
            pairs: elements.len() / 2,
            out,
            accumulate: false,
        }
    }

    /// sums `[rows, width]` += weights `[rows, KEYS]` . V
    #[inline(always)]
    pub(crate) fn add_values<S: Simd, P: Products>(
        &self,
        s: S,
        products: &mut P,
        weights: &[[P::Element; KEYS]],
        sums: &mut [f32],
        width: usize,
    ) {
        let rows = weights.len();
        self.add_columns(s, products, weights, Submatrix::new(sums, rows, width), 0);
    }

    /// [`Self::add_values`] of codes; `rounded` is for weights by scales.
    #[inline(always)]
    pub(crate) fn add_scaled_values<S: Simd, P: Products>(
        &self,
        s: S,
        products: &mut P,
        weights: &[f32],
        rounded: &mut [[P::Element; KEYS]],
        sums: &mut [f32],
        width: usize,
    ) {
        let rows = weights.len() / KEYS;
        let rounded = &mut rounded[..rows];
        let mut sums = Submatrix::new(sums, rows, width);
        let scales = self.scales.iter().flat_map(|scales| scales.values);
        for (scales, first) in scales.zip((0..).step_by(BLOCK)) {
            for (weights, rounded) in weights.chunks_exact(KEYS).zip(&mut *rounded) {
                let weights = weights.chunks_exact(S::LANES).zip(scales.chunks_exact(S::LANES));
                for ((weight, scale), out) in weights.zip(rounded.chunks_exact_mut(S::LANES)) {
                    P::store(s, s.mul(s.load(weight), s.load(scale)), out);
                }
            }
            let columns = sums.part(0, rows, first, BLOCK.min(width - first));
            self.add_columns(s, products, rounded, columns, first / PANEL_COLUMNS);
        }
    }

    /// out += weights `[rows, KEYS]` . V, of the panels of values from `panel` on.
    #[inline(always)]
    fn add_columns<S: Simd, P: Products>(
        &self,
        s: S,
        products: &mut P,
        weights: &[[P::Element; KEYS]],
        out: Submatrix<'_, f32>,
        panel: usize,
    ) {
        let a = Slices { elements: weights, stride: weights.len() };
        let (b, b_stride) = (&self.values[panel * self.value_stride..], self.value_stride);
        let product = PairProduct { a, b, b_stride, pairs: KEYS / 2, out, accumulate: true };
        products.multiply(s, product);
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
    /// written.
    #[inline(always)]
    pub(crate) fn block_at<'a, S: Simd>(
        &'a mut self,
        s: S,
        tile: &'a QueryTile<'_>,
        base: usize,
        seen: Range<usize>,
    ) -> KeyBlock<'a> {
        let Attention { head_dim, tokens_per_block, keys, values, dtype, .. } = tile.args;
        let whole_panels = self.key_layout.head_dim == head_dim && self.value_layout.head_dim == head_dim;
        let slot = base % tokens_per_block;
        let is_of_one_page = whole_panels && slot.is_multiple_of(PANEL_COLUMNS) && slot + KEYS <= tokens_per_block;
        match dtype {
            KvDtype::Bf16 if is_of_one_page && seen.len() == KEYS => {
                let (page, _) = tile.page(base);
                return KeyBlock {
                    keys: &keys[page + slot * head_dim..][..KEYS * head_dim],
                    values: &values[page + slot * PANEL_COLUMNS..page + tokens_per_block * head_dim],
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
            values: &self.values,
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
