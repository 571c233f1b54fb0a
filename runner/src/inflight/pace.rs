//! How long passes take, so that a prompt can be cut by time.
//!
//! The time of a pass is taken for `per_token * tokens + per_key * keys`, where `keys` are those that the tokens of contexts see
//! and `tokens` are all. The two factors are fitted to the last passes with context by least squares of relative errors; a pass
//! counts a fifth less with each that follows. A pass of few tokens takes the time of reading the weights, whatever their
//! number, and so makes tokens look dearer than they are: then the next chunk is too short, and less so each time.
//!
//! A fit is a mean, and a machine that is shared has slow moments: a chunk that takes 0.2 s by the mean would be late in each of
//! them. So the factors are raised until none of the last passes took longer than they say.

use std::collections::VecDeque;

use super::scheduler::{IterationTime, Step};

/// By how many seconds contexts may make an iteration longer while somebody generates, if a generation step takes no longer. The
/// promise is 0.25; a fifth is left for what the fit does not foresee.
const AIM: f64 = 0.2;

const DECAY: f64 = 0.8;

/// Passes with context that the factors must cover: some three seconds of them.
const COVERED: usize = 16;

/// The most that the factors are raised by. What took longer than that was no computing: the process had been stopped.
const RAISED_AT_MOST: f64 = 3.0;

/// A pass with context.
#[derive(Debug, Clone, Copy)]
struct Pass {
    tokens: f64,
    keys: f64,
    seconds: f64,
}

/// What was measured.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// The seconds of the last passes that only generated.
    generation: [Option<f64>; 4],
    generated: usize,
    /// Sums over passes of x, y, x * x, x * y and y * y, where x and y are tokens and keys a second.
    sums: [f64; 5],
    /// The last passes with context.
    last: VecDeque<Pass>,
}

impl Pace {
    /// Notes that the pass of `step` took so many seconds.
    pub(super) fn note(&mut self, step: &Step, seconds: f64, sliding_window: Option<usize>) {
        let window = sliding_window.unwrap_or(usize::MAX) as f64;
        let (mut tokens, mut keys, mut has_context) = (0.0, 0.0, false);
        for part in &step.parts {
            tokens += part.tokens as f64;
            if part.is_context {
                has_context = true;
                keys += part.tokens as f64 * (part.start as f64 + part.tokens as f64 / 2.0).min(window);
            }
        }
        // A clock may be too coarse for a tiny model.
        let seconds = seconds.max(1e-6);
        if has_context {
            let (x, y) = (tokens / seconds, keys / seconds);
            for (sum, new) in self.sums.iter_mut().zip([x, y, x * x, x * y, y * y]) {
                *sum = *sum * DECAY + new;
            }
            self.last.truncate(COVERED - 1);
            self.last.push_front(Pass { tokens, keys, seconds });
        } else {
            self.generation[self.generated % self.generation.len()] = Some(seconds);
            self.generated += 1;
        }
    }

    /// How long an iteration may take, and what takes how long; unknown before the first context.
    pub(super) fn iteration_time(&self) -> Option<IterationTime> {
        let [x, y, xx, xy, yy] = self.sums;
        if xx == 0.0 {
            return None;
        }
        let determinant = xx * yy - xy * xy;
        let both = ((x * yy - y * xy) / determinant, (y * xx - x * xy) / determinant);
        // Passes that are too much alike, or disturbed, do not tell tokens from keys.
        let tells_apart = determinant > 1e-4 * xx * yy && both.0 > 0.0 && both.1 >= 0.0;
        let (per_token, per_key) = if tells_apart { both } else { (x / xx, 0.0) };
        // The shortest of the last: one that was disturbed is no measure.
        let generation = self.generation.iter().flatten().copied().reduce(f64::min).unwrap_or(0.0);
        // A pass of few tokens takes a generation step's time; up to two of them it is not late.
        let of = |pass: &Pass| pass.seconds / (per_token * pass.tokens + per_key * pass.keys).max(2.0 * generation);
        let raised = self.last.iter().map(of).fold(1.0, f64::max).min(RAISED_AT_MOST);
        let seconds = generation + generation.max(AIM);
        Some(IterationTime { seconds, per_token: per_token * raised, per_key: per_key * raised })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::CapacitySchedulerPolicy;
    use crate::inflight::kv_cache::BlockManager;
    use crate::inflight::prefix::Salt;
    use crate::inflight::scheduler::{NewSequence, Scheduler, SchedulerConfig};

    /// A machine that reads the weights in `least` seconds.
    struct Machine {
        least: f64,
        per_token: f64,
        per_key: f64,
    }

    impl Machine {
        fn seconds(&self, step: &Step) -> f64 {
            let of_part = |part: &crate::inflight::scheduler::StepPart| {
                let keys = (part.start..part.start + part.tokens).sum::<usize>();
                part.tokens as f64 * self.per_token + keys as f64 * self.per_key
            };
            step.parts.iter().map(of_part).sum::<f64>().max(self.least)
        }

        /// The times of iterations that compute a prompt of `prompt_len` tokens beside a sequence of three tokens.
        fn run(&self, prompt_len: usize) -> Vec<f64> {
            self.run_disturbed(prompt_len, |_| 1.0)
        }

        /// The same where iteration `n` takes `slower(n)` times as long.
        fn run_disturbed(&self, prompt_len: usize, slower: impl Fn(usize) -> f64) -> Vec<f64> {
            let config = SchedulerConfig {
                max_batch_size: 8,
                max_num_tokens: 2048,
                policy: CapacitySchedulerPolicy::GuaranteedNoEvict,
                enable_chunked_context: true,
                sliding_window: None,
            };
            let mut scheduler = Scheduler::new(config, BlockManager::new(10_000, 32));
            let mut pace = Pace::default();
            let add = |scheduler: &mut Scheduler, prompt_len, max_tokens| {
                scheduler.add(NewSequence {
                    prompt: vec![0; prompt_len],
                    max_tokens,
                    beam_width: 1,
                    priority: 0.5,
                    salt: Salt::default(),
                    computes_whole_prompt: false,
                    follows: None,
                })
            };
            let stream = add(&mut scheduler, 3, 100_000);
            let mut times = Vec::new();
            for iteration in 0.. {
                if iteration == 5 {
                    add(&mut scheduler, prompt_len, 1);
                }
                let step = scheduler.schedule(pace.iteration_time());
                let seconds = self.seconds(&step) * slower(iteration);
                pace.note(&step, seconds, None);
                scheduler.computed(&step);
                scheduler.append(stream, 1);
                if iteration >= 5 {
                    times.push(seconds);
                    if step.parts.iter().any(|part| part.completes && part.sequence != stream) {
                        break;
                    }
                }
            }
            times
        }
    }

    #[test]
    fn a_prompt_takes_a_quarter_of_a_second_of_each_iteration() {
        // As fast as a model of 0.3 billion parameters on two cores, with attention that comes to cost as much as all else.
        let machine = Machine { least: 0.017, per_token: 1e-3, per_key: 1.5e-7 };
        let times = machine.run(20_000);
        let longest = times.iter().copied().fold(0.0, f64::max);
        assert!(longest <= machine.least + 0.25, "{longest}");
        let total: f64 = times.iter().sum();
        assert!(total / times.len() as f64 > 0.15, "{} iterations of {total} seconds", times.len());
    }

    #[test]
    fn or_as_long_as_a_generation_step() {
        // As slow as one of 8 billion.
        let machine = Machine { least: 0.6, per_token: 0.055, per_key: 1e-6 };
        let times = machine.run(500);
        let longest = times.iter().copied().fold(0.0, f64::max);
        assert!(longest <= 2.0 * machine.least + 0.06, "{longest}");
        let total: f64 = times.iter().sum();
        assert!(total / times.len() as f64 > 1.0, "{} iterations of {total} seconds", times.len());
    }

    #[test]
    fn a_machine_that_is_slow_now_and_then_is_taken_for_a_slow_one() {
        let machine = Machine { least: 0.017, per_token: 1e-3, per_key: 1.5e-7 };
        let times = machine.run_disturbed(20_000, |iteration| if iteration % 3 == 0 { 1.8 } else { 1.0 });
        // The first slow iteration tells of it.
        let longest = times[4..].iter().copied().fold(0.0, f64::max);
        assert!(longest <= machine.least + 0.25, "{longest}");
    }

    #[test]
    fn one_slow_moment_is_forgotten() {
        let machine = Machine { least: 0.017, per_token: 1e-3, per_key: 0.0 };
        let times = machine.run_disturbed(20_000, |iteration| if iteration == 20 { 1000.0 } else { 1.0 });
        let place = times.iter().position(|&time| time > 10.0).unwrap();
        let (careful, usual) = (&times[place + 1..=place + COVERED], &times[place + COVERED + 1..place + COVERED + 20]);
        assert!(careful.iter().all(|&time| time > 0.06 && time < 0.1), "{careful:?}");
        assert!(usual.iter().all(|&time| time > 0.2 && time < 0.25), "{usual:?}");
    }

    #[test]
    fn nothing_is_known_before_a_context_was_computed() {
        assert_eq!(Pace::default().iteration_time(), None);
    }
}
