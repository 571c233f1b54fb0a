//! The matrix product against f64, and the same bits whoever computes a row and with whom.

mod common;

use common::{F32_ROUNDING, Random, TINY, Weight, bits, on_every_isa, panic_of, with_threads};
use cpu_kernels::{Isa, Kernels, bf16};
use proptest::prelude::*;

on_every_isa!(
    edges,
    random_shapes,
    long_sums,
    integers_are_exact,
    close_to_portable,
    the_same_bits_in_any_batch,
    the_same_bits_with_any_threads,
    special_values_stay_in_their_column,
    sizes_are_checked,
);

fn gemm(kernels: Kernels, a: &[bf16], weight: &Weight) -> Vec<f32> {
    // Not zero, so that a test sees an element that was not written.
    let mut out = vec![f32::NAN; a.len() / weight.k * weight.n];
    kernels.gemm(a, weight.matrix(), &mut out);
    out
}

/// How far a sum of k products may be from the truth: products of two bf16 are exact in fp32, so each of the k
/// additions rounds once, and no partial sum is larger than the sum of magnitudes (1 + 2^-10 of it is for the
/// rounding of the partial sums themselves).
fn bound(k: usize, magnitudes: f64) -> f64 {
    (1.0 + 1.0 / 1024.0) * k as f64 * F32_ROUNDING * magnitudes + k as f64 * TINY
}

fn dot(a: &[bf16], w: &[bf16]) -> (f64, f64) {
    a.iter().zip(w).fold((0.0, 0.0), |(sum, magnitudes), (a, w)| {
        let product = a.to_f64() * w.to_f64();
        (sum + product, magnitudes + product.abs())
    })
}

fn check(kernels: Kernels, m: usize, n: usize, k: usize) {
    let mut random = Random((m * 1_000_003 + n * 1009 + k) as u64);
    let (a, w) = (random.bf16s(m * k, 2.0), random.bf16s(n * k, 0.5));
    let out = gemm(kernels, &a, &Weight::pack(&w, k));
    for (out, a) in out.chunks_exact(n).zip(a.chunks_exact(k)) {
        for (found, w) in out.iter().zip(w.chunks_exact(k)) {
            let (expected, magnitudes) = dot(a, w);
            let error = (f64::from(*found) - expected).abs();
            assert!(error <= bound(k, magnitudes), "{m} x {n} x {k}: {found}, expected {expected}");
        }
    }
}

fn edges(kernels: Kernels) {
    let sizes = [1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65];
    for m in [1, 2, 3, 4, 5, 6, 7, 15, 16, 17, 33, 65] {
        for n in sizes {
            for k in sizes {
                check(kernels, m, n, k);
            }
        }
    }
}

fn random_shapes(kernels: Kernels) {
    let mut random = Random(7);
    for _ in 0..40 {
        let mut size = |limit| 1 + random.next() as usize % limit;
        let (m, n, k) = (size(40), size(300), size(700));
        check(kernels, m, n, k);
    }
}

/// Long enough that k is cut where rows share panels, and so many rows that they are cut too.
fn long_sums(kernels: Kernels) {
    for (m, n, k) in [(1, 20, 9000), (13, 70, 4096), (13, 70, 4097), (7, 33, 9000), (1057, 20, 600)] {
        check(kernels, m, n, k);
    }
}

/// Small integers: every partial sum is exact, so every order gives the same, and nothing may be off at all.
fn integers_are_exact(kernels: Kernels) {
    for (m, n, k) in [(1, 40, 100), (9, 40, 33), (20, 100, 4200)] {
        let mut random = Random(k as u64);
        let mut integers =
            |len: usize| -> Vec<bf16> { (0..len).map(|_| bf16::from_f32((random.next() % 17) as f32 - 8.0)).collect() };
        let (a, w) = (integers(m * k), integers(n * k));
        let out = gemm(kernels, &a, &Weight::pack(&w, k));
        let expected: Vec<f32> =
            a.chunks_exact(k).flat_map(|a| w.chunks_exact(k).map(|w| dot(a, w).0 as f32)).collect();
        assert_eq!(out, expected);
    }
}

fn close_to_portable(kernels: Kernels) {
    let Some(portable) = Kernels::for_isa(Isa::Portable) else { panic!("portable needs nothing") };
    let mut runner = proptest::test_runner::TestRunner::new_with_rng(
        ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() },
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let shapes = (1_usize..20, 1_usize..100, 1_usize..300, any::<u64>(), -20..20);
    let result = runner.run(&shapes, |(m, n, k, seed, exponent)| {
        let mut random = Random(seed);
        let (a, w) = (random.bf16s(m * k, 2.0_f32.powi(exponent)), random.bf16s(n * k, 1.0));
        let weight = Weight::pack(&w, k);
        let (found, expected) = (gemm(kernels, &a, &weight), gemm(portable, &a, &weight));
        for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
            let (_, magnitudes) = dot(&a[i / n * k..][..k], &w[i % n * k..][..k]);
            let error = (f64::from(*found) - f64::from(*expected)).abs();
            prop_assert!(error <= 2.0 * bound(k, magnitudes), "{m} x {n} x {k}: {found}, portable {expected}");
        }
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{}: {failure}", kernels.isa());
    }
}

fn the_same_bits_in_any_batch(kernels: Kernels) {
    for (n, k) in [(1, 1), (50, 31), (80, 64), (130, 257), (48, 4200), (200, 9001)] {
        let mut random = Random((n + k) as u64);
        let (a, w) = (random.bf16s(64 * k, 1.0), random.bf16s(n * k, 1.0));
        let weight = Weight::pack(&w, k);
        let all = gemm(kernels, &a, &weight);
        for m in [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 17, 33, 63] {
            for first in [0, 1, 30, 64 - m].into_iter().filter(|first| first + m <= 64) {
                let some = gemm(kernels, &a[first * k..][..m * k], &weight);
                assert_eq!(bits(&some), bits(&all[first * n..][..m * n]), "{n} x {k}: {m} rows from {first}");
            }
        }
    }
}

fn the_same_bits_with_any_threads(kernels: Kernels) {
    for (m, n, k) in [(1, 1000, 300), (17, 500, 129), (200, 70, 100), (500, 33, 65), (300, 16, 64), (1000, 20, 64)] {
        let mut random = Random((m + n + k) as u64);
        let (a, w) = (random.bf16s(m * k, 1.0), random.bf16s(n * k, 1.0));
        let weight = Weight::pack(&w, k);
        let alone = with_threads(1, || gemm(kernels, &a, &weight));
        for threads in [2, 3, 5, 16] {
            let shared = with_threads(threads, || gemm(kernels, &a, &weight));
            assert_eq!(bits(&alone), bits(&shared), "{m} x {n} x {k} on {threads} threads");
        }
    }
}

fn special_values_stay_in_their_column(kernels: Kernels) {
    let (n, k) = (37, 45);
    let mut random = Random(3);
    let (a, mut w) = (random.bf16s(3 * k, 1.0), random.bf16s(n * k, 1.0));
    w[5 * k + 7] = bf16::NAN;
    w[36 * k + 44] = bf16::INFINITY;
    let out = gemm(kernels, &a, &Weight::pack(&w, k));
    for (i, x) in out.iter().enumerate() {
        match i % n {
            5 => assert!(x.is_nan()),
            36 => assert!(x.is_infinite()),
            _ => assert!(x.is_finite()),
        }
    }
}

fn sizes_are_checked(kernels: Kernels) {
    let weight = Weight::pack(&[bf16::ONE; 60], 20);
    let mut out = [0.0; 6];
    let message = panic_of(|| kernels.gemm(&[bf16::ONE; 21], weight.matrix(), &mut out));
    assert!(message.contains("whole rows of 20"), "{message}");
    let message = panic_of(|| kernels.gemm(&[bf16::ONE; 20], weight.matrix(), &mut out));
    assert!(message.contains("out must be 1 x 3"), "{message}");
    kernels.gemm(&[], weight.matrix(), &mut []);
    let narrow = Weight::pack(&[bf16::ONE; 57], 19);
    let both = [weight.matrix(), narrow.matrix()];
    let message = panic_of(|| kernels.gemm_stacked(&[bf16::ONE; 20], &both, &mut out));
    assert!(message.contains("the k of the first, 20"), "{message}");
    let message = panic_of(|| kernels.gemm_stacked(&[bf16::ONE; 20], &[weight.matrix(); 2], &mut out[..5]));
    assert!(message.contains("out must be 1 x 6"), "{message}");
    let message = panic_of(|| kernels.gemm_stacked(&[bf16::ONE; 20], &[], &mut out));
    assert!(message.contains("needs a matrix"), "{message}");
}

/// Both add the products of even and odd k in turn to one fp32 sum, each rounded once.
#[test]
fn avx512f_and_avx2_give_the_same_bits() {
    let kernels = [Isa::Avx512f, Isa::Avx2].map(|isa| common::kernels(isa, "the same bits"));
    let [Some(wide), Some(narrow)] = kernels else { return };
    for (m, n, k) in [(1, 70, 300), (5, 50, 31), (12, 33, 1000), (40, 130, 2100), (450, 20, 64)] {
        let mut random = Random((m + n + k) as u64);
        let (a, w) = (random.bf16s(m * k, 1.0), random.bf16s(n * k, 1.0));
        let weight = Weight::pack(&w, k);
        assert_eq!(bits(&gemm(wide, &a, &weight)), bits(&gemm(narrow, &a, &weight)), "{m} x {n} x {k}");
    }
}
