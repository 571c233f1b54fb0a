//! The product of integer codes: the bits of its contract on every instruction set, and how far it is from the truth.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use common::{Random, Weight, bits, on_every_isa, with_threads};
use cpu_kernels::packed::PANEL_COLUMNS;
use cpu_kernels::quantized::BLOCK;
use cpu_kernels::{Kernels, PackedMatrix, Quantization, bf16};
use half::f16;
use proptest::prelude::*;

on_every_isa!(
    edges,
    random_shapes_and_codes,
    long_sums,
    stacked_products_are_those_of_each,
    the_same_bits_in_any_batch,
    the_same_bits_with_any_threads,
    within_the_bound,
    a_row_that_is_not_finite_spoils_no_other,
    a_column_that_is_not_finite_spoils_no_other,
);

/// What is in a panel, as the documentation of the layout states it.
struct Codes {
    quantization: Quantization,
    data: Vec<u8>,
    n: usize,
    k: usize,
}

impl Codes {
    /// Any codes, zeros and finite scales; with `extreme`, mostly those at the ends.
    fn any(quantization: Quantization, n: usize, k: usize, extreme: bool, random: &mut Random) -> Codes {
        let mut data = vec![0; quantization.packed_bytes(n, k).unwrap()];
        data.iter_mut().for_each(|byte| {
            let any = random.next();
            *byte = match any >> 60 {
                0..=12 if extreme => [0, 255, 240, 15][any as usize % 4],
                _ => any as u8,
            };
        });
        let mut codes = Codes { quantization, data, n, k };
        for column in 0..n.next_multiple_of(PANEL_COLUMNS) {
            for block in 0..codes.blocks() {
                let at = codes.scale_at(column, block);
                let scale = f16::from_f32(0.001 + 0.01 * random.unit().abs());
                codes.data[at..at + 2].copy_from_slice(&scale.to_le_bytes());
            }
        }
        codes
    }

    fn pack(quantization: Quantization, rows: &[bf16], k: usize) -> Codes {
        let n = rows.len() / k;
        // Not zero, so that a test sees padding that was not written.
        let mut data = vec![0xaa; quantization.packed_bytes(n, k).unwrap()];
        quantization.pack(rows, k, &mut data);
        Codes { quantization, data, n, k }
    }

    fn matrix(&self) -> PackedMatrix<'_> {
        PackedMatrix::quantized(self.quantization, &self.data, self.n, self.k).unwrap()
    }

    fn blocks(&self) -> usize {
        self.k.next_multiple_of(64) / BLOCK
    }

    fn code_bytes(&self) -> usize {
        let padded_k = self.k.next_multiple_of(64);
        match self.quantization {
            Quantization::Int8 => padded_k * 16,
            Quantization::Int4 => padded_k * 8,
        }
    }

    fn panel(&self, column: usize) -> usize {
        column / 16 * self.quantization.panel_bytes(self.k).unwrap()
    }

    fn scale_at(&self, column: usize, block: usize) -> usize {
        self.panel(column) + self.code_bytes() + 2 * (16 * block + column % 16)
    }

    fn scale(&self, column: usize, block: usize) -> f32 {
        let at = self.scale_at(column, block);
        f16::from_le_bytes([self.data[at], self.data[at + 1]]).to_f32()
    }

    fn code(&self, column: usize, k: usize) -> i64 {
        let (panel, c) = (self.panel(column), column % 16);
        match self.quantization {
            Quantization::Int8 => i64::from(self.data[panel + (k / 4 * 16 + c) * 4 + k % 4]),
            Quantization::Int4 => {
                let byte = self.data[panel + (k / 8 * 16 + c) * 4 + k % 4];
                i64::from(if (k / 4).is_multiple_of(2) { byte & 15 } else { byte >> 4 })
            }
        }
    }

    /// How far the code of a weight is from zero, in sixteenths of a step for `int4`.
    fn distance(&self, column: usize, k: usize) -> i64 {
        match self.quantization {
            Quantization::Int8 => self.code(column, k) - 128,
            Quantization::Int4 => {
                let zeros = self.panel(column) + self.code_bytes() + 32 * self.blocks();
                16 * self.code(column, k) - i64::from(self.data[zeros + 16 * (k / BLOCK) + column % 16])
            }
        }
    }

    /// What a distance of one is, beside the scale.
    fn unit(&self) -> f32 {
        match self.quantization {
            Quantization::Int8 => 1.0,
            Quantization::Int4 => 1.0 / 16.0,
        }
    }

    fn weight(&self, column: usize, k: usize) -> f64 {
        f64::from(self.scale(column, k / BLOCK) * self.unit()) * self.distance(column, k) as f64
    }

    /// The contract, word by word.
    fn product(&self, a: &[bf16]) -> Vec<f32> {
        let rows = a.chunks_exact(self.k).map(|row| row.chunks(BLOCK).map(round).collect::<Vec<_>>());
        rows.flat_map(|row| {
            (0..self.n).map(move |column| {
                row.iter().enumerate().fold(0.0_f32, |sum, (block, (scale, codes))| {
                    let dot: i64 =
                        codes.iter().enumerate().map(|(i, code)| code * self.distance(column, block * BLOCK + i)).sum();
                    assert!(dot.abs() < 1 << 21, "{dot}");
                    (dot as f32).mul_add(self.scale(column, block) * (scale * self.unit()), sum)
                })
            })
        })
        .collect()
    }
}

/// The scale and the codes of a block of activations.
fn round(block: &[bf16]) -> (f32, Vec<i64>) {
    let largest = block.iter().fold(0.0_f32, |largest, x| largest.max(x.to_f32().abs()));
    if block.iter().any(|x| !x.is_finite()) {
        return (f32::NAN, vec![0; block.len()]);
    }
    if largest < 2.0_f32.powi(-100) {
        return (0.0, vec![0; block.len()]);
    }
    let inverse = 127.0 / largest;
    (
        largest / 127.0,
        block.iter().map(|x| (x.to_f32() * inverse).round_ties_even().clamp(-127.0, 127.0) as i64).collect(),
    )
}

fn gemm(kernels: Kernels, a: &[bf16], weight: &Codes) -> Vec<f32> {
    // Not zero, so that a test sees an element that was not written.
    let mut out = vec![f32::INFINITY; a.len() / weight.k * weight.n];
    kernels.gemm(a, weight.matrix(), &mut out);
    out
}

/// Rows with blocks of many magnitudes, with `extreme` ones all of whose elements are the largest.
fn activations(m: usize, k: usize, extreme: bool, random: &mut Random) -> Vec<bf16> {
    let mut scale = 1.0;
    (0..m * k)
        .map(|i| {
            if i % BLOCK == 0 {
                scale = 2.0_f32.powi((random.next() % 40) as i32 - 20);
            }
            let x = random.unit();
            bf16::from_f32(if extreme { scale.copysign(x) } else { scale * x })
        })
        .collect()
}

fn check(kernels: Kernels, m: usize, n: usize, k: usize, extreme: bool) {
    for quantization in Quantization::ALL {
        let mut random = Random((m * 1_000_003 + n * 1009 + k) as u64);
        let weight = Codes::any(quantization, n, k, extreme, &mut random);
        let a = activations(m, k, extreme, &mut random);
        let (found, expected) = (gemm(kernels, &a, &weight), weight.product(&a));
        assert_eq!(bits(&found), bits(&expected), "{} {m} x {n} x {k}, extreme {extreme}", quantization.name());
    }
}

fn edges(kernels: Kernels) {
    for m in [1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 33] {
        for n in [1, 15, 16, 17, 33, 65] {
            for k in [1, 31, 32, 33, 63, 64, 65, 130] {
                check(kernels, m, n, k, (m + n + k) % 2 == 0);
            }
        }
    }
}

fn random_shapes_and_codes(kernels: Kernels) {
    let mut runner = proptest::test_runner::TestRunner::new_with_rng(
        ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() },
        proptest::test_runner::TestRng::deterministic_rng(proptest::test_runner::RngAlgorithm::ChaCha),
    );
    let shapes = (1_usize..40, 1_usize..100, 1_usize..300, any::<u64>(), any::<bool>(), any::<bool>());
    let result = runner.run(&shapes, |(m, n, k, seed, four, extreme)| {
        let mut random = Random(seed);
        let quantization = Quantization::ALL[usize::from(four)];
        let weight = Codes::any(quantization, n, k, extreme, &mut random);
        let a = activations(m, k, extreme, &mut random);
        prop_assert_eq!(bits(&gemm(kernels, &a, &weight)), bits(&weight.product(&a)));
        Ok(())
    });
    if let Err(failure) = result {
        panic!("{}: {failure}", kernels.isa());
    }
}

/// Long enough that k is cut where rows share panels.
fn long_sums(kernels: Kernels) {
    for (m, n, k) in [(1, 20, 4000), (13, 35, 2048), (40, 20, 2100), (481, 17, 70)] {
        check(kernels, m, n, k, false);
        check(kernels, m, n, k, true);
    }
}

/// Matrices of every type side by side give the bits of each alone, with any rows and threads.
fn stacked_products_are_those_of_each(kernels: Kernels) {
    for (m, k, ns) in [(1, 70, [33, 16, 5]), (9, 257, [64, 1, 40]), (50, 96, [130, 48, 64]), (500, 64, [17, 20, 16])] {
        let mut random = Random((m * 1009 + k) as u64);
        let a = activations(m, k, false, &mut random);
        let four = Codes::any(Quantization::Int4, ns[0], k, false, &mut random);
        let eight = Codes::any(Quantization::Int8, ns[1], k, false, &mut random);
        let plain = Weight::pack(&random.bf16s(ns[2] * k, 0.5), k);
        let more_of_four = Codes::any(Quantization::Int4, ns[2], k, false, &mut random);
        let all = [four.matrix(), eight.matrix(), plain.matrix(), more_of_four.matrix()];
        let alone = all.map(|weight| {
            let mut out = vec![f32::INFINITY; m * weight.n()];
            kernels.gemm(&a, weight, &mut out);
            out
        });
        let expected: Vec<_> = (0..m)
            .flat_map(|row| alone.iter().flat_map(move |out| &out[row * (out.len() / m)..][..out.len() / m]))
            .map(|x| x.to_bits())
            .collect();
        for threads in [1, 3] {
            let mut out = vec![f32::INFINITY; expected.len()];
            with_threads(threads, || kernels.gemm_stacked(&a, &all, &mut out));
            assert_eq!(bits(&out), expected, "{m} rows of {k}, {threads} threads");
        }
    }
}

fn the_same_bits_in_any_batch(kernels: Kernels) {
    for quantization in Quantization::ALL {
        for (n, k) in [(1, 1), (50, 31), (80, 64), (130, 257), (48, 2200)] {
            let mut random = Random((n + k) as u64);
            let weight = Codes::any(quantization, n, k, false, &mut random);
            let a = activations(64, k, false, &mut random);
            let all = gemm(kernels, &a, &weight);
            for m in [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 17, 25, 33, 63] {
                for first in [0, 1, 30, 64 - m].into_iter().filter(|first| first + m <= 64) {
                    let some = gemm(kernels, &a[first * k..][..m * k], &weight);
                    assert_eq!(bits(&some), bits(&all[first * n..][..m * n]), "{n} x {k}: {m} rows from {first}");
                }
            }
        }
    }
}

fn the_same_bits_with_any_threads(kernels: Kernels) {
    for quantization in Quantization::ALL {
        for (m, n, k) in [(1, 1000, 300), (17, 500, 129), (200, 70, 100), (500, 33, 65), (700, 20, 600)] {
            let mut random = Random((m + n + k) as u64);
            let weight = Codes::any(quantization, n, k, false, &mut random);
            let a = activations(m, k, false, &mut random);
            let alone = with_threads(1, || gemm(kernels, &a, &weight));
            for threads in [2, 3, 16] {
                let shared = with_threads(threads, || gemm(kernels, &a, &weight));
                assert_eq!(bits(&alone), bits(&shared), "{m} x {n} x {k} on {threads} threads");
            }
        }
    }
}

/// Against exact sums over the weights that are stored: an activation is off by half a step at most, and a little for the
/// rounding of the step; then each block rounds its scale and its sum.
fn within_the_bound(kernels: Kernels) {
    for quantization in Quantization::ALL {
        for (m, n, k) in [(3, 40, 500), (20, 17, 65), (2, 5, 3000)] {
            let mut random = Random((m + n + k) as u64);
            let weight = Codes::pack(quantization, &random.bf16s(n * k, 0.05), k);
            let a = random.bf16s(m * k, 2.0);
            let out = gemm(kernels, &a, &weight);
            for (out, a) in out.chunks_exact(n).zip(a.chunks_exact(k)) {
                for (column, found) in out.iter().enumerate() {
                    let (mut exact, mut bound, mut sums) = (0.0, 0.0, 0.0);
                    for (block, x) in a.chunks(BLOCK).enumerate() {
                        let (scale, codes) = round(x);
                        let weights: Vec<f64> =
                            (0..x.len()).map(|i| weight.weight(column, block * BLOCK + i)).collect();
                        exact += x.iter().zip(&weights).map(|(x, w)| x.to_f64() * w).sum::<f64>();
                        let magnitudes: f64 = weights.iter().map(|w| w.abs()).sum();
                        bound += f64::from(scale) / 2.0 * (1.0 + 1e-4) * magnitudes;
                        let dot: f64 = codes.iter().zip(&weights).map(|(code, w)| *code as f64 * w).sum();
                        sums += (f64::from(scale) * dot).abs();
                    }
                    bound += (weight.blocks() + 2) as f64 * common::F32_ROUNDING * sums;
                    let error = (f64::from(*found) - exact).abs();
                    assert!(error <= bound, "{m} x {n} x {k}: {found}, expected {exact} within {bound}");
                }
            }
        }
    }
}

fn a_row_that_is_not_finite_spoils_no_other(kernels: Kernels) {
    for quantization in Quantization::ALL {
        for (m, value) in [(3, bf16::NAN), (11, bf16::INFINITY), (20, bf16::NEG_INFINITY)] {
            let mut random = Random(m as u64);
            let weight = Codes::pack(quantization, &random.bf16s(40 * 70, 1.0), 70);
            let mut a = random.bf16s(m * 70, 1.0);
            let clean = gemm(kernels, &a, &weight);
            a[70 + 69] = value;
            for (row, (found, clean)) in
                gemm(kernels, &a, &weight).chunks_exact(40).zip(clean.chunks_exact(40)).enumerate()
            {
                if row == 1 {
                    assert!(found.iter().all(|x| x.is_nan()), "{found:?}");
                } else {
                    assert_eq!(bits(found), bits(clean));
                }
            }
        }
    }
}

fn a_column_that_is_not_finite_spoils_no_other(kernels: Kernels) {
    for quantization in Quantization::ALL {
        let mut random = Random(5);
        let mut w = random.bf16s(37 * 45, 1.0);
        // The last is finite and too large for a scale in f16.
        (w[5 * 45 + 7], w[20 * 45], w[36 * 45 + 44]) = (bf16::NAN, bf16::INFINITY, bf16::from_f32(1e30));
        let weight = Codes::pack(quantization, &w, 45);
        for (i, x) in gemm(kernels, &random.bf16s(12 * 45, 1.0), &weight).iter().enumerate() {
            assert_eq!(x.is_nan(), [5, 20, 36].contains(&(i % 37)), "{}: column {}", quantization.name(), i % 37);
        }
    }
}
