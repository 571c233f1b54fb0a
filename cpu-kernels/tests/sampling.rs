//! What sampling needs, against plain Rust and f64.

mod common;

use common::{Random, bits, on_every_isa, panic_of};
use cpu_kernels::Kernels;

on_every_isa!(
    maxima_are_those_of_a_plain_loop,
    maxima_pass_over_what_is_no_number,
    one_number_that_is_not_finite_is_noticed_anywhere,
    weights_are_near_f64,
    weights_do_not_depend_on_their_place,
    weights_at_the_limits,
    tail_sums_are_those_of_f64,
    tail_sums_never_fall_as_the_threshold_does,
    sizes_are_checked,
);

const LENGTHS: [usize; 12] = [0, 1, 7, 8, 15, 16, 17, 31, 33, 127, 600, 5000];

fn maxima_of(kernels: Kernels, x: &[f32], block: usize) -> Vec<f32> {
    let mut out = vec![f32::NAN; x.len().div_ceil(block)];
    kernels.maxima(x, block, &mut out);
    out
}

fn maxima_are_those_of_a_plain_loop(kernels: Kernels) {
    for len in LENGTHS {
        let x = Random(len as u64).f32s(len, 10.0);
        for block in [1, 5, 16, 64, 100, 128, 10_000] {
            let expected: Vec<f32> =
                x.chunks(block).map(|x| x.iter().copied().fold(f32::NEG_INFINITY, f32::max)).collect();
            assert_eq!(maxima_of(kernels, &x, block), expected, "{len} by {block}");
        }
    }
}

fn maxima_pass_over_what_is_no_number(kernels: Kernels) {
    for len in 1..70 {
        let mut x = vec![f32::NAN; len];
        assert_eq!(maxima_of(kernels, &x, len), [f32::NEG_INFINITY]);
        for place in 0..len {
            x[place] = -1.0;
            assert_eq!(maxima_of(kernels, &x, len), [-1.0], "{place} of {len}");
            x[place] = f32::NAN;
        }
    }
    assert_eq!(maxima_of(kernels, &[1.0, f32::INFINITY, f32::NEG_INFINITY], 2), [f32::INFINITY, f32::NEG_INFINITY]);
}

fn one_number_that_is_not_finite_is_noticed_anywhere(kernels: Kernels) {
    assert!(kernels.all_finite(&[]));
    for len in 1..150 {
        // The largest and smallest there are, whose products and sums must not be taken for infinity.
        let mut x: Vec<f32> = [f32::MAX, f32::MIN, f32::from_bits(1), -0.0].into_iter().cycle().take(len).collect();
        assert!(kernels.all_finite(&x), "{len}");
        for place in 0..len {
            for value in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let before = std::mem::replace(&mut x[place], value);
                assert!(!kernels.all_finite(&x), "{value} at {place} of {len}");
                x[place] = before;
            }
        }
    }
}

fn weights_of(kernels: Kernels, x: &[f32], best: f32, scale: f32) -> Vec<f32> {
    let mut x = x.to_vec();
    kernels.exp_weights(&mut x, best, scale);
    x
}

fn weights_are_near_f64(kernels: Kernels) {
    for len in LENGTHS {
        let x = Random(len as u64).f32s(len, 30.0);
        for scale in [0.5, 1.0, 2.0] {
            for (x, weight) in x.iter().zip(weights_of(kernels, &x, 30.0, scale)) {
                // The exponent as f32 has it, so that only the exponential function is measured.
                let expected = f64::from((x - 30.0) * scale).exp();
                let expected = if (x - 30.0) * scale < -87.0 { 0.0 } else { expected };
                let error = (f64::from(weight) - expected).abs();
                assert!(error <= 3.0 * f64::from(f32::EPSILON) * expected, "{x} {scale}: {weight}, not {expected}");
            }
        }
    }
}

fn weights_do_not_depend_on_their_place(kernels: Kernels) {
    let x = Random(1).f32s(77, 40.0);
    let together = weights_of(kernels, &x, 40.0, 1.25);
    let alone: Vec<f32> = x.iter().map(|&x| weights_of(kernels, &[x], 40.0, 1.25)[0]).collect();
    assert_eq!(bits(&together), bits(&alone));
}

fn weights_at_the_limits(kernels: Kernels) {
    let x = [2.0, f32::NAN, f32::NEG_INFINITY, -f32::MAX, -1000.0];
    for scale in [1.0, 1e-38, f32::MAX] {
        let found = weights_of(kernels, &x, 2.0, scale);
        assert_eq!(found[..3], [1.0, 0.0, 0.0], "{scale}");
        assert!(found[3..].iter().all(|weight| (0.0..=1.0).contains(weight)), "{scale}: {found:?}");
    }
}

fn tail_sums_are_those_of_f64(kernels: Kernels) {
    for len in LENGTHS {
        let mut x = Random(len as u64).f32s(len, 1.0);
        x.iter_mut().step_by(9).for_each(|x| *x = f32::NAN);
        for threshold in [f32::from_bits(1), 0.1, 0.9, 2.0, f32::INFINITY] {
            let counted: Vec<f64> = x.iter().filter(|&&x| x >= threshold).map(|&x| f64::from(x)).collect();
            let (sum, count) = kernels.sum_at_least(&x, threshold);
            assert_eq!(count, counted.len(), "{len} from {threshold}");
            let expected: f64 = counted.iter().sum();
            assert!((sum - expected).abs() <= 2e-6 * expected, "{len} from {threshold}: {sum}");
        }
    }
}

fn tail_sums_never_fall_as_the_threshold_does(kernels: Kernels) {
    let x: Vec<f32> = Random(3).f32s(5000, 20.0).iter().map(|x| x.exp()).collect();
    let mut thresholds = x.clone();
    thresholds.sort_by(|a, b| b.total_cmp(a));
    let sums: Vec<f64> = thresholds.iter().map(|&threshold| kernels.sum_at_least(&x, threshold).0).collect();
    assert!(sums.is_sorted());
}

fn sizes_are_checked(kernels: Kernels) {
    assert!(panic_of(|| kernels.maxima(&[1.0], 0, &mut [])).contains("block"));
    assert!(panic_of(|| kernels.maxima(&[1.0; 5], 2, &mut [0.0; 2])).contains("3 blocks"));
    assert!(panic_of(|| kernels.exp_weights(&mut [1.0], f32::INFINITY, 1.0)).contains("finite"));
    assert!(panic_of(|| _ = kernels.sum_at_least(&[1.0], 0.0)).contains("above 0"));
}
