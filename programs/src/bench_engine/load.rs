//! Loads: how many requests run or arrive, and when; arrival times are a function of the seed.

use std::str::FromStr;
use std::time::Duration;

use clap::ValueEnum;

use super::workload::{Random, Stream};

/// When requests arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Arrivals {
    /// All at once.
    All,
    /// In equal intervals.
    Fixed,
    /// In intervals drawn from 0 to twice the mean.
    Uniform,
    /// In exponentially distributed intervals.
    Poisson,
}

/// Requests in a second; finite and above 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Rate(pub f64);

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let rate = text.parse().ok().filter(|rate: &f64| rate.is_finite() && *rate > 0.0);
        rate.map(Self).ok_or_else(|| format!("`{text}` is not a number above 0"))
    }
}

/// One load that the engine is put under.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Load {
    /// All requests at once.
    AllAtOnce,
    /// So many requests run, as long as there are more.
    Concurrency(usize),
    /// Requests arrive, whatever runs.
    Rate(Arrivals, f64),
}

impl Load {
    /// What a column or a line of a plot is called.
    pub(super) fn label(self) -> String {
        match self {
            Self::AllAtOnce => "all at once".to_owned(),
            Self::Concurrency(width) => format!("{width} at a time"),
            Self::Rate(_, rate) => format!("{rate} requests/s"),
        }
    }

    /// What a point of a plot is called, which has little room.
    pub(super) fn short_label(self) -> String {
        match self {
            Self::AllAtOnce => "all".to_owned(),
            Self::Concurrency(width) => width.to_string(),
            Self::Rate(_, rate) => format!("{rate}/s"),
        }
    }
}

/// When requests are sent.
#[derive(Debug, Clone)]
pub(super) enum Pace {
    /// At these times from the start of the run; one for each request, none before its predecessor's.
    Arrivals(Vec<Duration>),
    /// So many run, as long as there are more.
    Concurrency(usize),
}

/// When each of `count` requests is sent under a load.
pub(super) fn pace(load: Load, count: usize, seed: u64) -> Pace {
    match (load, arrival_times(load, count, seed)) {
        (Load::Concurrency(width), _) => Pace::Concurrency(width),
        (_, times) => Pace::Arrivals(times.unwrap_or_default()),
    }
}

/// When each of `count` requests arrives, from the start of the run; `None` when each waits for another to end.
fn arrival_times(load: Load, count: usize, seed: u64) -> Option<Vec<Duration>> {
    let (arrivals, rate) = match load {
        Load::Concurrency(_) => return None,
        Load::AllAtOnce => return Some(vec![Duration::ZERO; count]),
        Load::Rate(arrivals, rate) => (arrivals, rate),
    };
    let mut random = Random::new(seed, Stream::Arrivals);
    let mut time = 0.0;
    let mut arrive = || {
        let arrival = Duration::try_from_secs_f64(time).unwrap_or(Duration::MAX);
        time += match arrivals {
            Arrivals::All => 0.0,
            Arrivals::Fixed => 1.0,
            Arrivals::Uniform => 2.0 * random.unit(),
            Arrivals::Poisson => -random.unit().ln(),
        } / rate;
        arrival
    };
    Some((0..count).map(|_| arrive()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COUNT: usize = 20_000;

    fn times(arrivals: Arrivals, seed: u64) -> Vec<f64> {
        let times = arrival_times(Load::Rate(arrivals, 4.0), COUNT, seed).unwrap();
        times.iter().map(Duration::as_secs_f64).collect()
    }

    /// Mean and variance of the intervals.
    fn moments(arrivals: Arrivals) -> (f64, f64) {
        let gaps: Vec<f64> = times(arrivals, 7).windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.iter().all(|&gap| gap >= 0.0));
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        (mean, gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64)
    }

    #[test]
    fn arrivals_have_their_distribution() {
        // Four requests a second. The variance of an exponential interval is its mean squared; of a uniform one from 0
        // to 2 m it is m squared / 3. Five standard errors of 20,000 draws are 0.0088 for the former's mean.
        let (mean, variance) = moments(Arrivals::Poisson);
        assert!((mean - 0.25).abs() < 0.0089 && (variance - 0.0625).abs() < 0.007, "{mean} {variance}");
        let (mean, variance) = moments(Arrivals::Uniform);
        assert!((mean - 0.25).abs() < 0.0052 && (variance - 0.0208).abs() < 0.001, "{mean} {variance}");
        let (mean, variance) = moments(Arrivals::Fixed);
        assert!((mean - 0.25).abs() < 1e-6 && variance < 1e-12, "{mean} {variance}");
        assert_eq!(arrival_times(Load::AllAtOnce, 3, 0), Some(vec![Duration::ZERO; 3]));
        assert_eq!(arrival_times(Load::Concurrency(2), 3, 0), None);
    }

    #[test]
    fn the_seed_decides_arrivals() {
        assert_eq!(times(Arrivals::Poisson, 1), times(Arrivals::Poisson, 1));
        assert_ne!(times(Arrivals::Poisson, 1), times(Arrivals::Poisson, 2));
    }
}
