//! From what happened in a run to its figures.

use cpu_kernels::limits::MachineLimits;

use super::cost::{ModelCost, TokenCost};
use super::drive::Run;
use super::load::Load;
use super::report::{ExecutorFigures, KvCacheFacts, Overhead, Phase, RunReport, Seen};
use super::timings::{ratio, timed};
use runner::executor::{IterationStats, KvCacheStats};

/// The figures of a run under `load`.
pub(super) fn summarize(load: Load, run: &Run, cost: &ModelCost, limits: &MachineLimits) -> RunReport {
    let output_tokens: usize = run.served.iter().map(|request| request.token_times.len()).sum();
    let tokens = cost.of_tokens(&run.served);
    let (context, generation): (Vec<_>, Vec<_>) = (select(run, is_context), select(run, is_generation));
    let all = select(run, |_| true);
    let sequences: usize = all.iter().map(|stats| stats.inflight_batching.num_scheduled_requests).sum();
    let ideal: f64 = all.iter().map(|stats| ideal_seconds(stats, &tokens, limits)).sum();
    let detokenization = ratio(run.detokenization.as_secs_f64(), output_tokens as f64).unwrap_or(0.0);
    let statistics = ExecutorFigures {
        kv_cache: kv_cache(&all, &run.before),
        iterations: all.len(),
        mean_batch_size: ratio(sequences as f64, all.len() as f64).unwrap_or(0.0),
        paused_requests: all.iter().map(|stats| stats.inflight_batching.num_paused_requests).sum(),
        context: phase(&context, &tokens, limits),
        generation: phase(&generation, &tokens, limits),
        share_of_machine: ratio(ideal, model_seconds(&all)),
        overhead: overhead(&all, detokenization * output_tokens as f64),
        generation_overhead: overhead(&generation, detokenization * token_count(&generation) as f64),
    };
    timed(load, &run.served, run.elapsed, Seen::Executor(statistics))
}

fn select(run: &Run, wanted: fn(&IterationStats) -> bool) -> Vec<&IterationStats> {
    run.iterations.iter().map(|(_, stats)| stats).filter(|stats| wanted(stats)).collect()
}

fn is_context(stats: &IterationStats) -> bool {
    stats.inflight_batching.num_gen_requests == 0 && stats.inflight_batching.num_ctx_tokens > 0
}

fn is_generation(stats: &IterationStats) -> bool {
    stats.inflight_batching.num_gen_requests > 0 && stats.inflight_batching.num_ctx_tokens == 0
}

fn model_seconds(iterations: &[&IterationStats]) -> f64 {
    iterations.iter().map(|stats| stats.model_latency.as_secs_f64()).sum()
}

fn token_count(iterations: &[&IterationStats]) -> usize {
    let tokens =
        |stats: &&IterationStats| stats.inflight_batching.num_ctx_tokens + stats.inflight_batching.num_gen_requests;
    iterations.iter().map(tokens).sum()
}

/// The time of an iteration in which only the slower of reading and multiplying counts.
fn ideal_seconds(stats: &IterationStats, tokens: &TokenCost, limits: &MachineLimits) -> f64 {
    let work = tokens.of_iteration(stats);
    (work.bytes / limits.read_bytes_per_second).max(work.flops / limits.matrix_flops_per_second)
}

fn phase(iterations: &[&IterationStats], tokens: &TokenCost, limits: &MachineLimits) -> Option<Phase> {
    let model_seconds = model_seconds(iterations);
    let work = iterations.iter().map(|stats| tokens.of_iteration(stats));
    let (flops, bytes) = work.fold((0.0, 0.0), |sum, work| (sum.0 + work.flops, sum.1 + work.bytes));
    let flops_per_second = ratio(flops, model_seconds)?;
    let bytes_per_second = ratio(bytes, model_seconds)?;
    let tokens = token_count(iterations);
    Some(Phase {
        iterations: iterations.len(),
        tokens,
        model_seconds,
        tokens_per_second: ratio(tokens as f64, model_seconds)?,
        bytes_per_second,
        flops_per_second,
        share_of_read_bandwidth: bytes_per_second / limits.read_bytes_per_second,
        share_of_matrix_peak: flops_per_second / limits.matrix_flops_per_second,
    })
}

fn overhead(iterations: &[&IterationStats], detokenization: f64) -> Option<Overhead> {
    let whole: f64 = iterations.iter().map(|stats| stats.iter_latency.as_secs_f64()).sum();
    Some(Overhead {
        outside_model: ratio((whole - model_seconds(iterations)).max(0.0), whole)?,
        detokenization: ratio(detokenization, whole)?,
    })
}

/// Tokens that the blocks in use have room for.
pub(super) fn tokens_in_use(stats: &IterationStats) -> usize {
    stats.kv_cache.used_num_blocks * stats.kv_cache.tokens_per_block
}

fn kv_cache(iterations: &[&IterationStats], before: &KvCacheStats) -> KvCacheFacts {
    let occupancy = |stats: &&IterationStats| {
        ratio(stats.kv_cache.used_num_blocks as f64, stats.kv_cache.max_num_blocks as f64).unwrap_or(0.0)
    };
    let seconds = |stats: &&IterationStats| stats.iter_latency.as_secs_f64();
    let whole: f64 = iterations.iter().map(seconds).sum();
    let weighted: f64 = iterations.iter().map(|stats| occupancy(stats) * seconds(stats)).sum();
    let last = iterations.last().map(|stats| stats.kv_cache).unwrap_or_default();
    let new = KvCacheStats {
        reused_blocks: last.reused_blocks.saturating_sub(before.reused_blocks),
        missed_blocks: last.missed_blocks.saturating_sub(before.missed_blocks),
        ..last
    };
    KvCacheFacts {
        max_num_blocks: last.max_num_blocks,
        tokens_per_block: last.tokens_per_block,
        mean_occupancy: ratio(weighted, whole).unwrap_or(0.0),
        peak_occupancy: iterations.iter().map(occupancy).fold(0.0, f64::max),
        mean_tokens: ratio(weighted, whole).unwrap_or(0.0) * (last.max_num_blocks * last.tokens_per_block) as f64,
        peak_tokens: iterations.iter().map(|stats| tokens_in_use(stats)).max().unwrap_or(0),
        hit_rate: new.cache_hit_rate(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::timings::Served;
    use super::*;
    use runner::executor::InflightBatchingStats;

    const LIMITS: MachineLimits = MachineLimits { read_bytes_per_second: 1e6, matrix_flops_per_second: 1e7 };

    fn milliseconds(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn iteration(context_tokens: usize, generating: usize, whole: u64, model: u64, used: usize) -> IterationStats {
        let num_context_requests = usize::from(context_tokens > 0);
        IterationStats {
            iter: 0,
            iter_latency: milliseconds(whole),
            model_latency: milliseconds(model),
            new_active_requests_queue_latency: Duration::ZERO,
            num_new_active_requests: 0,
            num_active_requests: 2,
            num_queued_requests: 0,
            num_completed_requests: 0,
            kv_cache: KvCacheStats {
                max_num_blocks: 10,
                tokens_per_block: 32,
                used_num_blocks: used,
                reused_blocks: 9,
                missed_blocks: 6,
                ..KvCacheStats::default()
            },
            inflight_batching: InflightBatchingStats {
                num_scheduled_requests: num_context_requests + generating,
                num_context_requests,
                num_gen_requests: generating,
                num_paused_requests: 0,
                num_ctx_tokens: context_tokens,
            },
        }
    }

    fn served(arrival: u64, prompt_tokens: usize, times: &[u64]) -> Served {
        let token_times = times.iter().map(|&time| milliseconds(time)).collect();
        Served { arrival: milliseconds(arrival), prompt_tokens, token_times }
    }

    fn run() -> Run {
        Run {
            before: KvCacheStats { reused_blocks: 6, missed_blocks: 5, ..KvCacheStats::default() },
            served: vec![served(0, 4, &[100, 200, 250]), served(100, 2, &[200, 230, 250])],
            iterations: vec![
                (milliseconds(100), iteration(4, 0, 100, 90, 2)),
                (milliseconds(200), iteration(2, 1, 100, 80, 4)),
                (milliseconds(250), iteration(0, 2, 50, 40, 6)),
            ],
            detokenization: milliseconds(3),
            elapsed: milliseconds(500),
        }
    }

    fn report() -> (RunReport, ModelCost) {
        let (config, _) = super::super::cost::tests::tiny();
        let cost = ModelCost::new(&config);
        (summarize(Load::Concurrency(2), &run(), &cost, &LIMITS), cost)
    }

    fn figures() -> (ExecutorFigures, ModelCost) {
        match report() {
            (RunReport { seen: Seen::Executor(figures), .. }, cost) => (figures, cost),
            _ => panic!("no figures of an executor"),
        }
    }

    fn near(left: f64, right: f64) -> bool {
        (left - right).abs() < 1e-9 * right.abs().max(1.0)
    }

    #[test]
    fn rates_and_latencies_are_counted_from_arrival() {
        let (report, _) = report();
        assert_eq!((report.requests_per_second, report.output_tokens_per_second), (4.0, 12.0));
        assert_eq!(report.total_tokens_per_second, 24.0);
        let first = report.time_to_first_token.unwrap();
        assert!(near(first.min, 0.1) && near(first.max, 0.1) && first.count == 2);
        let per_token = report.time_per_output_token.unwrap();
        assert!(near(per_token.min, 0.025) && near(per_token.max, 0.075));
        let between = report.inter_token_latency.unwrap();
        assert!(near(between.min, 0.02) && near(between.max, 0.1) && between.count == 4);
        assert!(near(report.request_latency.unwrap().max, 0.25));
    }

    #[test]
    fn phases_are_told_apart_and_divided_by_the_limits() {
        let (report, cost) = figures();
        let tokens = cost.of_tokens(&run().served);
        let (context, generation) = (report.context.unwrap(), report.generation.unwrap());
        assert_eq!((context.iterations, context.tokens, generation.tokens), (1, 4, 2));
        assert!(near(context.tokens_per_second, 4.0 / 0.09) && near(generation.tokens_per_second, 2.0 / 0.04));
        let work = tokens.of_iteration(&iteration(0, 2, 50, 40, 6));
        assert!(near(generation.share_of_read_bandwidth, work.bytes / 0.04 / 1e6));
        assert!(near(generation.share_of_matrix_peak, work.flops / 0.04 / 1e7));
        let ideal: f64 = [(4, 0), (2, 1), (0, 2)]
            .map(|(context, generating)| tokens.of_iteration(&iteration(context, generating, 1, 1, 0)))
            .iter()
            .map(|work| (work.bytes / 1e6).max(work.flops / 1e7))
            .sum();
        assert!(near(report.share_of_machine.unwrap(), ideal / 0.21));
    }

    #[test]
    fn overhead_and_occupancy_are_shares_of_time() {
        let (report, _) = figures();
        let (all, generation) = (report.overhead.unwrap(), report.generation_overhead.unwrap());
        assert!(near(all.outside_model, 40.0 / 250.0) && near(all.detokenization, 3.0 / 250.0));
        // Two of the six tokens: one millisecond of 50.
        assert!(near(generation.outside_model, 0.2) && near(generation.detokenization, 0.02));
        let cache = report.kv_cache;
        assert!(near(cache.mean_occupancy, (0.2 * 100.0 + 0.4 * 100.0 + 0.6 * 50.0) / 250.0));
        assert_eq!((cache.peak_occupancy, cache.hit_rate), (0.6, 0.75));
        assert!(near(cache.mean_tokens, cache.mean_occupancy * 320.0));
        assert_eq!(cache.peak_tokens, 6 * 32);
        assert!(near(report.mean_batch_size, 5.0 / 3.0));
    }
}
