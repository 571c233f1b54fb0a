//! Normalization, activation, rotation and the rest against f64, and the same bits for a row in any batch.

mod common;

use common::{BF16_ROUNDING, F32_ROUNDING, Random, TINY, bits, on_every_isa, panic_of, with_threads};
use cpu_kernels::{Kernels, bf16};

on_every_isa!(
    rms_norm,
    add_and_add_bias,
    swiglu,
    swiglu_far_out,
    rope,
    rope_keeps_lengths,
    log_sum_exp,
    log_sum_exp_limits,
    rounding_is_to_nearest_even,
    the_same_bits_in_any_batch,
    sizes_are_checked,
);

const WIDTHS: [usize; 17] = [1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 600, 4096];

fn assert_close(found: f64, expected: f64, bound: f64, what: &str) {
    assert!((found - expected).abs() <= bound, "{what}: {found}, expected {expected} within {bound}");
}

fn rms_norm(kernels: Kernels) {
    for width in WIDTHS {
        let mut random = Random(width as u64);
        let (x, weight) = (random.f32s(3 * width, 4.0), random.bf16s(width, 2.0));
        let mut out = vec![bf16::NAN; 3 * width];
        kernels.rms_norm(&x, &weight, 1e-5, &mut out);
        for (x, out) in x.chunks_exact(width).zip(out.chunks_exact(width)) {
            let mean = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / width as f64;
            let factor = 1.0 / (mean + f64::from(1e-5_f32)).sqrt();
            for ((x, weight), out) in x.iter().zip(&weight).zip(out) {
                let expected = f64::from(*x) * factor * weight.to_f64();
                // The mean's error is halved by the root; then a handful of operations, then bf16.
                let relative = (width as f64 / 2.0 + 8.0) * F32_ROUNDING + BF16_ROUNDING;
                assert_close(out.to_f64(), expected, relative * expected.abs() * 1.01 + TINY, "rms_norm");
            }
        }
    }
}

fn add_and_add_bias(kernels: Kernels) {
    for width in WIDTHS {
        let mut random = Random(width as u64);
        let (x, y, bias) = (random.f32s(2 * width, 4.0), random.f32s(2 * width, 1.0), random.bf16s(width, 1.0));
        let mut sum = x.clone();
        kernels.add(&mut sum, &y);
        assert_eq!(sum, x.iter().zip(&y).map(|(x, y)| x + y).collect::<Vec<_>>());
        let mut sum = x.clone();
        kernels.add_bias(&mut sum, &bias);
        let rows = x.chunks_exact(width).flat_map(|row| row.iter().zip(&bias));
        assert_eq!(sum, rows.map(|(x, bias)| x + bias.to_f32()).collect::<Vec<_>>());
    }
}

fn swiglu_of(kernels: Kernels, gate: &[f32], up: &[f32]) -> Vec<bf16> {
    let mut out = vec![bf16::NAN; gate.len()];
    kernels.swiglu(gate, up, &mut out);
    out
}

fn swiglu(kernels: Kernels) {
    for width in WIDTHS {
        let mut random = Random(width as u64);
        let (gate, up) = (random.f32s(width, 20.0), random.f32s(width, 3.0));
        for ((gate, up), out) in gate.iter().zip(&up).zip(swiglu_of(kernels, &gate, &up)) {
            let gate = f64::from(*gate);
            let expected = gate / (1.0 + (-gate).exp()) * f64::from(*up);
            // e^-x within 3 units (6 halves), then add, divide, multiply, then bf16.
            let relative = 9.0 * F32_ROUNDING + BF16_ROUNDING;
            assert_close(out.to_f64(), expected, relative * expected.abs() * 1.01 + TINY, "swiglu");
        }
    }
}

fn swiglu_far_out(kernels: Kernels) {
    let gate = [-1e30, -200.0, -100.0, -88.0, -0.0, 0.0, 88.0, 100.0, 1e30, f32::NAN];
    let out = swiglu_of(kernels, &gate, &[1.0; 10]);
    for (gate, out) in gate.iter().zip(&out).take(4) {
        assert!(out.to_f32() <= 0.0 && out.to_f32() >= gate * (-88.0_f32).exp(), "silu({gate}) = {out}");
    }
    assert_eq!(out[4..8], [0.0, 0.0, 88.0, 100.0].map(bf16::from_f32));
    assert_eq!(out[8], bf16::from_f32(1e30));
    assert!(out[9].is_nan());
}

fn rope(kernels: Kernels) {
    for (tokens, heads, head_dim) in [(1, 1, 2), (3, 2, 12), (2, 3, 16), (5, 4, 80), (4, 2, 64), (2, 8, 128)] {
        let mut random = Random(head_dim as u64);
        let x = random.f32s(tokens * heads * head_dim, 3.0);
        let angles = random.f32s(tokens * head_dim / 2, 10.0);
        let (cos, sin): (Vec<f32>, Vec<f32>) = angles.iter().map(|a| (a.cos(), a.sin())).unzip();
        let mut out = x.clone();
        kernels.rope(&mut out, heads, head_dim, &cos, &sin);
        let half = head_dim / 2;
        for i in 0..x.len() {
            let (token, place) = (i / (heads * head_dim), i % head_dim);
            let (c, s) = (f64::from(cos[token * half + place % half]), f64::from(sin[token * half + place % half]));
            let own = f64::from(x[i]);
            let (other, sign) =
                if place < half { (f64::from(x[i + half]), -1.0) } else { (f64::from(x[i - half]), 1.0) };
            let expected = own * c + sign * other * s;
            let bound = 2.0 * F32_ROUNDING * 1.01 * ((own * c).abs() + (other * s).abs());
            assert_close(f64::from(out[i]), expected, bound, "rope");
        }
    }
}

fn rope_keeps_lengths(kernels: Kernels) {
    let mut x = Random(1).f32s(2 * 64, 1.0);
    let before = x.clone();
    kernels.rope(&mut x, 2, 64, &[0.6; 32], &[0.8; 32]);
    for i in (0..32).chain(64..96) {
        let (new, old) = (x[i].hypot(x[i + 32]), before[i].hypot(before[i + 32]));
        assert!((new - old).abs() <= 1e-6, "{new} {old}");
        assert_ne!(x[i], before[i]);
    }
}

fn log_sum_exp(kernels: Kernels) {
    for (seed, len) in WIDTHS.into_iter().chain([1000, 32_000, 131_072]).enumerate() {
        for (scale, offset) in [(0.0, 3.0), (1.0, 0.0), (10.0, 500.0), (30.0, -1e4), (1e-3, 0.0)] {
            let mut x = Random(seed as u64).f32s(len, scale);
            x.iter_mut().for_each(|x| *x += offset);
            let largest = x.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let sum: f64 = x.iter().map(|x| (f64::from(*x) - f64::from(largest)).exp()).sum();
            let expected = f64::from(largest) + sum.ln();
            // An error of 1e-6 in the sum is one of 1e-6 in the logarithm; then the result is rounded once.
            let bound = 1e-6 + F32_ROUNDING * expected.abs() * 1.01;
            assert_close(f64::from(kernels.log_sum_exp(&x)), expected, bound, "log_sum_exp");
        }
    }
}

fn log_sum_exp_limits(kernels: Kernels) {
    let infinity = f32::INFINITY;
    assert_eq!(kernels.log_sum_exp(&[]), -infinity);
    assert_eq!(kernels.log_sum_exp(&[-infinity; 40]), -infinity);
    assert_eq!(kernels.log_sum_exp(&[-infinity, 1.5, -infinity]), 1.5);
    assert_eq!(kernels.log_sum_exp(&[1.0, infinity]), infinity);
    for len in [1, 8, 20, 64] {
        for place in [0, len - 1] {
            let mut x = vec![1.0; len];
            x[place] = f32::NAN;
            assert!(kernels.log_sum_exp(&x).is_nan(), "NaN at {place} of {len}");
        }
        assert!(kernels.log_sum_exp(&vec![f32::NAN; len]).is_nan());
    }
}

/// swiglu with a gate of 40 hands `40 up` to the rounding, which is exact in fp32 for these.
fn rounding_is_to_nearest_even(kernels: Kernels) {
    let up: Vec<f32> =
        (0..5000).map(|i| (1.0 + i as f32 / 4096.0) * 0.8).map(|x| (x * 1024.0).round() / 1024.0).collect();
    let out = swiglu_of(kernels, &vec![40.0; up.len()], &up);
    for (up, out) in up.iter().zip(out) {
        assert_eq!(out, bf16::from_f32(40.0 * up), "{up}");
    }
}

fn the_same_bits_in_any_batch(kernels: Kernels) {
    let (rows, width, head_dim) = (90, 1 << 10, 64);
    let mut random = Random(5);
    let (x, y) = (random.f32s(rows * width, 4.0), random.f32s(rows * width, 4.0));
    let (weight, angles) = (random.bf16s(width, 1.0), random.f32s(rows * head_dim / 2, 9.0));
    let (cos, sin): (Vec<f32>, Vec<f32>) = angles.iter().map(|a| (a.cos(), a.sin())).unzip();
    let all = |first: usize, count: usize| {
        let (x, y) = (&x[first * width..][..count * width], &y[first * width..][..count * width]);
        let mut normed = vec![bf16::NAN; x.len()];
        kernels.rms_norm(x, &weight, 1e-6, &mut normed);
        let (mut sum, mut biased, mut turned) = (x.to_vec(), x.to_vec(), x.to_vec());
        kernels.add(&mut sum, y);
        kernels.add_bias(&mut biased, &weight);
        let angles = first * head_dim / 2..(first + count) * head_dim / 2;
        kernels.rope(&mut turned, width / head_dim, head_dim, &cos[angles.clone()], &sin[angles]);
        let wide = |x: Vec<bf16>| -> Vec<f32> { x.into_iter().map(bf16::to_f32).collect() };
        [sum, biased, turned, wide(normed), wide(swiglu_of(kernels, x, y))].map(|x| bits(&x))
    };
    let whole = with_threads(3, || all(0, rows));
    assert_eq!(whole, with_threads(1, || all(0, rows)));
    for (first, count) in [(0, 1), (41, 1), (89, 1), (3, 50)] {
        for (part, whole) in all(first, count).iter().zip(&whole) {
            assert_eq!(part[..], whole[first * width..][..count * width], "{count} rows from {first}");
        }
    }
}

fn sizes_are_checked(kernels: Kernels) {
    let (mut f, mut b) = ([0.0; 12], [bf16::ZERO; 12]);
    let one = [bf16::ONE; 5];
    assert!(panic_of(|| kernels.rms_norm(&[0.0; 12], &one, 0.0, &mut b)).contains("whole rows of 5"));
    assert!(panic_of(|| kernels.rms_norm(&[0.0; 12], &[], 0.0, &mut b)).contains("weight must not be empty"));
    assert!(panic_of(|| kernels.rms_norm(&[0.0; 10], &one, 0.0, &mut b)).contains("out has 12"));
    assert!(panic_of(|| kernels.add(&mut f, &[0.0; 11])).contains("y has 11"));
    assert!(panic_of(|| kernels.add_bias(&mut f, &one)).contains("whole rows of 5"));
    assert!(panic_of(|| kernels.swiglu(&[0.0; 12], &[0.0; 11], &mut b)).contains("up has 11"));
    assert!(panic_of(|| kernels.swiglu(&[0.0; 11], &[0.0; 11], &mut b)).contains("out has 12"));
    assert!(panic_of(|| kernels.rope(&mut f, 2, 3, &[], &[])).contains("head_dim must be even"));
    assert!(panic_of(|| kernels.rope(&mut f, 0, 2, &[], &[])).contains("rope needs heads"));
    assert!(panic_of(|| kernels.rope(&mut f, 1, 4, &[0.0; 6], &[0.0; 5])).contains("sin has 5"));
    assert!(panic_of(|| kernels.rope(&mut f, 1, 4, &[0.0; 5], &[0.0; 5])).contains("cos must be whole rows"));
    assert!(panic_of(|| kernels.rope(&mut f, 2, 4, &[0.0; 6], &[0.0; 6])).contains("x must be 3 x 2 x 4"));
}
