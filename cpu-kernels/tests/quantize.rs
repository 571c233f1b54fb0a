//! Rounding weights to codes: how far they are off, in pieces or whole, and what is refused.
#![allow(clippy::unwrap_used, reason = "what fails here fails the test")]

mod common;

use common::{Random, panic_of};
use cpu_kernels::{PackError, PackedMatrix, Quantization, bf16};
use proptest::prelude::*;

fn pack(quantization: Quantization, rows: &[bf16], k: usize) -> Vec<u8> {
    // Not zero, so that a test sees padding that was not written.
    let mut data = vec![0xaa; quantization.packed_bytes(rows.len() / k, k).unwrap()];
    quantization.pack(rows, k, &mut data);
    data
}

/// The weights as they come back, rounded to bf16.
fn round_trip(quantization: Quantization, rows: &[bf16], k: usize) -> Vec<bf16> {
    let data = pack(quantization, rows, k);
    let matrix = PackedMatrix::quantized(quantization, &data, rows.len() / k, k).unwrap();
    assert_eq!(matrix.quantization(), Some(quantization));
    let mut out = vec![bf16::NAN; rows.len()];
    out.chunks_exact_mut(k).enumerate().for_each(|(n, out)| matrix.row(n, out));
    out
}

/// Errors of each weight, and the least and the largest of its block and zero.
fn errors(quantization: Quantization, rows: &[bf16], k: usize) -> Vec<(f64, f64, f64)> {
    let found = round_trip(quantization, rows, k);
    let blocks =
        rows.chunks_exact(k).flat_map(|row| row.chunks(32)).zip(found.chunks_exact(k).flat_map(|row| row.chunks(32)));
    let of_block = |(rows, found): (&[bf16], &[bf16])| -> Vec<(f64, f64, f64)> {
        let values: Vec<f64> = rows.iter().map(|x| x.to_f64()).collect();
        let (least, largest) = values.iter().fold((0.0_f64, 0.0_f64), |(a, b), x| (a.min(*x), b.max(*x)));
        // What rounding to bf16 may have added on the way back is not the packing's.
        let error = |(x, y): (&f64, &bf16)| ((x - y.to_f64()).abs() - y.to_f64().abs() / 256.0).max(0.0);
        values.iter().zip(found).map(|pair| (error(pair), least, largest)).collect()
    };
    blocks.flat_map(of_block).collect()
}

proptest! {
    /// Half a 127th of the largest, and for the rounding of the scale 2^-11 of it, or half of f16's least number 127 times.
    #[test]
    fn int8_is_off_by_half_a_step(n in 1_usize..20, k in 1_usize..100, exponent in -8..12, seed: u64) {
        let rows = Random(seed).bf16s(n * k, 2.0_f32.powi(exponent));
        for (error, least, largest) in errors(Quantization::Int8, &rows, k) {
            let largest = largest.max(-least);
            let rounding = (largest / 2048.0).max(127.0 / f64::from(1 << 25));
            prop_assert!(error <= largest / 254.0 * 1.0001 + rounding, "{error} of {largest}");
        }
    }

    /// The search may cut off the ends of the range, for finer steps in between.
    #[test]
    fn int4_is_off_by_an_eighth_of_the_range(n in 1_usize..20, k in 1_usize..100, exponent in -8..12, seed: u64) {
        let rows = Random(seed).bf16s(n * k, 2.0_f32.powi(exponent));
        for (error, least, largest) in errors(Quantization::Int4, &rows, k) {
            let rounding = 15.0 / f64::from(1 << 25);
            prop_assert!(error <= (largest - least) / 8.0 + rounding, "{error} of {least}..{largest}");
        }
    }

    #[test]
    fn packing_in_pieces_is_packing_at_once(n in 1_usize..100, k in 1_usize..70, panels in 1_usize..4) {
        let rows = Random(n as u64).bf16s(n * k, 1.0);
        for quantization in Quantization::ALL {
            let pieces = rows.chunks(panels * 16 * k).flat_map(|piece| pack(quantization, piece, k));
            prop_assert_eq!(pack(quantization, &rows, k), pieces.collect::<Vec<u8>>());
        }
    }
}

/// Sums of several random numbers are as weights are: many small, few large.
fn like_weights(random: &mut Random, len: usize) -> Vec<bf16> {
    (0..len).map(|_| bf16::from_f32((0..6).map(|_| random.unit()).sum::<f32>() * 0.02)).collect()
}

#[test]
fn the_search_is_better_than_steps_over_the_whole_range() {
    let rows = like_weights(&mut Random(1), 64 * 512);
    let (mut found, mut plain) = (0.0, 0.0);
    for ((error, least, largest), x) in errors(Quantization::Int4, &rows, 512).into_iter().zip(&rows) {
        let step = (largest - least) / 15.0;
        let nearest = least + ((x.to_f64() - least) / step).round() * step;
        found += error * error;
        plain += (x.to_f64() - nearest).powi(2);
    }
    println!("squared errors: {:.3} of plain steps", found / plain);
    assert!(found < 0.88 * plain, "{found} and {plain}");
}

#[test]
fn codes_that_are_exact_stay_so() {
    // A scale of 1/64, and for `int4` a minimum of -7.5 steps: the ends of the range are in every block.
    for (quantization, least, steps, half) in [(Quantization::Int8, -127, 254, 0.0), (Quantization::Int4, -8, 15, 0.5)]
    {
        let mut random = Random(9);
        let rows: Vec<bf16> = (0..16 * 96)
            .map(|i| {
                let step = match i % 32 {
                    0 => 0,
                    1 => steps,
                    _ => random.next() % (steps + 1),
                };
                bf16::from_f32((f32::from(least as i16) + step as f32 + half) / 64.0)
            })
            .collect();
        assert_eq!(round_trip(quantization, &rows, 96), rows, "{}", quantization.name());
    }
}

#[test]
fn blocks_of_one_value() {
    for value in [0.0, -0.0, 1.0, -3.5, 1e-3, -1e-30, 1e-38] {
        let rows = vec![bf16::from_f32(value); 40];
        for quantization in Quantization::ALL {
            for found in round_trip(quantization, &rows, 40) {
                let error = (found.to_f32() - value).abs();
                assert!(error <= value.abs() / 100.0 + 1e-6, "{}: {value} is {found}", quantization.name());
            }
        }
    }
}

#[test]
fn sizes() {
    let [int8, int4] = Quantization::ALL;
    // 64 k of 16 columns, two blocks with a scale, and for `int4` a zero.
    assert_eq!(int8.packed_bytes(1, 1), Some(1024 + 64));
    assert_eq!(int4.packed_bytes(17, 64), Some(2 * (512 + 64 + 64)));
    assert_eq!(int4.packed_bytes(16, 4096), Some(16 * 4096 / 2 + 128 * 16 * 3));
    for quantization in Quantization::ALL {
        assert_eq!(quantization.packed_bytes(0, 5), Some(0));
        assert_eq!(quantization.packed_bytes(1, usize::MAX), None);
        assert_eq!(quantization.packed_bytes(usize::MAX, 64), None);
        assert_eq!(quantization.packed_bytes(16, usize::MAX / 32), None);
    }
}

#[test]
fn what_is_refused() {
    let data = vec![0; 1088];
    let new = |n, k| PackedMatrix::quantized(Quantization::Int8, &data, n, k);
    assert_eq!(new(0, 3).unwrap_err(), PackError::Empty { n: 0, k: 3 });
    assert_eq!(new(1, usize::MAX).unwrap_err(), PackError::TooLarge { n: 1, k: usize::MAX });
    assert_eq!(new(17, 32).unwrap_err().to_string(), "a packed matrix of 17 x 32 has 2176 bytes, not 1088");
    let matrix = new(10, 20).unwrap();
    assert!(panic_of(|| matrix.row(10, &mut [bf16::ZERO; 20])).contains("row 10 of a packed matrix of 10 rows"));
    let mut out = vec![0; 1088];
    let rows = [bf16::ZERO; 20];
    assert!(panic_of(|| Quantization::Int8.pack(&rows, 0, &mut out)).contains("k must be at least 1"));
    assert!(panic_of(|| Quantization::Int8.pack(&rows, 7, &mut out)).contains("whole rows of 7"));
    assert!(panic_of(|| Quantization::Int4.pack(&rows, 20, &mut out)).contains("out must hold"));
}
