//! A tile unit in plain Rust: slow, and the same bits as the CPU's.

#![forbid(unsafe_code)]

use half::bf16;

use super::tile_unit::{B_TILE, CODE_TILE, CodeProduct, TILE_ROWS, TileProduct, TileSession, TileUnit};
use crate::instruction_set::InstructionSet;
use crate::packed::{K_TILE, PANEL_COLUMNS};
use crate::portable::Portable;
use crate::quantized::BLOCK;
use crate::simd::widen;

/// The token of a unit that every CPU has.
#[derive(Clone, Copy)]
pub(crate) struct Software;

impl TileUnit for Software {
    type Session = Software;
    const CODE_INSTRUCTIONS: &'static str = "portable code";

    fn open(self) -> Software {
        Software
    }

    fn multiply_adds(self, rounds: usize) -> u64 {
        let (a, b) = ([bf16::ONE; TILE_ROWS * K_TILE], [bf16::ONE; B_TILE]);
        let mut sums = [[0.0; PANEL_COLUMNS]; TILE_ROWS];
        for _ in 0..rounds {
            for (sums, a) in sums.iter_mut().zip(a.chunks_exact(K_TILE)) {
                add_products(a, &b, sums);
            }
        }
        std::hint::black_box(sums);
        (rounds * TILE_ROWS * B_TILE * 2) as u64
    }

    fn code_multiply_adds(self, rounds: usize) -> u64 {
        Portable.code_multiply_adds(rounds)
    }
}

impl TileSession for Software {
    fn multiply(&mut self, product: TileProduct<'_>) {
        let panels = product.check();
        let TileProduct { a, a_stride, a_step, b, b_stride, steps, mut out, accumulate } = product;
        for row in 0..out.rows() {
            for panel in 0..panels {
                let out = &mut out.row(row)[panel * PANEL_COLUMNS..][..PANEL_COLUMNS];
                if !accumulate {
                    out.fill(0.0);
                }
                for step in 0..steps {
                    let a = &a[row * a_stride + step * a_step..][..K_TILE];
                    add_products(a, &b[panel * b_stride + step * B_TILE..][..B_TILE], out);
                }
            }
        }
    }

    fn multiply_codes(&mut self, product: CodeProduct<'_>) {
        product.check();
        let CodeProduct { a, a_stride, rows, b, out } = product;
        for (block, (out, b)) in out.iter_mut().zip(b.as_chunks::<CODE_TILE>().0).enumerate() {
            for (row, out) in out[..rows].iter_mut().enumerate() {
                out.fill(0);
                let (quads, _) = a[row * a_stride + block * BLOCK..][..BLOCK].as_chunks::<4>();
                for (a, quad) in quads.iter().zip(b.as_chunks::<{ 4 * PANEL_COLUMNS }>().0) {
                    for (out, codes) in out.iter_mut().zip(quad.as_chunks::<4>().0) {
                        *out += codes.iter().zip(a).map(|(code, a)| i32::from(*code) * i32::from(*a)).sum::<i32>();
                    }
                }
            }
        }
    }
}

/// out `[16]` += a `[32]` . b, for one row of an A tile and a B tile.
fn add_products(a: &[bf16], b: &[bf16], out: &mut [f32]) {
    let (mut even, mut odd) = ([0.0; PANEL_COLUMNS], [0.0; PANEL_COLUMNS]);
    for (a, pair) in a.chunks_exact(2).zip(b.chunks_exact(2 * PANEL_COLUMNS)) {
        let (first, second) = (normal(widen(a[0])), normal(widen(a[1])));
        for ((even, odd), b) in even.iter_mut().zip(&mut odd).zip(pair.chunks_exact(2)) {
            *even = normal(first.mul_add(normal(widen(b[0])), *even));
            *odd = normal(second.mul_add(normal(widen(b[1])), *odd));
        }
    }
    for ((out, even), odd) in out.iter_mut().zip(even).zip(odd) {
        *out = normal(normal(*out) + normal(even + odd));
    }
}

/// `x`, or a zero of its sign where it is subnormal.
#[inline(always)]
fn normal(x: f32) -> f32 {
    if x.is_subnormal() { 0.0_f32.copysign(x) } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::submatrix::Submatrix;

    /// One step with the given pairs of (a, b) at the first k, for row 0 and column 0.
    fn step(pairs: &[(f32, f32)], start: f32) -> f32 {
        let (mut a, mut b) = ([bf16::ZERO; K_TILE], [bf16::ZERO; B_TILE]);
        for (k, (left, right)) in pairs.iter().enumerate() {
            a[k] = bf16::from_f32(*left);
            b[k / 2 * 2 * PANEL_COLUMNS + k % 2] = bf16::from_f32(*right);
        }
        let mut out = [0.0; PANEL_COLUMNS];
        out[0] = start;
        let out_tile = Submatrix::new(&mut out, 1, PANEL_COLUMNS);
        let product = TileProduct {
            a: &a,
            a_stride: 0,
            a_step: K_TILE,
            b: &b,
            b_stride: 0,
            steps: 1,
            out: out_tile,
            accumulate: true,
        };
        Software.multiply(product);
        out[0]
    }

    #[test]
    fn even_and_odd_k_are_summed_apart_and_then_added() {
        // 2^30 + 1 loses the 1 and so does 1 - 2^30, unless the chains are apart.
        let large = (1_u32 << 30) as f32;
        assert_eq!(step(&[(large, 1.0), (1.0, 1.0), (-large, 1.0), (1.0, 1.0)], 0.0), 2.0);
        assert_eq!(step(&[(large, 1.0), (1.0, 1.0), (1.0, 1.0), (-large, 1.0)], 0.0), 0.0);
        // The accumulator comes last: 1 + (2^30 - 2^30).
        assert_eq!(step(&[(large, 1.0), (-large, 1.0)], 1.0), 1.0);
        // A product is not rounded before it is added: (1 + 2^-7)^2 - 1 keeps its 2^-14.
        let x = 1.0 + 1.0 / 128.0;
        assert_eq!(step(&[(-1.0, 1.0), (0.0, 0.0), (x, x)], 0.0), 1.0 / 64.0 + 1.0 / 16384.0);
    }

    #[test]
    fn subnormals_are_zero_on_both_sides() {
        let tiny = f32::MIN_POSITIVE / 2.0;
        assert_eq!(step(&[(tiny, 2.0)], 0.0), 0.0);
        assert_eq!(step(&[(2.0, tiny)], 0.0), 0.0);
        assert_eq!(step(&[(f32::MIN_POSITIVE, 0.5)], 0.0), 0.0);
        assert_eq!(step(&[], tiny), 0.0);
        assert_eq!(step(&[(f32::MIN_POSITIVE, 1.0)], 0.0), f32::MIN_POSITIVE);
    }
}
