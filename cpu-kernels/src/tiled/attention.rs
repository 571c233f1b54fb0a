//! The products of attention in tiles. Weights are rounded to bf16. A query is the sum of two bf16, which has 16 bits of its
//! 24: rounded to one, queries move log-probabilities by more than bf16 elsewhere does.

#![forbid(unsafe_code)]

use half::bf16;

use super::tile_unit::{PANELS_OF_ONE_TILE, PANELS_OF_TWO_TILES, TILE_ROWS, TileProduct, TileSession};
use crate::generic::attention_products::{PairProduct, Products, SLICE};
use crate::packed::{K_TILE, PANEL_COLUMNS, padded_k};
use crate::simd::Simd;

/// Products with the tile unit of this thread.
pub(super) struct TileProducts<T>(pub(super) T);

impl<T: TileSession> Products for TileProducts<T> {
    type Query = bf16;
    type Weight = bf16;
    const QUERY_PARTS: usize = 2;
    const ROWS: usize = 2 * TILE_ROWS;

    fn depth(head_dim: usize) -> usize {
        padded_k(head_dim)
    }

    #[inline(always)]
    fn query(x: f32, part: usize) -> bf16 {
        let first = bf16::from_f32(x);
        let rest = x - first.to_f32();
        match part {
            0 => first,
            _ if rest.is_finite() => bf16::from_f32(rest),
            _ => bf16::ZERO,
        }
    }

    #[inline(always)]
    fn store_weights<S: Simd>(s: S, v: S::Vector, out: &mut [bf16]) {
        s.store_bf16(v, out);
    }

    #[inline(always)]
    fn multiply_keys<S: Simd>(&mut self, _: S, product: PairProduct<'_, bf16>) {
        self.multiply(product);
    }

    #[inline(always)]
    fn multiply_values<S: Simd>(&mut self, _: S, product: PairProduct<'_, bf16>) {
        self.multiply(product);
    }
}

impl<T: TileSession> TileProducts<T> {
    #[inline(always)]
    fn multiply(&mut self, product: PairProduct<'_, bf16>) {
        let PairProduct { a, b, b_stride, pairs, mut out, accumulate, .. } = product;
        let (rows, panels) = (out.rows(), out.columns() / PANEL_COLUMNS);
        let at_once = if rows > TILE_ROWS { PANELS_OF_TWO_TILES } else { PANELS_OF_ONE_TILE };
        for panel in (0..panels).step_by(at_once) {
            let count = at_once.min(panels - panel);
            self.0.multiply(TileProduct {
                a: a.elements.as_flattened(),
                a_stride: SLICE,
                a_step: SLICE * a.stride,
                b: &b[panel * b_stride..],
                b_stride,
                steps: 2 * pairs / K_TILE,
                out: out.part(0, rows, panel * PANEL_COLUMNS, count * PANEL_COLUMNS),
                accumulate,
            });
        }
    }
}
