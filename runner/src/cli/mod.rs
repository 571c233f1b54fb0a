//! The `run-engine` program: what was typed, resolved, run and printed.
//!
//! Completions go to standard output, everything else to standard error.

mod args;
pub(crate) mod encoder;
pub(crate) mod executor_args;
pub(crate) mod generation_args;
pub(crate) mod interrupt;
mod live;
pub(crate) mod output;
pub(crate) mod prompts;
pub(crate) mod stats;

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::anyhow;
use clap::Parser;
use engine_format::EngineDir;
use engine_format::error::with_causes;
use engine_format::weights_file::WEIGHTS_FILE;

use crate::cpu_model::CpuModelError;
use crate::doctor;
use crate::engine::{Engine, OpenError, Running, check_target};
use crate::executor::tensorrt_llm;
use crate::executor::{EnqueueError, Executor, ExecutorConfig, FinishReason, Shutdown};
use crate::generation::{Completion, Event, GenerationError, Job, generate};
use crate::tokenizer::Tokenizer;

use args::{Args, Command, Format};
use encoder::Encoder;
use executor_args::ExecutorArgs;
use interrupt::Interrupt;
use live::Live;
use output::{Printer, Style};
use prompts::Prompt;
use stats::Iterations;

/// Why a program ends without success.
pub(crate) enum Failure {
    /// Bad input or usage: exit code 2.
    Input(anyhow::Error),
    /// This machine lacks what was asked for: exit code 3.
    Machine(anyhow::Error),
    /// Anything else: exit code 1.
    Other(anyhow::Error),
    /// A signal ended the run: exit code 130.
    Interrupted,
}

/// Marks errors about what the user gave.
pub(crate) fn input<E: Into<anyhow::Error>>(error: E) -> Failure {
    Failure::Input(error.into())
}

/// Runs the program.
pub fn main() -> ExitCode {
    exit_code(run(Args::parse()))
}

/// What a program ends with, after it has said why.
pub(crate) fn exit_code(result: Result<(), Failure>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Interrupted) => {
            say("interrupted");
            ExitCode::from(130)
        }
        Err(Failure::Input(error)) => fail(&error, 2),
        Err(Failure::Machine(error)) => fail(&error, 3),
        Err(Failure::Other(error)) => fail(&error, 1),
    }
}

fn fail(error: &anyhow::Error, code: u8) -> ExitCode {
    say(format_args!("error: {}", with_causes(error.as_ref())));
    ExitCode::from(code)
}

/// A line to standard error. A reader that went away (`2>&1 | head`) is no reason to end a run.
fn say(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn run(args: Args) -> Result<(), Failure> {
    if let Some(Command::Doctor { engine }) = &args.command {
        return examine(engine.as_deref());
    }
    let path = args.engine.as_deref().ok_or_else(|| input(anyhow!("--engine DIR is needed")))?;
    install_log(args.verbose);
    let interrupt = Interrupt::install().map_err(Failure::Other)?;
    let prompts = prompts::collect(&args).map_err(input);
    // Of several processes only the leader has prompts to be wrong; which one that is, is known later.
    let prompts = if tensorrt_llm::is_one_of_several() { prompts } else { Ok(prompts?) };
    let began = Instant::now();
    let dir = EngineDir::open(path).map_err(input)?;
    check_target(&dir).map_err(cannot_open)?;
    args.executor.check(dir.manifest().limits).map_err(input)?;
    let config = args.executor.config().map_err(input)?;
    if args.verify {
        verify(&dir, args.quiet)?;
        if matches!(&prompts, Ok(prompts) if prompts.is_empty()) {
            return Ok(());
        }
    }
    let config = ExecutorConfig {
        // With --stats they are taken at every event, so few are ever kept; else nobody asks.
        iter_stats_max_iterations: if args.stats { usize::MAX } else { 0 },
        ..config
    };
    let engine = Engine::start(dir, &config).map_err(cannot_open)?;
    if let Running::TensorRtLlm(executor) = engine.running()
        && !executor.facts().is_leader
    {
        executor.serve();
        return Ok(());
    }
    let _closing = Closing(engine.executor());
    let prompts = prompts?;
    let chat = args.chat.then(|| engine.chat()).transpose().map_err(input)?;
    let (executor, tokenizer) = (engine.executor(), engine.tokenizer().map(Arc::as_ref));
    interrupt.watch(&executor);
    let load = began.elapsed();
    if !args.quiet {
        describe(&engine, &args.executor);
    }

    let encoder = Encoder { tokenizer, chat, end_ids: engine.end_ids(), engine: &engine, executor: executor.as_ref() };
    let names = Names::of(&prompts);
    let mut jobs = Vec::new();
    for (index, prompt) in prompts.into_iter().enumerate() {
        let job = encoder.job(index, prompt).map_err(|error| input(names.blame(index, error)))?;
        if !args.quiet {
            warn(&job, names.get(index).unwrap_or("the prompt"), executor.limits().max_seq_len);
        }
        jobs.push(job);
    }
    complete(&args, &interrupt, executor.as_ref(), tokenizer, jobs, &names, load)
}

/// Shuts an executor down when a run is over, whichever way it ends: what handles signals holds on to it, and its ranks, which may
/// be processes of their own, end with it only.
pub(crate) struct Closing(pub(crate) Arc<dyn Executor>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.shutdown(Shutdown::Cancel);
    }
}

/// `run-engine doctor`.
fn examine(engine: Option<&Path>) -> Result<(), Failure> {
    let diagnosis = doctor::diagnose(engine);
    write!(io::stdout(), "{diagnosis}").map_err(|error| Failure::Other(error.into()))?;
    if diagnosis.is_healthy() {
        return Ok(());
    }
    Err(Failure::Machine(anyhow!(
        "this machine cannot run TensorRT engines as it is; CPU engines (`--gpu none`) run everywhere"
    )))
}

/// What prompts are called in messages; the only one of the command line has no name.
struct Names(Vec<Option<String>>);

impl Names {
    fn of(prompts: &[Prompt]) -> Self {
        let several = prompts.len() > 1;
        let name = |(index, prompt): (usize, &Prompt)| {
            prompt.origin.clone().or_else(|| several.then(|| format!("prompt {index}")))
        };
        Self(prompts.iter().enumerate().map(name).collect())
    }

    fn get(&self, index: usize) -> Option<&str> {
        self.0.get(index)?.as_deref()
    }

    /// `error`, with the prompt that it is about in front.
    fn blame(&self, index: usize, error: impl Into<anyhow::Error>) -> anyhow::Error {
        match self.get(index) {
            Some(name) => error.into().context(name.to_owned()),
            None => error.into(),
        }
    }
}

/// Says what the user may not expect of a request that is valid.
fn warn(job: &Job, name: &str, max_seq_len: usize) {
    let spec = job.request.spec();
    if job.request.is_shortened() {
        say(format_args!(
            "warning: {name} has {} tokens, which leaves room for {} tokens of output (max_seq_len {max_seq_len})",
            spec.input_token_ids.len(),
            spec.max_tokens,
        ));
    }
    if job.num_sequences() > 1 && spec.sampling.beam_width == 1 && spec.sampling.is_greedy() {
        say(format_args!(
            "warning: the {} sequences of {name} will be the same: without --temperature nothing is drawn",
            job.num_sequences()
        ));
    }
}

/// Runs the jobs and prints what comes.
fn complete(
    args: &Args,
    interrupt: &Interrupt,
    executor: &dyn Executor,
    tokenizer: Option<&Tokenizer>,
    jobs: Vec<Job>,
    names: &Names,
    load: std::time::Duration,
) -> Result<(), Failure> {
    let began = Instant::now();
    let prompts = jobs.len();
    let sequences: Vec<usize> = jobs.iter().map(Job::num_sequences).collect();
    let total: usize = sequences.iter().sum();
    let on_terminal = io::stdout().is_terminal() && io::stderr().is_terminal();
    let style = match args.format {
        Format::Json => Style::Json,
        Format::Text if on_terminal && total > 1 && !args.quiet => Style::WholeText,
        Format::Text => Style::StreamedText,
    };
    let mut printer = Printer::new(io::stdout().lock(), style, &sequences);
    let mut live = (style == Style::WholeText).then(|| Live::new(sequences));
    let mut printed = Ok(());
    let mut completions = Vec::new();
    let mut iterations = Iterations::default();
    let result = generate(executor, tokenizer, jobs, |event| {
        if printed.is_ok() {
            printed = match (&mut live, &event) {
                (Some(live), Event::Finished(_)) => {
                    live.show(&event);
                    live.above(|| printer.print(&event))
                }
                (Some(live), Event::Text { .. }) => {
                    live.show(&event);
                    Ok(())
                }
                (None, _) => printer.print(&event),
            };
            if printed.is_err() {
                // Nobody reads any more: end what runs, and let `generate` see it end.
                interrupt.stop();
            }
        }
        if args.stats {
            iterations.add(&executor.iteration_stats());
        }
        if let Event::Finished(completion) = event {
            completions.push(completion);
        }
    });
    let elapsed = began.elapsed();
    drop(live);
    match printed {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        Err(error) => return Err(Failure::Other(anyhow::Error::new(error).context("cannot write to standard output"))),
        Ok(()) => {}
    }
    let cancelled = |completion: &Completion| completion.finish_reason == FinishReason::Cancelled;
    if interrupt.happened() && (completions.len() < total || completions.iter().any(cancelled)) {
        return Err(Failure::Interrupted);
    }
    result.map_err(|error| failed(error, names))?;
    if args.stats {
        iterations.add(&executor.iteration_stats());
        say(stats::stats(load, elapsed, prompts, &completions, &iterations));
    }
    Ok(())
}

/// An error of a run, with the name of the prompt that it is about.
fn failed(error: GenerationError, names: &Names) -> Failure {
    match error {
        GenerationError::Enqueue { index, source } => {
            let is_input = matches!(
                source,
                EnqueueError::Guide { .. }
                    | EnqueueError::Unsupported { .. }
                    | EnqueueError::KvCacheTooSmall { .. }
                    | EnqueueError::PromptTooLong { .. }
                    | EnqueueError::Refused { .. }
            );
            let error = names.blame(index, source);
            if is_input { Failure::Input(error) } else { Failure::Other(error) }
        }
        GenerationError::Failed { index, message } => Failure::Other(names.blame(index, anyhow!(message))),
        other => Failure::Other(other.into()),
    }
}

/// Why an engine could not be opened, by whose fault it is.
pub(crate) fn cannot_open(error: OpenError) -> Failure {
    match error {
        OpenError::Cpu(error) => cannot_start(error),
        OpenError::Target { .. } | OpenError::Gpu { .. } => Failure::Machine(error.into()),
        OpenError::TensorRtLlm(error) => match error {
            tensorrt_llm::OpenError::Format(_)
            | tensorrt_llm::OpenError::Limit { .. }
            | tensorrt_llm::OpenError::Setting { .. }
            | tensorrt_llm::OpenError::NotTensorRt { .. } => input(error),
            tensorrt_llm::OpenError::Version { .. } | tensorrt_llm::OpenError::NoWorker { .. } => {
                Failure::Machine(error.into())
            }
            _ => Failure::Other(error.into()),
        },
        error => input(error),
    }
}

/// Why an executor could not be started, by whose fault it is.
fn cannot_start(error: CpuModelError) -> Failure {
    match error {
        CpuModelError::Format(_) | CpuModelError::Limit { .. } | CpuModelError::KvCacheTokens { .. } => input(error),
        CpuModelError::Isa(cpu_kernels::IsaError::Unknown { .. }) => input(error),
        CpuModelError::Isa(_) => Failure::Machine(error.into()),
        _ => Failure::Other(error.into()),
    }
}

fn verify(engine: &EngineDir, quiet: bool) -> Result<(), Failure> {
    let total = engine.manifest().files.get(WEIGHTS_FILE).map_or(0, |record| record.bytes);
    let bar = if quiet { indicatif::ProgressBar::hidden() } else { indicatif::ProgressBar::new(total) };
    let style = "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}";
    if let Ok(style) = indicatif::ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar.set_message("verifying");
    let advance = |bytes| {
        bar.inc(bytes);
        ControlFlow::Continue(())
    };
    let _: ControlFlow<()> = engine.verify(advance).map_err(input)?;
    bar.finish_and_clear();
    if !quiet {
        let tensors = engine.manifest().tensors.len();
        let bytes = indicatif::HumanBytes(total);
        say(format_args!("verified: all {tensors} weight tensors match their hashes ({bytes})"));
    }
    Ok(())
}

/// What runs, in a line.
pub(crate) fn describe(engine: &Engine, args: &ExecutorArgs) {
    let (dir, limits) = (engine.dir(), engine.executor().limits());
    let parameters = output::short_count(dir.config().parameters() as f64);
    let what = match engine.running() {
        Running::Cpu(executor) => {
            let facts = executor.facts();
            let (tokens, bytes) = (facts.kv_cache_tokens, indicatif::HumanBytes(facts.kv_cache_bytes as u64));
            format!("CPU ({}, {} threads); KV cache of {tokens} tokens ({bytes})", facts.isa, facts.threads)
        }
        Running::TensorRtLlm(executor) => {
            let facts = executor.facts();
            let ranks = match facts.world_size {
                1 => String::new(),
                size => format!(", {size} ranks"),
            };
            format!(
                "TensorRT-LLM {}{ranks}; max_batch_size {}, max_seq_len {}",
                facts.version, limits.max_batch_size, limits.max_seq_len
            )
        }
    };
    say(format_args!(
        "{}: {}, {parameters} parameters; {what}",
        dir.path().display(),
        dir.config().architecture.name()
    ));
    let engine_limit = dir.manifest().limits.max_seq_len;
    let asked = args.max_seq_len.unwrap_or(engine_limit);
    let max_seq_len = limits.max_seq_len;
    if max_seq_len < asked {
        let cause = if args.kv_cache_tokens.is_some() { "--kv-cache-tokens" } else { "free memory" };
        say(format_args!("warning: {cause} allows sequences of {max_seq_len} tokens only, the engine {engine_limit}"));
    }
}

/// Sends what libraries log to standard error: warnings and errors, or with `verbose` all that they say of what they do.
pub(crate) fn install_log(verbose: bool) {
    let level = if verbose { tracing::Level::INFO } else { tracing::Level::WARN };
    // The only failure is that a log is installed already.
    let _ = tracing_subscriber::fmt().with_max_level(level).without_time().with_writer(io::stderr).try_init();
}
