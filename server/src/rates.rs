//! What an API key may ask for in a minute: a bucket for its requests and one for its tokens, which fill steadily.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// Limits of a key: the table `[server.keys.NAME]` of the configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KeyLimits {
    /// Requests at once.
    pub max_requests: Option<usize>,
    /// Requests in a minute.
    pub requests_per_minute: Option<u32>,
    /// Tokens of prompts and outputs in a minute.
    pub tokens_per_minute: Option<u32>,
    /// The highest priority, and the one of requests that ask for none, where it is below theirs.
    pub max_priority: Option<f64>,
}

impl KeyLimits {
    /// Checks what has a range.
    ///
    /// # Errors
    /// The first that is outside its range, as a sentence.
    pub fn validate(&self) -> Result<(), String> {
        let counts = [
            ("max_requests", self.max_requests),
            ("requests_per_minute", self.requests_per_minute.map(|count| count as usize)),
            ("tokens_per_minute", self.tokens_per_minute.map(|count| count as usize)),
        ];
        if let Some((name, _)) = counts.iter().find(|(_, count)| *count == Some(0)) {
            return Err(format!("{name} must be at least 1; leave it out for no limit"));
        }
        match self.max_priority.filter(|priority| !(0.0..=1.0).contains(priority)) {
            Some(priority) => Err(format!("max_priority must be from 0 to 1, not {priority}")),
            None => Ok(()),
        }
    }
}

/// So much in a minute, of which as much as was not used may be used at once.
#[derive(Debug)]
pub struct Bucket {
    limit: f64,
    state: Mutex<(f64, Instant)>,
}

/// What a bucket has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    /// When it is full.
    pub limit: u64,
    /// Now.
    pub remaining: u64,
    /// Until it is full.
    pub reset: Duration,
}

impl Bucket {
    /// A full one.
    pub fn new(per_minute: u32, now: Instant) -> Self {
        let limit = f64::from(per_minute);
        Self { limit, state: Mutex::new((limit, now)) }
    }

    fn at(&self, now: Instant) -> MutexGuard<'_, (f64, Instant)> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let since = now.saturating_duration_since(state.1).as_secs_f64();
        *state = ((state.0 + since * self.limit / 60.0).min(self.limit), state.1.max(now));
        state
    }

    fn time_for(&self, amount: f64) -> Duration {
        Duration::from_secs_f64(amount.max(0.0) * 60.0 / self.limit)
    }

    /// Takes an amount. What is more than a full bucket has is given by a full one, which it leaves in debt.
    ///
    /// # Errors
    /// There is not so much: how long it takes to come.
    pub fn take(&self, amount: usize, now: Instant) -> Result<(), Duration> {
        let mut state = self.at(now);
        let needed = (amount as f64).min(self.limit);
        if state.0 < needed {
            return Err(self.time_for(needed - state.0));
        }
        state.0 -= amount as f64;
        Ok(())
    }

    /// Gives back what was taken and not used.
    pub fn give_back(&self, amount: usize, now: Instant) {
        let mut state = self.at(now);
        state.0 = (state.0 + amount as f64).min(self.limit);
    }

    /// What there is.
    pub fn level(&self, now: Instant) -> Level {
        let level = self.at(now).0;
        Level { limit: self.limit as u64, remaining: level.max(0.0) as u64, reset: self.time_for(self.limit - level) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_what_it_has_and_fills_in_a_minute() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let bucket = Bucket::new(60, start);
        assert_eq!(bucket.take(40, at(0)), Ok(()));
        assert_eq!(bucket.level(at(0)), Level { limit: 60, remaining: 20, reset: Duration::from_secs(40) });
        assert_eq!(bucket.take(30, at(0)), Err(Duration::from_secs(10)));
        assert_eq!(bucket.take(30, at(10)), Ok(()));
        bucket.give_back(15, at(10));
        assert_eq!(bucket.level(at(10)).remaining, 15);
        assert_eq!(bucket.level(at(1000)), Level { limit: 60, remaining: 60, reset: Duration::ZERO });
        // A clock that is read out of order changes nothing.
        assert_eq!(bucket.level(at(5)).remaining, 60);
    }

    #[test]
    fn what_is_larger_than_a_bucket_takes_a_full_one_and_its_time() {
        let start = Instant::now();
        let bucket = Bucket::new(60, start);
        assert_eq!(bucket.take(1, start), Ok(()));
        assert_eq!(bucket.take(600, start), Err(Duration::from_secs(1)));
        let full = start + Duration::from_secs(1);
        assert_eq!(bucket.take(600, full), Ok(()));
        assert_eq!(bucket.level(full).remaining, 0);
        assert_eq!(bucket.take(1, full), Err(Duration::from_secs(541)));
    }
}
