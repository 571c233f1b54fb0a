//! Tests of what is not public, on every instruction set of this CPU. They stand above all of them, so that no
//! algorithm needs to know where it is run.

use half::bf16;

use crate::any_instruction_set::with_isa;
use crate::generic::exp::exp;
use crate::instruction_set::InstructionSet;
use crate::isa::Isa;
use crate::kernels::Kernels;
use crate::simd::{Simd, Task};

/// Says that a test has left something out, in a line that captured output does not swallow: what was not run must not look like
/// what has passed.
pub(crate) fn discarded(what: &str, test: &str) {
    use std::io::Write;
    let line = format!("\nDISCARDED: {test} for {what}, which this CPU lacks\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// The kernels of every instruction set that this CPU has; of each other one a line says so.
pub(crate) fn kernels_here(test: &str) -> impl Iterator<Item = Kernels> {
    Isa::ALL.into_iter().filter_map(move |isa| {
        let kernels = Kernels::for_isa(isa);
        if kernels.is_none() {
            discarded(isa.name(), test);
        }
        kernels
    })
}

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
    with_isa!(kernels.0, isa => isa.vectorize(Exp(x, &mut out)));
    out
}

#[test]
fn exp_is_within_three_units_of_f64_everywhere() {
    for kernels in kernels_here("exp_is_within_three_units_of_f64_everywhere") {
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
fn exp_at_the_limits() {
    for kernels in kernels_here("exp_at_the_limits") {
        let x = [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, 1000.0, -1000.0, 89.0, -105.0, f32::NAN];
        let found = exp_of(kernels, &x);
        assert_eq!(found[..8], [1.0, 1.0, f32::INFINITY, 0.0, f32::INFINITY, 0.0, f32::INFINITY, 0.0]);
        assert!(found[8].is_nan(), "{}", kernels.isa());
    }
}

/// The kernels that a better one stands before on this CPU.
#[cfg(target_arch = "x86_64")]
#[test]
fn codes_have_the_same_products_without_vnni() {
    use crate::any_instruction_set::AnyInstructionSet;
    use crate::packed::PackedMatrix;
    use crate::portable::Portable;
    use crate::quantized::Quantization;
    use crate::x86_64::{avx2::Avx2, avx512::Avx512};

    let mut seed = 1_u32;
    let mut next = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    let sets = [
        ("AVX-VNNI", Avx2::new().filter(|set| set.code_instructions() == "AVX-VNNI").map(AnyInstructionSet::Avx2)),
        ("avx2", Avx2::new().map(|set| AnyInstructionSet::Avx2(set.without_vnni()))),
        ("avx512f", Avx512::new().map(|set| AnyInstructionSet::Avx512f(set.without_vnni()))),
    ];
    assert!(sets[1].1.is_none_or(|set| Kernels(set).code_instructions() == "AVX2"));
    for (name, _) in sets.iter().filter(|(_, set)| set.is_none()) {
        discarded(name, "codes_have_the_same_products_without_vnni");
    }
    for (m, n, k) in [(1, 20, 70), (4, 35, 320), (7, 16, 2100), (20, 50, 130)] {
        let a: Vec<bf16> = (0..m * k).map(|_| bf16::from_f32(next())).collect();
        // Every third weight is at an end of the range, which gives the largest codes.
        let w: Vec<bf16> =
            (0..n * k).map(|i| bf16::from_f32(if i % 3 == 0 { next().signum() } else { next() })).collect();
        for quantization in Quantization::ALL {
            let mut data = vec![0; quantization.packed_bytes(n, k).unwrap()];
            quantization.pack(&w, k, &mut data);
            let product = |set| {
                let mut out = vec![0.0; m * n];
                Kernels(set).gemm(&a, PackedMatrix::quantized(quantization, &data, n, k).unwrap(), &mut out);
                out.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            let expected = product(AnyInstructionSet::Portable(Portable));
            for set in sets.into_iter().filter_map(|(_, set)| set) {
                assert_eq!(product(set), expected, "{} {m} x {n} x {k}", quantization.name());
            }
        }
    }
}
