//! What the plots show: the report's series as plain data.

use super::drive::Run;
use super::percentiles::Percentiles;
use super::plot::{Chart, Series};
use super::report::RunReport;

/// Most points of a line that is drawn over time; more would not be seen.
const MAX_POINTS: usize = 2000;

/// Latencies over throughput, a point for each load.
pub(super) fn throughput_latency(runs: &[RunReport]) -> Vec<Chart> {
    let mut order: Vec<&RunReport> = runs.iter().collect();
    order.sort_by(|a, b| a.output_tokens_per_second.total_cmp(&b.output_tokens_per_second));
    let chart = |title: &str, figure: fn(&RunReport) -> Option<Percentiles>| {
        let series = |name: &str, percentile: fn(&Percentiles) -> f64| {
            let point = |run: &&RunReport| Some((run.output_tokens_per_second, percentile(&figure(run)?) * 1e3));
            Series { name: name.to_owned(), points: order.iter().filter_map(point).collect() }
        };
        Chart {
            title: title.to_owned(),
            x_label: "throughput (output tokens/s)",
            y_label: "latency (ms)",
            markers: true,
            series: vec![
                series("p50", |samples| samples.p50),
                series("p90", |samples| samples.p90),
                series("p99", |samples| samples.p99),
            ],
            notes: order
                .iter()
                .filter_map(|run| Some((run.output_tokens_per_second, figure(run)?.p99 * 1e3, run.load.clone())))
                .collect(),
        }
    };
    vec![
        chart("Time to first token", |run| run.time_to_first_token),
        chart("Inter-token latency", |run| run.inter_token_latency),
    ]
}

/// The KV cache and the batch over time, a line for each load.
pub(super) fn occupancy(loads: &[(String, &Run)]) -> Vec<Chart> {
    let chart = |title: &str, y_label, figure: fn(&crate::executor::IterationStats) -> f64| Chart {
        title: title.to_owned(),
        x_label: "time (s)",
        y_label,
        markers: false,
        series: loads
            .iter()
            .map(|(name, run)| {
                let points = run.iterations.iter().map(|(end, stats)| (end.as_secs_f64(), figure(stats)));
                Series { name: name.clone(), points: thinned(points.collect()) }
            })
            .collect(),
        notes: Vec::new(),
    };
    vec![
        chart("KV cache", "blocks in use (%)", |stats| {
            100.0 * stats.kv_cache.used_num_blocks as f64 / stats.kv_cache.max_num_blocks.max(1) as f64
        }),
        chart("Batch", "sequences in an iteration", |stats| stats.inflight_batching.num_scheduled_requests as f64),
    ]
}

/// At most [`MAX_POINTS`] points; of each group the highest, so that peaks stay.
fn thinned(points: Vec<(f64, f64)>) -> Vec<(f64, f64)> {
    let group = points.len().div_ceil(MAX_POINTS).max(1);
    let highest = |group: &[(f64, f64)]| group.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1));
    points.chunks(group).filter_map(highest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thinning_keeps_peaks() {
        let mut points: Vec<(f64, f64)> = (0..5000).map(|i| (f64::from(i), 1.0)).collect();
        points[1234].1 = 9.0;
        let thin = thinned(points);
        assert!(thin.len() <= MAX_POINTS && thin.contains(&(1234.0, 9.0)));
        assert!(thin.is_sorted_by(|a, b| a.0 < b.0));
        assert_eq!(thinned(vec![(0.0, 1.0), (1.0, 2.0)]), [(0.0, 1.0), (1.0, 2.0)]);
    }
}
