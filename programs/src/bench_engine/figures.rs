//! What the plots show: the report's series as plain data.

use std::time::Duration;

use super::drive::Run;
use super::load::Load;
use super::percentiles::Percentiles;
use super::plot::{Chart, Series};
use super::report::RunReport;
use super::summary::tokens_in_use;
use crate::format::counted;
use runner::executor::IterationStats;

/// Most iterations of a line that is drawn over time; more would not be seen.
const MAX_SPANS: usize = 1000;

/// Latencies over throughput, a point for each load, joined in the order of the loads.
pub(super) fn throughput_latency(loads: &[Load], reports: &[RunReport]) -> Vec<Chart> {
    let named = match loads.first() {
        Some(Load::Concurrency(_)) => "each load named by its requests at a time",
        Some(Load::Rate(..)) => "each load named by its requests a second",
        _ => "all requests at once",
    };
    let chart = |title: &str, figure: fn(&RunReport) -> Option<Percentiles>| {
        let point = |run: &RunReport, percentile: fn(&Percentiles) -> f64| {
            Some((run.output_tokens_per_second, percentile(&figure(run)?) * 1e3))
        };
        let series = |name: &str, percentile: fn(&Percentiles) -> f64| Series {
            name: name.to_owned(),
            points: reports.iter().filter_map(|run| point(run, percentile)).collect(),
        };
        let note = |(load, report): (&Load, &RunReport)| {
            let (x, y) = point(report, |samples| samples.p99)?;
            Some((x, y, load.short_label()))
        };
        Chart {
            title: format!("{title} ({named})"),
            x_label: "throughput (output tokens/s)",
            y_label: "latency (ms)",
            markers: true,
            // Where two percentiles are one and the same sample, as with few requests, the later line lies on the earlier one,
            // which is drawn wider and stays to be seen.
            series: vec![
                series("p99", |samples| samples.p99),
                series("p90", |samples| samples.p90),
                series("p50", |samples| samples.p50),
            ],
            nested: true,
            notes: loads.iter().zip(reports).filter_map(note).collect(),
        }
    };
    vec![
        chart("Time to first token", |run| run.time_to_first_token),
        chart("Inter-token latency", |run| run.inter_token_latency),
    ]
}

/// The KV cache and the batch over time, a line for each load.
pub(super) fn occupancy(loads: &[Load], runs: &[Run]) -> Vec<Chart> {
    let chart = |title: &str, y_label, figure: fn(&IterationStats) -> f64| Chart {
        title: title.to_owned(),
        x_label: "time (s)",
        y_label,
        markers: false,
        nested: false,
        series: loads
            .iter()
            .zip(runs)
            .map(|(load, run)| {
                let span = |(end, stats): &(Duration, IterationStats)| {
                    (end.saturating_sub(stats.iter_latency).as_secs_f64(), end.as_secs_f64(), figure(stats))
                };
                Series { name: load.label(), points: steps(&run.iterations.iter().map(span).collect::<Vec<_>>()) }
            })
            .collect(),
        notes: Vec::new(),
    };
    let last = runs.iter().filter_map(|run| run.iterations.last()).next();
    let holds = last.map_or(0, |(_, stats)| stats.kv_cache.max_num_blocks * stats.kv_cache.tokens_per_block);
    vec![
        chart(&format!("KV cache, which holds {}", counted(holds, "token")), "tokens in use (whole blocks)", |stats| {
            tokens_in_use(stats) as f64
        }),
        chart("Batch", "sequences in an iteration", |stats| stats.inflight_batching.num_scheduled_requests as f64),
    ]
}

/// A line that has the value of each span (start, end, value) from its start to the start of the next. Of more than
/// [`MAX_SPANS`], neighbours are joined at their highest, so that peaks stay.
fn steps(spans: &[(f64, f64, f64)]) -> Vec<(f64, f64)> {
    let group = spans.len().div_ceil(MAX_SPANS).max(1);
    let mut points: Vec<(f64, f64)> = Vec::new();
    for spans in spans.chunks(group) {
        let highest = spans.iter().map(|span| span.2).fold(0.0, f64::max);
        let before = points.last().map(|point| point.1);
        if before != Some(highest) {
            points.extend(before.map(|before| (spans[0].0, before)));
            points.push((spans[0].0, highest));
        }
    }
    points.extend(spans.last().zip(points.last()).map(|(span, point)| (span.1, point.1)));
    points
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joined_steps_keep_peaks() {
        let mut spans: Vec<(f64, f64, f64)> = (0..5000).map(|i| (f64::from(i), f64::from(i + 1), 1.0)).collect();
        spans[1234].2 = 9.0;
        let points = steps(&spans);
        assert!(points.len() <= 2 * MAX_SPANS && points.iter().any(|point| point.1 == 9.0));
        assert!(points.is_sorted_by(|a, b| a.0 <= b.0));
        let spans = [(0.0, 1.0, 5.0), (1.0, 2.0, 6.0), (2.5, 3.0, 6.0)];
        assert_eq!(steps(&spans), [(0.0, 5.0), (1.0, 5.0), (1.0, 6.0), (3.0, 6.0)]);
        assert_eq!(steps(&[]), []);
    }
}
