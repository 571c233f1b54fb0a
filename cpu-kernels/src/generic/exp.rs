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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kernels;
    use crate::instruction_set::InstructionSet;
    use crate::kernels::with_isa;
    use crate::simd::Task;

    struct Exp<'a>(&'a [f32], &'a mut [f32]);

    impl Task for Exp<'_> {
        #[inline(always)]
        fn run<S: Simd>(self, s: S) {
            for (x, out) in self.0.chunks(S::LANES).zip(self.1.chunks_mut(S::LANES)) {
                s.store(exp(s, s.load(x)), out);
            }
        }
    }

    fn exp_of(kernels: Kernels, x: &[f32]) -> Vec<f32> {
        let mut out = vec![0.0; x.len()];
        with_isa!(kernels, isa => isa.vectorize(Exp(x, &mut out)));
        out
    }

    #[test]
    fn within_three_units_of_f64_everywhere() {
        for kernels in crate::Isa::ALL.into_iter().filter_map(Kernels::for_isa) {
            let x: Vec<f32> = (-104_500..=88_700).map(|i| i as f32 / 1000.0 + (i % 7) as f32 * 1e-5).collect();
            for (x, found) in x.iter().zip(exp_of(kernels, &x)) {
                let expected = f64::from(*x).exp();
                let ulp = (expected * f64::from(f32::EPSILON)).max(f64::from(f32::MIN_POSITIVE * f32::EPSILON));
                let error = (f64::from(found) - expected).abs();
                assert!(error <= 3.0 * ulp, "{}: exp({x}) = {found}, expected {expected}", kernels.isa());
            }
        }
    }

    #[test]
    fn limits() {
        for kernels in crate::Isa::ALL.into_iter().filter_map(Kernels::for_isa) {
            let x = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, 1000.0, -1000.0, 89.0, -105.0, f32::NAN];
            let found = exp_of(kernels, &x);
            assert_eq!(found[..8], [1.0, 1.0, f32::INFINITY, 0.0, f32::INFINITY, 0.0, f32::INFINITY, 0.0]);
            assert!(found[8].is_nan(), "{}", kernels.isa());
        }
    }
}
