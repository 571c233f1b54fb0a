//! Rotary position embedding.

use crate::simd::{Simd, Task};

/// Rotates each head of `x` `[tokens, heads, head_dim]` by the angles of its token: element i of the first half
/// and element i of the second half are one point of a plane (the NeoX pairing).
pub(crate) struct Rope<'a> {
    pub(crate) x: &'a mut [f32],
    pub(crate) heads: usize,
    pub(crate) head_dim: usize,
    /// `[tokens, head_dim / 2]`
    pub(crate) cos: &'a [f32],
    /// `[tokens, head_dim / 2]`
    pub(crate) sin: &'a [f32],
}

impl Task for Rope<'_> {
    #[inline(always)]
    fn run<S: Simd>(self, s: S) {
        let half = self.head_dim / 2;
        debug_assert!(self.cos.len() == self.sin.len());
        debug_assert!(self.x.len() == self.cos.len() / half * self.heads * self.head_dim);
        let angles = self.cos.chunks_exact(half).zip(self.sin.chunks_exact(half));
        for (token, (cos, sin)) in self.x.chunks_exact_mut(self.heads * self.head_dim).zip(angles) {
            for head in token.chunks_exact_mut(self.head_dim) {
                rotate(s, head, cos, sin);
            }
        }
    }
}

#[inline(always)]
fn rotate<S: Simd>(s: S, head: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (first, second) = head.split_at_mut(cos.len());
    let halves = first.chunks_mut(S::LANES).zip(second.chunks_mut(S::LANES));
    for ((first, second), (cos, sin)) in halves.zip(cos.chunks(S::LANES).zip(sin.chunks(S::LANES))) {
        let (x, y, cos, sin) = (s.load(first), s.load(second), s.load(cos), s.load(sin));
        s.store(s.sub(s.mul(x, cos), s.mul(y, sin)), first);
        s.store(s.add(s.mul(y, cos), s.mul(x, sin)), second);
    }
}
