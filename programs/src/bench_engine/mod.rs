//! The `bench-engine` program: puts an engine, or a served endpoint, under loads and reports latencies and throughput; of an engine
//! also the occupancy of the KV cache, and how much of the machine was used.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `flags` | what can be typed |
//! | `workload`, `requests` | lengths and prompts; what is asked, made of them |
//! | `load` | when requests arrive |
//! | `timings` | figures of what was served, whoever served it |
//! | `in_process`, `drive` | an engine: opened and measured; requests served through an executor, and what happens when |
//! | `cost`, `summary` | what the model has to compute and to read at least; figures from an executor's statistics |
//! | `endpoint` | a server: its dialect, requests, answers and figures |
//! | `percentiles`, `report`, `table` | what figures are made of, and how they are printed |
//! | `figures`, `plot` | plots |

mod cost;
mod drive;
mod endpoint;
mod figures;
mod flags;
mod in_process;
mod load;
mod percentiles;
mod plot;
mod report;
mod requests;
mod summary;
mod table;
mod timings;
mod workload;

use std::fs;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use engine_format::staging;
use indicatif::{ProgressBar, ProgressStyle};

use crate::prompts::refused_flag;
use args::Interrupt;
use args::exit::{Failure, exit_code, input};
use runner::request_builder;

use flags::{Args, Format};
use load::Load;
use plot::Chart;
use report::Report;

/// What came of it.
struct Measured {
    report: Report,
    /// The KV cache and the batch over time, where they can be seen.
    occupancy: Option<Vec<Chart>>,
    /// What the program ends with once the figures are out.
    failure: Option<anyhow::Error>,
}

/// Runs the program.
pub fn main() -> ExitCode {
    system::memory::share_the_allocator_where_address_space_is_little();
    let began = Instant::now();
    args::generate::main(|args: Args| exit_code(run(&args, began)))
}

fn run(args: &Args, began: Instant) -> Result<(), Failure> {
    let interrupt = Interrupt::install().map_err(Failure::Other)?;
    let loads = args.workload.loads().map_err(input)?;
    request_builder::check(&args.sampling.options).map_err(|error| input(refused_flag(error)))?;
    let measured = match (&args.endpoint.url, &args.engine) {
        (Some(url), _) => Some(endpoint::measure(args, url, &loads)?),
        (None, Some(path)) => in_process::measure(args, path, &loads, &interrupt, began)?,
        (None, None) => None,
    };
    let Some(measured) = measured else { return Ok(()) };
    write_files(args, &measured, &loads).map_err(Failure::Other)?;
    print(args.format, &measured.report).map_err(Failure::Other)?;
    measured.failure.map_or(Ok(()), |failure| Err(Failure::Other(failure)))
}

fn progress_bar(quiet: bool, requests: usize) -> ProgressBar {
    let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(requests as u64) };
    if let Ok(style) = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len} requests, {elapsed}") {
        bar.set_style(style);
    }
    bar
}

fn write_files(args: &Args, measured: &Measured, loads: &[Load]) -> Result<()> {
    let report = &measured.report;
    if let Some(path) = &args.json {
        let mut json = serde_json::to_vec_pretty(report)?;
        json.push(b'\n');
        staging::write_file(path, &json)?;
    }
    let Some(dir) = &args.plots else { return Ok(()) };
    fs::create_dir_all(dir).with_context(|| format!("cannot create `{}`", dir.display()))?;
    let latency = figures::throughput_latency(loads, &report.runs);
    let caption = table::subject(report);
    let occupancy = measured.occupancy.as_ref().map(|charts| ("occupancy", charts));
    for (name, charts) in [("throughput_latency", &latency)].into_iter().chain(occupancy) {
        let (svg, png) = plot::render(&caption, charts)?;
        staging::write_file(&dir.join(format!("{name}.svg")), svg.as_bytes())?;
        staging::write_file(&dir.join(format!("{name}.png")), &png)?;
    }
    Ok(())
}

fn print(format: Format, report: &Report) -> Result<()> {
    let text = match format {
        Format::Table => table::render(report),
        Format::Json => serde_json::to_string(report)? + "\n",
    };
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(anyhow::Error::new(error).context("cannot write to standard output"))
        }
        _ => Ok(()),
    }
}
