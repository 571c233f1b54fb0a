//! Matrix products and attention over a unit that multiplies tiles, as AMX has one.
//!
//! What is multiplied, in which order, and what happens at the edges is here, for any [`tile_unit::TileUnit`]: the
//! CPU's, or [`software::Software`], which computes the same bits anywhere.

#![forbid(unsafe_code)]

mod attention;
mod gemm;
mod quantized;
pub(crate) mod software;
pub(crate) mod tile_unit;

use std::borrow::Cow;
use std::ops::Range;

use half::bf16;

use crate::attention::QueryTile;
use crate::generic::attention::{Attend, Partial};
use crate::instruction_set::{InstructionSet, pad_rows};
use crate::quantized::Panels;
use crate::quantized::rows::Rows;
use crate::simd::Task;
use crate::submatrix::Submatrix;
use tile_unit::TileUnit;

/// Products with a tile unit, everything else with another instruction set.
#[derive(Clone, Copy)]
pub(crate) struct Tiled<U, I> {
    pub(crate) unit: U,
    pub(crate) vectors: I,
}

impl<U: TileUnit, I: InstructionSet> InstructionSet for Tiled<U, I> {
    type Activation = bf16;

    #[inline(always)]
    fn vectorize<T: Task>(self, task: T) {
        self.vectors.vectorize(task);
    }

    fn activations(self, a: &[bf16], k: usize, padded_k: usize) -> Cow<'_, [bf16]> {
        pad_rows(a, k, padded_k)
    }

    fn multiply(self, a: &[bf16], padded_k: usize, panels: &[bf16], out: Submatrix<'_, f32>) {
        gemm::multiply(self.unit, a, padded_k, panels, out);
    }

    fn code_rows(self, rows: usize) -> usize {
        if rows <= quantized::FEW_ROWS { self.vectors.code_rows(rows) } else { 1 }
    }

    fn multiply_quantized(self, rows: Rows<'_>, panels: Panels<'_>, out: Submatrix<'_, f32>) {
        if rows.count() <= quantized::FEW_ROWS {
            self.vectors.multiply_quantized(rows, panels, out);
        } else {
            self.vectors.vectorize(quantized::TiledProduct { unit: self.unit, rows, panels, out });
        }
    }

    fn code_instructions(self) -> &'static str {
        U::CODE_INSTRUCTIONS
    }

    #[inline(always)]
    fn attend(self, tile: &QueryTile<'_>, positions: Range<usize>) -> Partial {
        let mut partial = Partial::new(tile);
        let products = attention::TileProducts(self.unit.open());
        self.vectors.vectorize(Attend { products, tile, positions, partial: &mut partial });
        partial
    }

    fn multiply_adds(self, rounds: usize) -> u64 {
        self.unit.multiply_adds(rounds)
    }

    fn code_multiply_adds(self, rounds: usize) -> u64 {
        self.unit.code_multiply_adds(rounds)
    }
}
