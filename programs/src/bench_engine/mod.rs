//! The `bench-engine` program: puts an engine under loads and reports latencies, throughput, occupancy of the KV cache,
//! and how much of the machine was used.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `flags` | what can be typed |
//! | `workload`, `requests` | lengths and prompts; requests made of them |
//! | `load` | when requests arrive |
//! | `drive` | serves requests through an executor and writes down what happens when |
//! | `cost` | what the model has to compute and to read at least |
//! | `percentiles`, `summary`, `report`, `table` | figures: what they are made of, and how they are printed |
//! | `figures`, `plot` | plots |
//!
//! Every load gets an executor of its own, so that none finds what another left in the KV cache, and one request to
//! warm up.

mod cost;
mod drive;
mod figures;
mod flags;
mod load;
mod percentiles;
mod plot;
mod report;
mod requests;
mod summary;
mod table;
mod workload;

use std::fs;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use cpu_kernels::Kernels;
use cpu_kernels::limits::MachineLimits;
use engine_format::{EngineDir, Target, staging};
use indicatif::{ProgressBar, ProgressStyle};

use crate::engine::{Closing, describe};
use crate::memory::{memory, processor};
use crate::prompts::refused_flag;
use args::Interrupt;
use args::exit::{Failure, exit_code, input, say};
use runner::engine::{Engine, OpenError, Running, check_target};
use runner::executor::{Executor, ExecutorConfig};
use runner::request_builder::{self, RequestBuilder};
use text::tokenizer::Tokenizer;

use cost::ModelCost;
use drive::{Pace, Run, drive, warm_up};
use flags::{Args, Format};
use load::Load;
use report::{EngineFacts, MachineFacts, Report};
use requests::Workload;
use summary::summarize;

/// Iterations whose statistics wait to be taken; the client takes them with every response.
const STATISTICS: usize = 1 << 20;

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
    let dir = EngineDir::open(&args.engine).map_err(OpenError::from)?;
    check_target(&dir).map_err(Failure::from)?;
    let config = args.executor.config().map_err(input)?;
    args.executor.check(&config, dir.manifest().limits).map_err(input)?;
    let config = ExecutorConfig { iter_stats_max_iterations: STATISTICS, ..config };
    let mut engine = Engine::start_with_text(dir, &config).map_err(Failure::from)?;
    if let Running::TensorRtLlm(executor) = engine.running()
        && !executor.facts().is_leader
    {
        executor.serve();
        return Ok(());
    }
    let tokenizer = engine.tokenizer().cloned();
    let tokenizer = tokenizer.as_ref().and_then(|tokenizer| tokenizer.get().ok());
    let start_up_seconds = began.elapsed().as_secs_f64();
    if !args.quiet {
        describe(&engine, &config);
    }
    let executor = engine.executor();
    let builder = RequestBuilder::new(&engine, executor.as_ref());
    let workload = Workload::new(&args.workload, &args.sampling, builder).map_err(input)?;
    if !args.quiet && workload.scores_prompts() {
        say("note: prompts with `prompt_logprobs` are computed whole, so none of their blocks comes from the cache");
    }
    drop(executor);
    let facts = engine_facts(&engine, start_up_seconds);

    let bar = progress_bar(args.quiet, loads.len() * workload.requests.len());
    let mut runs: Vec<(Load, Run)> = Vec::new();
    for load in loads {
        if !runs.is_empty() {
            engine.restart(&config).map_err(Failure::from)?;
        }
        let executor = engine.executor();
        let _closing = Closing(executor.clone());
        let watched = executor.clone();
        interrupt.watch(move || watched.cancel_all());
        bar.set_message(load.label());
        let run = measure(executor.as_ref(), tokenizer, &workload, load, args.workload.seed, &bar);
        if interrupt.happened() {
            return Err(Failure::Interrupted);
        }
        runs.push((load, run.map_err(Failure::Other)?));
    }
    bar.finish_and_clear();
    // Measured last: it takes memory that is not the engine's.
    let memory = memory();
    let limits = match engine.running() {
        Running::Cpu(_) => measure_limits(facts.threads).map_err(Failure::Other)?,
        Running::TensorRtLlm(_) => gpu_limits(engine.dir()),
    };

    let cost = ModelCost::new(engine.dir().config());
    let report = Report {
        engine: facts,
        workload: workload.facts,
        machine: MachineFacts {
            processor: machine_name(&engine),
            read_bytes_per_second: limits.read_bytes_per_second,
            matrix_flops_per_second: limits.matrix_flops_per_second,
            peak_resident_bytes: memory.map(|(peak, _)| peak * 1024),
            anonymous_bytes: memory.map(|(_, anonymous)| anonymous * 1024),
        },
        runs: runs.iter().map(|(load, run)| summarize(*load, run, &cost, &limits)).collect(),
    };
    write_files(args, &report, &runs).map_err(Failure::Other)?;
    print(args.format, &report).map_err(Failure::Other)
}

fn measure(
    executor: &dyn Executor,
    tokenizer: Option<&Tokenizer>,
    workload: &Workload,
    load: Load,
    seed: u64,
    bar: &ProgressBar,
) -> Result<Run> {
    let pace = match (load, load::arrival_times(load, workload.requests.len(), seed)) {
        (Load::Concurrency(width), _) => Pace::Concurrency(width),
        (_, times) => Pace::Arrivals(times.unwrap_or_default()),
    };
    warm_up(executor, workload.warm_up.clone()).context("the warm-up failed")?;
    Ok(drive(executor, tokenizer, &workload.requests, &pace, || bar.inc(1))?)
}

fn measure_limits(threads: usize) -> Result<MachineLimits> {
    let kernels = Kernels::detect()?;
    let pool = system::Pool::new("limits", threads)?;
    Ok(pool.install(|| MachineLimits::measure(kernels)))
}

/// What the data sheet of the engine's GPU says; nothing of one that is not known.
fn gpu_limits(dir: &EngineDir) -> MachineLimits {
    let target = dir.manifest().target.parse();
    let bandwidth = if let Ok(Target::Gpu(gpu)) = target { gpu.bandwidth as f64 } else { 0.0 };
    MachineLimits { read_bytes_per_second: bandwidth, matrix_flops_per_second: 0.0 }
}

fn engine_facts(engine: &Engine, start_up_seconds: f64) -> EngineFacts {
    let (config, limits) = (engine.dir().config(), engine.executor().limits());
    let (isa, threads, kv_cache_tokens, kv_cache_bytes) = match engine.running() {
        Running::Cpu(executor) => {
            let facts = executor.facts();
            (facts.isa.to_string(), facts.threads, facts.kv_cache_tokens, facts.kv_cache_bytes)
        }
        Running::TensorRtLlm(executor) => (format!("TensorRT-LLM {}", executor.facts().version), 0, 0, 0),
    };
    EngineFacts {
        path: engine.dir().path().display().to_string(),
        architecture: config.architecture.name(),
        parameters: config.parameters(),
        isa,
        threads,
        max_batch_size: limits.max_batch_size,
        max_num_tokens: limits.max_num_tokens,
        max_seq_len: limits.max_seq_len,
        kv_cache_tokens,
        kv_cache_bytes,
        step_weight_bytes: ModelCost::new(config).step_bytes(),
        start_up_seconds,
    }
}

/// The processor, or the GPU that the engine was built for.
fn machine_name(engine: &Engine) -> Option<String> {
    match engine.running() {
        Running::Cpu(_) => processor(),
        Running::TensorRtLlm(_) => Some(engine.dir().manifest().target.clone()),
    }
}

fn progress_bar(quiet: bool, requests: usize) -> ProgressBar {
    let bar = if quiet { ProgressBar::hidden() } else { ProgressBar::new(requests as u64) };
    if let Ok(style) = ProgressStyle::with_template("{msg} {bar:30} {pos}/{len} requests, {elapsed}") {
        bar.set_style(style);
    }
    bar
}

fn write_files(args: &Args, report: &Report, runs: &[(Load, Run)]) -> Result<()> {
    if let Some(path) = &args.json {
        let mut json = serde_json::to_vec_pretty(report)?;
        json.push(b'\n');
        staging::write_file(path, &json)?;
    }
    let Some(dir) = &args.plots else { return Ok(()) };
    fs::create_dir_all(dir).with_context(|| format!("cannot create `{}`", dir.display()))?;
    let plots = [
        ("throughput_latency", figures::throughput_latency(runs, &report.runs)),
        ("occupancy", figures::occupancy(runs)),
    ];
    let caption = table::subject(report);
    for (name, charts) in plots {
        let (svg, png) = plot::render(&caption, &charts)?;
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
