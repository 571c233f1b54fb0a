//! The report as a table: a row for each figure, a column for each load.

use crate::format::{counted, short_count};
use std::fmt::Write;

use super::percentiles::Percentiles;
use super::report::{Overhead, Phase, Report, RunReport};

/// A figure's name and how it is printed.
type Row = (&'static str, fn(&RunReport) -> String);

const ROWS: &[Row] = &[
    ("requests/s", |run| number(run.requests_per_second)),
    ("output tokens/s", |run| number(run.output_tokens_per_second)),
    ("all tokens/s", |run| number(run.total_tokens_per_second)),
    ("time to first token, ms", |run| milliseconds(run.time_to_first_token)),
    ("time per output token, ms", |run| milliseconds(run.time_per_output_token)),
    ("inter-token latency, ms", |run| milliseconds(run.inter_token_latency)),
    ("request latency, ms", |run| milliseconds(run.request_latency)),
    ("iterations", |run| run.iterations.to_string()),
    ("mean batch, sequences", |run| number(run.mean_batch_size)),
    ("KV cache, tokens, mean / peak", |run| {
        format!("{} / {}", number(run.kv_cache.mean_tokens), run.kv_cache.peak_tokens)
    }),
    ("  of what it holds", |run| {
        format!("{} / {}", percent(run.kv_cache.mean_occupancy), percent(run.kv_cache.peak_occupancy))
    }),
    ("prompt blocks from the cache", |run| percent(run.kv_cache.hit_rate)),
    ("context only, tokens/s", |run| phase(&run.context, |phase| number(phase.tokens_per_second))),
    ("  of the matrix peak", |run| phase(&run.context, |phase| percent(phase.share_of_matrix_peak))),
    ("generation only, tokens/s", |run| phase(&run.generation, |phase| number(phase.tokens_per_second))),
    ("  of the read bandwidth", |run| phase(&run.generation, |phase| percent(phase.share_of_read_bandwidth))),
    ("  of the matrix peak", |run| phase(&run.generation, |phase| percent(phase.share_of_matrix_peak))),
    ("  outside the model", |run| overhead(&run.generation_overhead, |part| part.outside_model)),
    ("  detokenization", |run| overhead(&run.generation_overhead, |part| part.detokenization)),
    ("all, of the machine's limit", |run| run.share_of_machine.map_or_else(nothing, percent)),
    ("  outside the model", |run| overhead(&run.overhead, |part| part.outside_model)),
    ("  detokenization", |run| overhead(&run.overhead, |part| part.detokenization)),
];

/// What the figures are of: the engine, the machine, the workload, each a line.
pub(super) fn subject(report: &Report) -> Vec<String> {
    let (engine, workload, machine) = (&report.engine, &report.workload, &report.machine);
    let processor = machine.processor.as_deref().map_or_else(String::new, |name| format!(" on {name}"));
    let threads = match engine.threads {
        0 => String::new(),
        threads => format!(", {}", counted(threads, "thread")),
    };
    let chat = if workload.chat { ", as chat" } else { "" };
    let sampling = if workload.sampling.is_empty() { "greedy".to_owned() } else { workload.sampling.join(" ") };
    vec![
        format!(
            "{}: {}, {} parameters; {}{threads}{processor}",
            engine.path,
            engine.architecture,
            short_count(engine.parameters as f64),
            engine.isa,
        ),
        format!(
            "max_batch_size {}, max_num_tokens {}, max_seq_len {}, a KV cache of {}",
            engine.max_batch_size,
            engine.max_num_tokens,
            engine.max_seq_len,
            counted(engine.kv_cache_tokens, "token")
        ),
        format!(
            "{} ({}{chat}): {} prompt and {} output tokens; {sampling}, seed {}",
            counted(workload.requests, "request"),
            workload.source,
            workload.prompt_tokens,
            workload.output_tokens,
            workload.seed,
        ),
    ]
}

/// With fewer requests, their 90th and 99th percentile are one and the same: the slowest.
const FEW: usize = 10;

/// The table, with what it is about above and the machine below.
pub(super) fn render(report: &Report) -> String {
    let (engine, machine) = (&report.engine, &report.machine);
    let mut text = subject(report).join("\n") + "\nlatencies are p50 / p90 / p99";
    if report.workload.requests < FEW {
        text += &format!(
            "; of fewer than {FEW} requests, p90 and p99 are the slowest one (between tokens there are more samples)"
        );
    }
    text += "\n\n";
    let mut columns =
        vec![std::iter::once(String::new()).chain(ROWS.iter().map(|(name, _)| (*name).to_owned())).collect()];
    for run in &report.runs {
        let cells = ROWS.iter().map(|(_, cell)| cell(run));
        columns.push(std::iter::once(run.load.clone()).chain(cells).collect::<Vec<_>>());
    }
    let widths: Vec<usize> =
        columns.iter().map(|column| column.iter().map(|cell| cell.chars().count()).max().unwrap_or(0)).collect();
    for row in 0..=ROWS.len() {
        let mut line = String::new();
        for (column, (cells, &width)) in columns.iter().zip(&widths).enumerate() {
            // Writing to a string cannot fail.
            let _ = match column {
                0 => write!(line, "{:<width$}", cells[row]),
                _ => write!(line, "   {:>width$}", cells[row]),
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    let _ = write!(
        text,
        "\nthis machine, with {}: {:.1} GB/s of reads, {} of matrix products ({})\n\
         start-up {:.0} ms; peak resident memory {} MB, weights mapped from the engine included\n",
        counted(engine.threads, "thread"),
        machine.read_bytes_per_second / 1e9,
        flops(machine.matrix_flops_per_second),
        engine.isa,
        engine.start_up_seconds * 1e3,
        machine.peak_resident_bytes.map_or_else(nothing, |bytes| (bytes / 1_000_000).to_string()),
    );
    text
}

fn nothing() -> String {
    "–".to_owned()
}

fn phase(phase: &Option<Phase>, figure: fn(&Phase) -> String) -> String {
    phase.as_ref().map_or_else(nothing, figure)
}

fn overhead(overhead: &Option<Overhead>, part: fn(&Overhead) -> f64) -> String {
    overhead.as_ref().map_or_else(nothing, |overhead| percent(part(overhead)))
}

fn milliseconds(samples: Option<Percentiles>) -> String {
    samples.map_or_else(nothing, |samples| {
        [samples.p50, samples.p90, samples.p99].map(|seconds| number(seconds * 1e3)).join(" / ")
    })
}

/// Three digits or more.
fn number(value: f64) -> String {
    let decimals = match value {
        _ if value >= 99.95 => 0,
        _ if value >= 9.995 => 1,
        _ => 2,
    };
    format!("{value:.decimals$}")
}

fn percent(share: f64) -> String {
    format!("{} %", number(share * 100.0))
}

fn flops(value: f64) -> String {
    if value >= 1e12 { format!("{:.2} Tflop/s", value / 1e12) } else { format!("{:.0} Gflop/s", value / 1e9) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        assert_eq!(
            [0.0, 0.123, 9.994, 9.996, 99.94, 99.96, 1234.5].map(number),
            ["0.00", "0.12", "9.99", "10.0", "99.9", "100", "1234"]
        );
        assert_eq!(percent(0.856), "85.6 %");
        assert_eq!([flops(1.69e11), flops(6.5e12)], ["169 Gflop/s", "6.50 Tflop/s"]);
    }
}
