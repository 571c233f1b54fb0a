//! The exponential function.

use crate::simd::Simd;

/// ln 2 in two parts. The first has so few bits that its product with any exponent of an f32 is exact.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;

/// q of e^r = 1 + r + r^2 q(r): the polynomial through the Chebyshev nodes of |r| <= ln 2 / 2, constant term
/// first. Its relative error there is 1.1e-8, a fifth of what rounding to f32 costs.
const Q: [f32; 5] = [0.5, 0.166_665_76, 0.041_666_556, 0.008_363_179, 0.001_392_618_4];

/// e^x within 3 units in the last place (normal results); 0 far below, infinity far above, NaN for NaN.
///
/// x = n ln 2 + r with an integer n, so e^x = 2^n e^r.
#[inline(always)]
pub(crate) fn exp<S: Simd>(s: S, x: S::Vector) -> S::Vector {
    // Beyond these the result is zero or infinite anyway, and n stays small.
    let x = s.min(s.splat(89.0), s.max(s.splat(-105.0), x));
    let n = s.round(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let r = s.fma(n, s.splat(-LN_2_HIGH), x);
    let r = s.fma(n, s.splat(-LN_2_LOW), r);
    let mut q = s.splat(Q[4]);
    for coefficient in Q[..4].iter().rev() {
        q = s.fma(q, r, s.splat(*coefficient));
    }
    let e = s.add(s.fma(s.mul(r, r), q, r), s.splat(1.0));
    s.scale(e, n)
}
