//! The products of attention where VDPBF16PS is at hand: it multiplies values, whose weights are rounded to bf16. Queries stay
//! in fp32: rounded, they move log-probabilities by more than bf16 elsewhere does.
//!
//! For each element the pairs are added in their order to one running sum, whatever rows and panels come with it.

use std::arch::x86_64::*;

use half::bf16;

use super::{Avx512Bf16, as_bf16};
use crate::generic::attention_products::{PAIRS, Pair, PairProduct, Products, multiply_fp32};
use crate::packed::PANEL_COLUMNS;
use crate::simd::Simd;

/// The most rows whose sums are held in registers: with those of two panels 24 of 32.
const ROWS: usize = 12;

/// So few rows leave registers for twice the panels. They use values faster than memory delivers them, so the next are fetched.
const FEW_ROWS: usize = 4;

/// Products on a CPU that has the instructions.
pub(super) struct Bf16Weights(pub(super) Avx512Bf16);

impl Products for Bf16Weights {
    type Query = f32;
    type Weight = bf16;
    const QUERY_PARTS: usize = 1;
    const ROWS: usize = 32;

    fn depth(head_dim: usize) -> usize {
        head_dim
    }

    #[inline(always)]
    fn query(x: f32, _: usize) -> f32 {
        x
    }

    #[inline(always)]
    fn store_weights<S: Simd>(s: S, v: S::Vector, out: &mut [bf16]) {
        s.store_bf16(v, out);
    }

    #[inline(always)]
    fn multiply_keys<S: Simd>(&mut self, s: S, product: PairProduct<'_, f32>) {
        multiply_fp32(s, product);
    }

    #[inline(always)]
    fn multiply_values<S: Simd>(&mut self, _: S, product: PairProduct<'_, bf16>) {
        self.0.multiply_values(product);
    }
}

impl Avx512Bf16 {
    fn multiply_values(self, product: PairProduct<'_, bf16>) {
        // SAFETY: `self` proves the instructions that `multiply` is compiled with.
        unsafe { multiply(product) }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
fn multiply(mut product: PairProduct<'_, bf16>) {
    assert_eq!(product.pairs, PAIRS, "weights of one slice");
    let (rows, panels) = (product.out.rows(), product.out.columns() / PANEL_COLUMNS);
    let mut row = 0;
    while row < rows {
        let left = rows - row;
        let count = if left >= ROWS { ROWS } else { left.min(8) };
        let at_once = if count <= FEW_ROWS { 4 } else { 2 };
        let mut panel = 0;
        while panel < panels {
            let columns = at_once.min(panels - panel);
            match columns {
                4 => few_rows::<4>(&mut product, row, count, panel),
                3 => few_rows::<3>(&mut product, row, count, panel),
                2 => dispatch_rows::<2>(&mut product, row, count, panel),
                _ => dispatch_rows::<1>(&mut product, row, count, panel),
            }
            panel += columns;
        }
        row += count;
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
fn dispatch_rows<const P: usize>(product: &mut PairProduct<'_, bf16>, row: usize, rows: usize, panel: usize) {
    match rows {
        ..=FEW_ROWS => few_rows::<P>(product, row, rows, panel),
        5 => microkernel::<5, P>(product, row, panel),
        6 => microkernel::<6, P>(product, row, panel),
        7 => microkernel::<7, P>(product, row, panel),
        8 => microkernel::<8, P>(product, row, panel),
        _ => microkernel::<ROWS, P>(product, row, panel),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
fn few_rows<const P: usize>(product: &mut PairProduct<'_, bf16>, row: usize, rows: usize, panel: usize) {
    match rows {
        1 => microkernel::<1, P>(product, row, panel),
        2 => microkernel::<2, P>(product, row, panel),
        3 => microkernel::<3, P>(product, row, panel),
        _ => microkernel::<FEW_ROWS, P>(product, row, panel),
    }
}

/// Rows `row..row + R` and panels `panel..panel + P` of the product.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")]
fn microkernel<const R: usize, const P: usize>(product: &mut PairProduct<'_, bf16>, row: usize, panel: usize) {
    let rows = &product.a.elements[row..].as_chunks::<R>().0[0];
    let mut panels: [[&[Pair]; P]; 2] = [[&[]; P]; 2];
    for (panels, b) in panels.iter_mut().zip([product.b, product.next]) {
        for (p, pairs) in panels.iter_mut().enumerate() {
            *pairs = &b[(panel + p) * product.b_stride..].as_chunks().0[..PAIRS];
        }
    }
    let [panels, next] = panels;
    let mut out = product.out.part(row, R, panel * PANEL_COLUMNS, P * PANEL_COLUMNS);
    let mut sums = [[_mm512_setzero_ps(); P]; R];
    if product.accumulate {
        for (r, sums) in sums.iter_mut().enumerate() {
            for (sum, saved) in sums.iter_mut().zip(out.row(r).as_chunks::<PANEL_COLUMNS>().0) {
                // SAFETY: an array of 16 is read.
                *sum = unsafe { _mm512_loadu_ps(saved.as_ptr()) };
            }
        }
    }
    for pair in 0..PAIRS {
        let mut values = [_mm512_setzero_si512(); P];
        for (value, (panel, next)) in values.iter_mut().zip(panels.iter().zip(next)) {
            // SAFETY: an array of 32 bf16 is read. What is fetched may be anywhere.
            *value = unsafe {
                if R <= FEW_ROWS {
                    _mm_prefetch::<_MM_HINT_T0>(next[pair].as_ptr().cast());
                }
                _mm512_loadu_si512(panel[pair].as_ptr().cast())
            };
        }
        for (sums, row) in sums.iter_mut().zip(rows) {
            // SAFETY: a pair of bf16 is read, which is four bytes without invalid patterns; `pair` is below half of the row.
            let weights = unsafe { row.as_ptr().cast::<i32>().add(pair).read_unaligned() };
            let weights = as_bf16(_mm512_set1_epi32(weights));
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum = _mm512_dpbf16_ps(*sum, as_bf16(value), weights);
            }
        }
    }
    for (r, sums) in sums.into_iter().enumerate() {
        for (sum, out) in sums.into_iter().zip(out.row(r).as_chunks_mut::<PANEL_COLUMNS>().0) {
            // SAFETY: an array of 16 is written.
            unsafe { _mm512_storeu_ps(out.as_mut_ptr(), sum) };
        }
    }
}
