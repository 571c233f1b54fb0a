//! The lines of `--stats`.

use std::time::Duration;

use super::completions::Completion;
use crate::format::counted;
use runner::executor::{IterationStats, KvCacheStats};

/// Sums over an executor's iterations.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Iterations {
    count: u64,
    /// Sequences, once for each iteration that they were in.
    scheduled: u64,
    paused: u64,
    peak_used_blocks: usize,
    /// As after the last iteration.
    kv_cache: KvCacheStats,
}

impl Iterations {
    /// Takes further iterations in, oldest first.
    pub(super) fn add(&mut self, iterations: &[IterationStats]) {
        for iteration in iterations {
            self.count += 1;
            self.scheduled += iteration.inflight_batching.num_scheduled_requests as u64;
            self.paused += iteration.inflight_batching.num_paused_requests as u64;
            self.peak_used_blocks = self.peak_used_blocks.max(iteration.kv_cache.used_num_blocks);
            self.kv_cache = iteration.kv_cache;
        }
    }

    fn lines(&self) -> [String; 2] {
        let share = |part: f64, whole: f64| if whole == 0.0 { 0.0 } else { part / whole };
        let KvCacheStats { max_num_blocks, tokens_per_block, reused_blocks, .. } = self.kv_cache;
        let occupancy = share(self.peak_used_blocks as f64, max_num_blocks as f64);
        [
            format!(
                "iterations           {}, {:.2} sequences in each on average, {} paused",
                self.count,
                share(self.scheduled as f64, self.count as f64),
                self.paused
            ),
            format!(
                "KV cache             {:.1} % at most ({} of {max_num_blocks} blocks of {}), {} reused",
                occupancy * 100.0,
                self.peak_used_blocks,
                counted(tokens_per_block, "token"),
                counted(reused_blocks as usize, "block"),
            ),
        ]
    }
}

/// Sums over the sequences of a run, of which none is kept.
#[derive(Debug, Clone, Default)]
pub(super) struct Sequences {
    count: usize,
    prompt_tokens: usize,
    output_tokens: usize,
    /// Tokens but the first of each sequence, which is the context phase's.
    generated: usize,
    generating: Duration,
    first_tokens: Option<(Duration, Duration)>,
}

impl Sequences {
    /// Takes a finished sequence in.
    pub(super) fn add(&mut self, completion: &Completion) {
        self.count += 1;
        // All sequences of a prompt share it.
        if completion.sequence_index.unwrap_or(0) == 0 {
            self.prompt_tokens += completion.prompt_tokens;
        }
        self.output_tokens += completion.output_ids.len();
        self.generated += completion.output_ids.len().saturating_sub(1);
        self.generating += completion.stats.generation_time;
        if let Some(time) = completion.stats.time_to_first_token {
            let (earliest, latest) = self.first_tokens.unwrap_or((time, time));
            self.first_tokens = Some((earliest.min(time), latest.max(time)));
        }
    }
}

/// What a run of `prompts` prompts took.
pub(super) fn stats(
    load: Duration,
    run: Duration,
    prompts: usize,
    sequences: &Sequences,
    iterations: &Iterations,
) -> String {
    let Sequences { count, prompt_tokens, output_tokens, generated, generating, first_tokens } = *sequences;
    let per_second = |count: usize, time: Duration, what: &str| {
        if time.is_zero() { "–".to_owned() } else { format!("{:.1} {what}/s", count as f64 / time.as_secs_f64()) }
    };
    let milliseconds = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);

    let first_token = match first_tokens {
        Some((earliest, latest)) if count > 1 => format!("{} to {}", milliseconds(earliest), milliseconds(latest)),
        Some((only, _)) => milliseconds(only),
        None => "–".to_owned(),
    };
    let of_each = per_second(generated, generating, "tokens");
    let generation = match count {
        0 | 1 => of_each,
        _ => format!("{}, {of_each} for each sequence", per_second(output_tokens, run, "tokens")),
    };
    let sequences = if count == prompts { String::new() } else { format!(", {}", counted(count, "sequence")) };
    let mut lines = vec![
        format!("load                 {}", milliseconds(load)),
        format!("prompts              {prompts} ({}){sequences}", counted(prompt_tokens, "token")),
        format!("requests             {}", per_second(prompts, run, "requests")),
        format!("time to first token  {first_token}"),
        format!("generation           {generation} ({} in {})", counted(output_tokens, "token"), milliseconds(run)),
    ];
    lines.extend(iterations.lines());
    if let Some((peak, anonymous)) = crate::memory::memory() {
        let mib = |kib: u64| format!("{:.0} MiB", kib as f64 / 1024.0);
        lines.push(format!(
            "memory               {} at most, {} of it not mapped from files now",
            mib(peak),
            mib(anonymous)
        ));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use runner::executor::InflightBatchingStats;

    fn iteration(sequences: usize, paused: usize, used_num_blocks: usize, reused_blocks: u64) -> IterationStats {
        IterationStats {
            iter: 0,
            iter_latency: Duration::ZERO,
            model_latency: Duration::ZERO,
            new_active_requests_queue_latency: Duration::ZERO,
            num_new_active_requests: 0,
            num_active_requests: 0,
            num_queued_requests: 0,
            num_completed_requests: 0,
            kv_cache: KvCacheStats {
                max_num_blocks: 8,
                tokens_per_block: 32,
                used_num_blocks,
                reused_blocks,
                ..KvCacheStats::default()
            },
            inflight_batching: InflightBatchingStats {
                num_scheduled_requests: sequences,
                num_paused_requests: paused,
                ..InflightBatchingStats::default()
            },
        }
    }

    #[test]
    fn iterations_are_summed() {
        let mut sums = Iterations::default();
        sums.add(&[iteration(1, 0, 2, 0), iteration(4, 1, 6, 3)]);
        sums.add(&[iteration(4, 2, 5, 3)]);
        let [batches, cache] = sums.lines();
        assert_eq!(batches, "iterations           3, 3.00 sequences in each on average, 3 paused");
        assert_eq!(cache, "KV cache             75.0 % at most (6 of 8 blocks of 32 tokens), 3 blocks reused");
        assert!(Iterations::default().lines()[1].contains(" 0.0 %"));
    }
}
