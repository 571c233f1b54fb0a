//! The lines of `--stats`.

use std::time::Duration;

use super::completions::Completion;
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
                "KV cache             {:.1} % at most ({} of {max_num_blocks} blocks of {tokens_per_block} tokens), {reused_blocks} blocks reused",
                occupancy * 100.0,
                self.peak_used_blocks,
            ),
        ]
    }
}

/// What a run of `prompts` prompts took.
pub(super) fn stats(
    load: Duration,
    run: Duration,
    prompts: usize,
    completions: &[Completion],
    iterations: &Iterations,
) -> String {
    // All sequences of a prompt share it.
    let first_sequences = completions.iter().filter(|completion| completion.sequence_index.unwrap_or(0) == 0);
    let prompt_tokens: usize = first_sequences.map(|completion| completion.prompt_tokens).sum();
    let output_tokens: usize = completions.iter().map(|completion| completion.output_ids.len()).sum();
    // The first token of each sequence is the context phase's.
    let generated: usize = completions.iter().map(|completion| completion.output_ids.len().saturating_sub(1)).sum();
    let generating: Duration = completions.iter().map(|completion| completion.stats.generation_time).sum();
    let per_second = |count: usize, time: Duration, what: &str| {
        if time.is_zero() { "–".to_owned() } else { format!("{:.1} {what}/s", count as f64 / time.as_secs_f64()) }
    };
    let milliseconds = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1e3);

    let first_tokens = || completions.iter().filter_map(|completion| completion.stats.time_to_first_token);
    let first_token = match (first_tokens().min(), first_tokens().max()) {
        (Some(earliest), Some(latest)) if completions.len() > 1 => {
            format!("{} to {}", milliseconds(earliest), milliseconds(latest))
        }
        (Some(only), _) => milliseconds(only),
        _ => "–".to_owned(),
    };
    let of_each = per_second(generated, generating, "tokens");
    let generation = match completions.len() {
        0 | 1 => of_each,
        _ => format!("{}, {of_each} for each sequence", per_second(output_tokens, run, "tokens")),
    };
    let sequences = match completions.len() {
        count if count == prompts => String::new(),
        count => format!(", {count} sequences"),
    };
    let mut lines = vec![
        format!("load                 {}", milliseconds(load)),
        format!("prompts              {prompts} ({prompt_tokens} tokens){sequences}"),
        format!("requests             {}", per_second(prompts, run, "requests")),
        format!("time to first token  {first_token}"),
        format!("generation           {generation} ({output_tokens} tokens in {})", milliseconds(run)),
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
