//! Plain Rust in a form that compilers vectorize: complete, and what the other instruction sets are tested against.

#![forbid(unsafe_code)]

mod gemm;
mod quantized;

use std::borrow::Cow;

use half::bf16;

use crate::generic::multiply_adds::MultiplyAdds;
use crate::instruction_set::InstructionSet;
use crate::quantized::Panels;
use crate::quantized::rows::Rows;
use crate::simd::{Simd, Task, widen, widen_rows};
use crate::submatrix::Submatrix;

const LANES: usize = 8;

/// The token of an instruction set that every CPU has.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

/// Lane by lane. No multiply-add is fused here: where the CPU lacks the instruction that is a slow library call.
#[inline(always)]
fn map2(a: [f32; LANES], b: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> [f32; LANES] {
    let mut out = [0.0; LANES];
    for i in 0..LANES {
        out[i] = f(a[i], b[i]);
    }
    out
}

/// Halves until one is left, so that the order is that of the other instruction sets' reductions.
#[inline(always)]
fn reduce(mut v: [f32; LANES], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut width = LANES;
    while width > 1 {
        width /= 2;
        for i in 0..width {
            v[i] = f(v[i], v[i + width]);
        }
    }
    v[0]
}

#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits(((n + 127) as u32) << 23)
}

impl Simd for Portable {
    type Vector = [f32; LANES];
    const LANES: usize = LANES;

    #[inline(always)]
    fn splat(self, x: f32) -> Self::Vector {
        [x; LANES]
    }

    #[inline(always)]
    fn load(self, x: &[f32]) -> Self::Vector {
        let mut v = [0.0; LANES];
        if let Some(x) = x.first_chunk::<LANES>() {
            return *x;
        }
        v[..x.len()].copy_from_slice(x);
        v
    }

    #[inline(always)]
    fn load_bf16(self, x: &[bf16]) -> Self::Vector {
        let mut v = [0.0; LANES];
        for (v, x) in v.iter_mut().zip(x) {
            *v = widen(*x);
        }
        v
    }

    #[inline(always)]
    fn load_pairs(self, x: &[bf16]) -> [Self::Vector; 2] {
        let (mut even, mut odd) = ([0.0; LANES], [0.0; LANES]);
        for (i, pair) in x[..2 * LANES].as_chunks::<2>().0.iter().enumerate() {
            (even[i], odd[i]) = (widen(pair[0]), widen(pair[1]));
        }
        [even, odd]
    }

    #[inline(always)]
    fn store(self, v: Self::Vector, out: &mut [f32]) {
        for (out, v) in out.iter_mut().zip(v) {
            *out = v;
        }
    }

    #[inline(always)]
    fn store_bf16(self, v: Self::Vector, out: &mut [bf16]) {
        for (out, v) in out.iter_mut().zip(v) {
            *out = bf16::from_f32(v);
        }
    }

    #[inline(always)]
    fn add(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        map2(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        map2(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        map2(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        map2(a, b, |a, b| a / b)
    }

    #[inline(always)]
    fn fma(self, a: Self::Vector, b: Self::Vector, c: Self::Vector) -> Self::Vector {
        self.add(self.mul(a, b), c)
    }

    #[inline(always)]
    fn min(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        map2(a, b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn max(self, a: Self::Vector, b: Self::Vector) -> Self::Vector {
        map2(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn round(self, v: Self::Vector) -> Self::Vector {
        v.map(f32::round_ties_even)
    }

    #[inline(always)]
    fn scale(self, v: Self::Vector, n: Self::Vector) -> Self::Vector {
        // In two steps: 2^n itself may be out of range where v 2^n is not.
        map2(v, n, |v, n| {
            let n = n as i32;
            let half = n >> 1;
            v * power_of_two(half) * power_of_two(n - half)
        })
    }

    #[inline(always)]
    fn where_at_least(self, x: Self::Vector, threshold: Self::Vector, v: Self::Vector) -> Self::Vector {
        let mut out = [0.0; LANES];
        for i in 0..LANES {
            out[i] = if x[i] >= threshold[i] { v[i] } else { 0.0 };
        }
        out
    }

    #[inline(always)]
    fn any_above(self, a: Self::Vector, b: Self::Vector) -> bool {
        a.iter().zip(b).any(|(a, b)| *a > b)
    }

    #[inline(always)]
    fn sum(self, v: Self::Vector) -> f32 {
        reduce(v, |a, b| a + b)
    }

    #[inline(always)]
    fn largest(self, v: Self::Vector) -> f32 {
        reduce(v, |a, b| if a > b { a } else { b })
    }
}

impl InstructionSet for Portable {
    type Activation = f32;

    #[inline(always)]
    fn vectorize<T: Task>(self, task: T) {
        task.run(self);
    }

    fn activations(self, a: &[bf16], k: usize, padded_k: usize) -> Cow<'_, [f32]> {
        Cow::Owned(widen_rows(a, k, padded_k))
    }

    fn multiply(self, a: &[f32], padded_k: usize, panels: &[bf16], out: Submatrix<'_, f32>) {
        gemm::multiply(a, padded_k, panels, out);
    }

    fn multiply_quantized(self, rows: Rows<'_>, panels: Panels<'_>, out: Submatrix<'_, f32>) {
        quantized::multiply(rows, panels, out);
    }

    fn code_instructions(self) -> &'static str {
        "portable code"
    }

    fn multiply_adds(self, rounds: usize) -> u64 {
        // Compilers' baseline of x86-64 has 16 registers of half a vector each.
        let mut flops = 0;
        self.vectorize(MultiplyAdds::<6> { rounds, flops: &mut flops });
        flops
    }
}
