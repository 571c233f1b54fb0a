//! A summary of samples.

use serde::Serialize;

/// Mean, extremes and percentiles of samples. Percentiles use the nearest-rank method.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Percentiles {
    pub count: usize,
    pub mean: f64,
    pub min: f64,
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

impl Percentiles {
    /// `None` without samples.
    pub(super) fn of(mut samples: Vec<f64>) -> Option<Self> {
        samples.sort_by(f64::total_cmp);
        let (&min, &max) = (samples.first()?, samples.last()?);
        let count = samples.len();
        let at = |percent: usize| samples[(count * percent).div_ceil(100).max(1) - 1];
        let mean = samples.iter().sum::<f64>() / count as f64;
        Some(Self { count, mean, min, p50: at(50), p90: at(90), p99: at(99), max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_samples_of_nearest_rank() {
        assert_eq!(Percentiles::of(Vec::new()), None);
        let one = Percentiles::of(vec![3.0]).unwrap();
        assert_eq!((one.p50, one.p90, one.p99, one.mean), (3.0, 3.0, 3.0, 3.0));
        let hundred = Percentiles::of((1..=100).rev().map(f64::from).collect()).unwrap();
        assert_eq!((hundred.p50, hundred.p90, hundred.p99), (50.0, 90.0, 99.0));
        assert_eq!((hundred.min, hundred.max, hundred.mean, hundred.count), (1.0, 100.0, 50.5, 100));
        // Of five samples the third is the median, and the 90th percentile is the last.
        let five = Percentiles::of(vec![5.0, 1.0, 2.0, 4.0, 3.0]).unwrap();
        assert_eq!((five.p50, five.p90, five.p99), (3.0, 5.0, 5.0));
    }
}
