//! The report as a table: a row for each figure, a column for each load.

use crate::format::{counted, short_count};
use std::fmt::Write;

use runner::executor::KvCacheDtype;

use super::endpoint::{EndpointFacts, EndpointFigures};
use super::percentiles::Percentiles;
use super::report::{EngineFacts, ExecutorFigures, MachineFacts, Overhead, Phase, Report, RunReport, Seen, Subject};

/// A figure's name and how it is printed.
type Row<T> = (&'static str, fn(&T) -> String);

const ROWS: [Row<RunReport>; 7] = [
    ("requests/s", |run| number(run.requests_per_second)),
    ("output tokens/s", |run| number(run.output_tokens_per_second)),
    ("all tokens/s", |run| number(run.total_tokens_per_second)),
    ("time to first token, ms", |run| milliseconds(run.time_to_first_token)),
    ("time per output token, ms", |run| milliseconds(run.time_per_output_token)),
    ("inter-token latency, ms", |run| milliseconds(run.inter_token_latency)),
    ("request latency, ms", |run| milliseconds(run.request_latency)),
];

/// Of an engine.
const EXECUTOR_ROWS: [Row<ExecutorFigures>; 15] = [
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

/// Of a server.
const ENDPOINT_ROWS: [Row<EndpointFigures>; 6] = [
    ("answered", |run| run.answered.to_string()),
    ("  before their length", |run| run.ended_early.to_string()),
    ("refused: 429, 503", |run| run.refused.to_string()),
    ("  Retry-After, s", |run| {
        run.retry_after.map_or_else(nothing, |seconds| format!("{} to {}", seconds.min, seconds.max))
    }),
    ("failed", |run| run.failed.to_string()),
    ("prompt tokens from the cache", |run| {
        let share = |cached: usize| percent(cached as f64 / run.prompt_tokens.max(1) as f64);
        run.cached_prompt_tokens.map_or_else(nothing, share)
    }),
];

/// What the figures are of: the engine and the machine, or the server; the workload. Each is a line.
pub(super) fn subject(report: &Report) -> Vec<String> {
    let mut lines = match &report.subject {
        Subject::Engine { engine, machine } => of_engine(engine, machine),
        Subject::Endpoint { endpoint } => of_endpoint(endpoint),
    };
    let workload = &report.workload;
    let chat = if workload.chat { ", as chat" } else { "" };
    let sampling = if workload.sampling.is_empty() { "greedy".to_owned() } else { workload.sampling.join(" ") };
    lines.push(format!(
        "{} ({}{chat}): {} prompt and {} output tokens; {sampling}, seed {}",
        counted(workload.requests, "request"),
        workload.source,
        workload.prompt_tokens.map_or_else(nothing, |tokens| tokens.to_string()),
        workload.output_tokens,
        workload.seed,
    ));
    lines
}

fn of_engine(engine: &EngineFacts, machine: &MachineFacts) -> Vec<String> {
    let processor = machine.processor.as_deref().map_or_else(String::new, |name| format!(" on {name}"));
    let threads = match engine.threads {
        0 => String::new(),
        threads => format!(", {}", counted(threads, "thread")),
    };
    let cache = engine.kv_cache_dtype.map_or("", KvCacheDtype::mention);
    vec![
        format!(
            "{}: {}, {} parameters; {}{threads}{processor}",
            engine.path,
            engine.architecture,
            short_count(engine.parameters as f64),
            engine.kernels,
        ),
        format!(
            "max_batch_size {}, max_num_tokens {}, max_seq_len {}, a KV cache{cache} of {}",
            engine.max_batch_size,
            engine.max_num_tokens,
            engine.max_seq_len,
            counted(engine.kv_cache_tokens, "token")
        ),
    ]
}

fn of_endpoint(endpoint: &EndpointFacts) -> Vec<String> {
    let processor = endpoint.client.as_deref().map_or_else(String::new, |name| format!(" on {name}"));
    let extensions = match endpoint.extensions {
        true => "",
        false => "; without ignore_eos and cache_salt, which the server refuses",
    };
    vec![
        format!(
            "{}: model {}; prompts as {} to {}{extensions}",
            endpoint.url,
            endpoint.model,
            endpoint.prompts,
            endpoint.routes.join(" and ")
        ),
        format!(
            "times are the client's{processor}: HTTP and text included; tokens are the server's: {}",
            endpoint.token_counts
        ),
    ]
}

/// With fewer requests, their 90th and 99th percentile are one and the same: the slowest.
const FEW: usize = 10;

/// The table, with what it is about above, and below the machine, or what went wrong.
pub(super) fn render(report: &Report) -> String {
    let mut text = subject(report).join("\n") + "\nlatencies are p50 / p90 / p99";
    if report.workload.requests < FEW {
        text += &format!(
            "; of fewer than {FEW} requests, p90 and p99 are the slowest one (between tokens there are more samples)"
        );
    }
    text += "\n\n";
    let mut columns = vec![names(&report.subject)];
    columns.extend(report.runs.iter().map(cells));
    let widths: Vec<usize> =
        columns.iter().map(|column| column.iter().map(|cell| cell.chars().count()).max().unwrap_or(0)).collect();
    for row in 0..columns[0].len() {
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
    match &report.subject {
        Subject::Engine { engine, machine } => text += &limits(engine, machine),
        Subject::Endpoint { .. } => text += &problems(&report.runs),
    }
    text
}

/// The first column.
fn names(subject: &Subject) -> Vec<String> {
    fn of<T>(rows: &[Row<T>]) -> impl Iterator<Item = &'static str> {
        rows.iter().map(|(name, _)| *name)
    }
    let names: Vec<_> = match subject {
        Subject::Engine { .. } => of(&ROWS).chain(of(&EXECUTOR_ROWS)).collect(),
        Subject::Endpoint { .. } => of(&ROWS).chain(of(&ENDPOINT_ROWS)).collect(),
    };
    std::iter::once("").chain(names).map(str::to_owned).collect()
}

/// A load's column.
fn cells(run: &RunReport) -> Vec<String> {
    fn of<T>(rows: &[Row<T>], figures: &T) -> Vec<String> {
        rows.iter().map(|(_, cell)| cell(figures)).collect()
    }
    let seen = match &run.seen {
        Seen::Executor(figures) => of(&EXECUTOR_ROWS, figures),
        Seen::Endpoint(figures) => of(&ENDPOINT_ROWS, figures),
    };
    [vec![run.load.clone()], of(&ROWS, run), seen].concat()
}

fn limits(engine: &EngineFacts, machine: &MachineFacts) -> String {
    format!(
        "\nthis machine, with {}: {:.1} GB/s of reads, {} of matrix products ({})\n\
         start-up {:.0} ms; peak resident memory {} MB, weights mapped from the engine included\n",
        counted(engine.threads, "thread"),
        machine.read_bytes_per_second / 1e9,
        flops(machine.matrix_flops_per_second),
        engine.kernels,
        engine.start_up_seconds * 1e3,
        machine.peak_resident_bytes.map_or_else(nothing, |bytes| (bytes / 1_000_000).to_string()),
    )
}

/// Reasons that are told; the JSON has all.
const MOST_PROBLEMS: usize = 5;

/// Why requests were not answered, a line each.
fn problems(runs: &[RunReport]) -> String {
    let mut text = String::new();
    for run in runs {
        let Seen::Endpoint(figures) = &run.seen else { continue };
        for problem in figures.problems.iter().take(MOST_PROBLEMS) {
            let _ = write!(text, "\n{}, {}: {}", run.load, counted(problem.count, "request"), problem.message);
        }
    }
    if text.is_empty() { text } else { text + "\n" }
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
