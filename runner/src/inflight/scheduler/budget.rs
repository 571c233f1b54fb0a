//! How much context an iteration may take.

use super::SchedulerConfig;

/// The time that an iteration may take while somebody generates, and what of it takes how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::inflight) struct IterationTime {
    pub seconds: f64,
    /// Above 0.
    pub per_token: f64,
    /// For each key that a token sees.
    pub per_key: f64,
}

/// What is left of an iteration.
#[derive(Debug)]
pub(super) struct ContextBudget {
    tokens: usize,
    time: Option<IterationTime>,
    sliding_window: usize,
    is_untouched: bool,
}

impl ContextBudget {
    /// What is left for contexts beside `generating` tokens. Where there are none, time does not matter.
    pub(super) fn new(config: &SchedulerConfig, generating: usize, time: Option<IterationTime>) -> Self {
        let time = time.filter(|_| generating > 0);
        Self {
            tokens: config.max_num_tokens.saturating_sub(generating),
            time: time.map(|time| IterationTime { seconds: time.seconds - generating as f64 * time.per_token, ..time }),
            sliding_window: config.sliding_window.unwrap_or(usize::MAX),
            is_untouched: true,
        }
    }

    /// The most tokens from position `start` on. Whoever comes first gets one whatever time that takes, so that every
    /// iteration brings a context on.
    pub(super) fn chunk(&self, start: usize) -> usize {
        let Some(time) = self.time else { return self.tokens };
        let (window, start) = (self.sliding_window as f64, start.min(self.sliding_window) as f64);
        // n tokens see at most n * window keys, and n * start + n * n / 2.
        let in_window = time.seconds / (time.per_token + time.per_key * window);
        let (linear, square) = (time.per_token + time.per_key * start, time.per_key / 2.0);
        // The positive root of `square * n * n + linear * n = seconds`, in the form that allows for `square` of 0.
        let growing = 2.0 * time.seconds / (linear + (linear * linear + 4.0 * square * time.seconds).sqrt());
        // No time left is a negative number, which becomes 0.
        let tokens = in_window.max(growing) as usize;
        tokens.max(usize::from(self.is_untouched)).min(self.tokens)
    }

    /// Whether a context that cannot be cut, of `tokens` tokens, can be taken: time does not cut it.
    pub(super) fn has_room_for(&self, tokens: usize) -> bool {
        tokens <= self.tokens && (self.is_untouched || self.time.is_none_or(|time| time.seconds > 0.0))
    }

    /// Nothing is left.
    pub(super) fn is_spent(&self) -> bool {
        !self.has_room_for(1)
    }

    /// A sequence generates.
    pub(super) fn take_generation(&mut self, rows: usize) {
        self.tokens -= rows;
    }

    pub(super) fn take(&mut self, start: usize, tokens: usize) {
        self.is_untouched = false;
        self.tokens -= tokens;
        if let Some(time) = &mut self.time {
            let keys = (start as f64 + tokens as f64 / 2.0).min(self.sliding_window as f64);
            time.seconds -= tokens as f64 * (time.per_token + time.per_key * keys);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::CapacitySchedulerPolicy;

    const TIME: IterationTime = IterationTime { seconds: 0.26, per_token: 1e-3, per_key: 1e-6 };

    /// Beside ten tokens that are generated, which leaves a quarter of a second.
    fn budget(max_num_tokens: usize, time: Option<IterationTime>, sliding_window: Option<usize>) -> ContextBudget {
        let policy = CapacitySchedulerPolicy::GuaranteedNoEvict;
        let (max_batch_size, enable_chunked_context) = (64, true);
        let config = SchedulerConfig { max_batch_size, max_num_tokens, policy, enable_chunked_context, sliding_window };
        ContextBudget::new(&config, 10, time)
    }

    #[test]
    fn a_chunk_takes_the_time_that_there_is() {
        let cost = |start: usize, tokens: usize, window: usize| {
            let keys: usize = (start..start + tokens).map(|position| position.min(window)).sum();
            tokens as f64 * TIME.per_token + keys as f64 * TIME.per_key
        };
        for start in [0, 100, 5_000, 100_000] {
            for window in [None, Some(4096)] {
                let mut budget = budget(2058, Some(TIME), window);
                let tokens = budget.chunk(start);
                let limit = window.unwrap_or(usize::MAX);
                assert!(cost(start, tokens, limit) <= 0.2501, "{tokens} from {start}");
                assert!(cost(start, tokens + 2, limit) > 0.24, "{tokens} from {start} is too few");
                budget.take(start, tokens);
                assert!(budget.chunk(start) <= 1);
            }
        }
        assert_eq!(budget(110, Some(TIME), None).chunk(0), 100);
        assert_eq!(budget(2058, None, None).chunk(100_000), 2048);
    }

    #[test]
    fn whoever_is_first_gets_on() {
        let time = IterationTime { seconds: -1.0, ..TIME };
        let mut budget = budget(110, Some(time), None);
        assert!(!budget.is_spent() && budget.has_room_for(100) && !budget.has_room_for(101));
        assert_eq!(budget.chunk(7), 1);
        budget.take(7, 1);
        assert!(budget.is_spent());
        assert_eq!(budget.chunk(7), 0);
    }
}
