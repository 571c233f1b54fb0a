//! Operations that take each element by itself.

use half::bf16;

use super::exp::exp;
use crate::simd::{Simd, Task};

/// x += y, elementwise.
pub(crate) struct Add<'a> {
    pub(crate) x: &'a mut [f32],
    pub(crate) y: &'a [f32],
}

impl Task for Add<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        debug_assert_eq!(self.x.len(), self.y.len());
        for (x, y) in self.x.chunks_mut(S::LANES).zip(self.y.chunks(S::LANES)) {
            s.store(s.add(s.load(x), s.load(y)), x);
        }
    }
}

/// Adds `bias` `[width]` to every row of `x` `[rows, width]`.
pub(crate) struct AddBias<'a> {
    pub(crate) x: &'a mut [f32],
    pub(crate) bias: &'a [bf16],
}

impl Task for AddBias<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        debug_assert!(self.x.len().is_multiple_of(self.bias.len()));
        for row in self.x.chunks_exact_mut(self.bias.len()) {
            for (x, bias) in row.chunks_mut(S::LANES).zip(self.bias.chunks(S::LANES)) {
                s.store(s.add(s.load(x), s.load_bf16(bias)), x);
            }
        }
    }
}

/// out = silu(gate) up, with silu(x) = x / (1 + e^-x), rounded once.
pub(crate) struct SwiGlu<'a> {
    pub(crate) gate: &'a [f32],
    pub(crate) up: &'a [f32],
    pub(crate) out: &'a mut [bf16],
}

impl Task for SwiGlu<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        debug_assert!(self.up.len() == self.gate.len() && self.out.len() == self.gate.len());
        let (zero, one) = (s.splat(0.0), s.splat(1.0));
        let inputs = self.gate.chunks(S::LANES).zip(self.up.chunks(S::LANES));
        for ((gate, up), out) in inputs.zip(self.out.chunks_mut(S::LANES)) {
            let gate = s.load(gate);
            let silu = s.div(gate, s.add(one, exp(s, s.sub(zero, gate))));
            s.store_bf16(s.mul(silu, s.load(up)), out);
        }
    }
}
