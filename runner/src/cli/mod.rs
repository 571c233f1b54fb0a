//! The `run-engine` program: what was typed, resolved, run and printed.
//!
//! Completions go to standard output, everything else to standard error.

pub(crate) mod args;
pub(crate) mod output;
pub(crate) mod prompts;

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::Context;
use clap::Parser;
use engine_format::EngineDir;
use engine_format::error::with_causes;
use engine_format::weights_file::WEIGHTS_FILE;

use crate::chat::ChatTemplate;
use crate::cpu_model::CpuModelError;
use crate::end_ids::end_ids;
use crate::executor::{Executor, ExecutorConfig, FinishReason};
use crate::generation::{Event, GenerationError, generate};
use crate::inflight::CpuExecutor;
use crate::tokenizer::Tokenizer;

use args::Args;
use output::Printer;
use prompts::Encoder;

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
pub(crate) fn say(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn run(args: Args) -> Result<(), Failure> {
    let interrupt = Interrupt::install()?;
    let prompts = prompts::collect(&args).map_err(input)?;
    let began = Instant::now();
    let engine = EngineDir::open(&args.engine).map_err(input)?;
    refuse_gpu_engine(&engine)?;
    if args.verify {
        verify(&engine, args.quiet)?;
        if prompts.is_empty() {
            return Ok(());
        }
    }
    let has_tokenizer = engine.has_file(engine_format::engine_dir::TOKENIZER_FILE);
    let tokenizer = has_tokenizer.then(|| Tokenizer::open(engine.path())).transpose().map_err(input)?;
    let chat = args.chat.then(|| ChatTemplate::open(engine.path())).transpose().map_err(input)?;
    let end_ids = end_ids(&engine, tokenizer.as_ref()).map_err(input)?;
    let config = ExecutorConfig { threads: args.threads.map(usize::from), ..ExecutorConfig::default() };
    let executor = Arc::new(open_executor(&engine, &config)?);
    interrupt.watch(&executor);
    let load = began.elapsed();
    if !args.quiet {
        describe(&engine, &executor);
    }

    let encoder =
        Encoder { tokenizer: tokenizer.as_ref(), chat: chat.as_ref(), end_ids: &end_ids, executor: executor.as_ref() };
    let count = prompts.len();
    let mut jobs = Vec::new();
    for (index, prompt) in prompts.into_iter().enumerate() {
        let origin = prompt.origin.clone().or_else(|| (count > 1).then(|| format!("prompt {index}")));
        let job = encoder.job(index, prompt);
        let job = match &origin {
            Some(origin) => job.with_context(|| origin.clone()),
            None => job,
        }
        .map_err(input)?;
        if job.request.is_shortened() && !args.quiet {
            let (spec, limits) = (job.request.spec(), executor.limits());
            say(format_args!(
                "warning: {} has {} tokens, which leaves room for {} tokens of output (max_seq_len {})",
                origin.as_deref().unwrap_or("the prompt"),
                spec.input_token_ids.len(),
                spec.max_tokens,
                limits.max_seq_len
            ));
        }
        jobs.push(job);
    }

    let began = Instant::now();
    let mut printer = Printer::new(io::stdout().lock(), args.format, count);
    let mut printed = Ok(());
    let mut completions = Vec::new();
    let result = generate(executor.as_ref(), tokenizer.as_ref(), jobs, |event| {
        if printed.is_ok() {
            printed = printer.print(&event);
            if printed.is_err() {
                // Nobody reads any more: end what runs, and let `generate` see it end.
                interrupt.stop();
            }
        }
        if let Event::Finished(completion) = event {
            completions.push(completion);
        }
    });
    let elapsed = began.elapsed();
    match printed {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        Err(error) => return Err(Failure::Other(anyhow::Error::new(error).context("cannot write to standard output"))),
        Ok(()) => {}
    }
    let cancelled = |completion: &crate::generation::Completion| completion.finish_reason == FinishReason::Cancelled;
    if interrupt.happened() && (completions.len() < count || completions.iter().any(cancelled)) {
        return Err(Failure::Interrupted);
    }
    result.map_err(|error: GenerationError| Failure::Other(error.into()))?;
    if args.stats {
        say(output::stats(load, elapsed, &completions));
    }
    Ok(())
}

/// Opens a CPU engine.
pub(crate) fn open_executor(engine: &EngineDir, config: &ExecutorConfig) -> Result<CpuExecutor, Failure> {
    CpuExecutor::open(engine, config).map_err(|error| match error {
        CpuModelError::Format(_) => input(error),
        CpuModelError::Isa(cpu_kernels::IsaError::Unknown { .. }) => input(error),
        CpuModelError::Isa(_) => Failure::Machine(error.into()),
        _ => Failure::Other(error.into()),
    })
}

/// Says why a GPU engine cannot be run, here and now.
pub(crate) fn refuse_gpu_engine(engine: &EngineDir) -> Result<(), Failure> {
    if engine.manifest().target == "none" {
        return Ok(());
    }
    let missing = trtllm_sys::probe().missing();
    let target = &engine.manifest().target;
    let mut message = format!("`{}` was built for `{target}`", engine.path().display());
    if missing.is_empty() {
        message.push_str(", and this version runs CPU engines only");
    } else {
        message.push_str(&format!(", but {}", missing.join("; ")));
    }
    Err(Failure::Machine(anyhow::anyhow!("{message}; build it for the CPU with `build-engine --gpu none`")))
}

fn verify(engine: &EngineDir, quiet: bool) -> Result<(), Failure> {
    let total = engine.manifest().files.get(WEIGHTS_FILE).map_or(0, |record| record.bytes);
    let bar = if quiet { indicatif::ProgressBar::hidden() } else { indicatif::ProgressBar::new(total) };
    let style = "{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec}";
    if let Ok(style) = indicatif::ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar.set_message("verifying");
    engine.verify(|bytes| bar.inc(bytes)).map_err(input)?;
    bar.finish_and_clear();
    if !quiet {
        let tensors = engine.manifest().tensors.len();
        let bytes = indicatif::HumanBytes(total);
        say(format_args!("verified: all {tensors} weight tensors match their hashes ({bytes})"));
    }
    Ok(())
}

/// What runs, in a line.
pub(crate) fn describe(engine: &EngineDir, executor: &CpuExecutor) {
    let (config, facts) = (engine.config(), executor.facts());
    say(format_args!(
        "{}: {}, {} parameters; CPU ({}, {} threads); KV cache of {} tokens ({})",
        engine.path().display(),
        config.architecture.name(),
        output::short_count(config.parameters() as f64),
        facts.isa,
        facts.threads,
        facts.kv_cache_tokens,
        indicatif::HumanBytes(facts.kv_cache_bytes as u64),
    ));
    if executor.limits().max_seq_len < engine.manifest().limits.max_seq_len {
        say(format_args!(
            "warning: free memory allows sequences of {} tokens only, the engine {}",
            executor.limits().max_seq_len,
            engine.manifest().limits.max_seq_len
        ));
    }
}

/// Ctrl-C and SIGTERM: the first ends the run in order, the second at once.
pub(crate) struct Interrupt {
    happened: Arc<AtomicBool>,
    executor: Arc<Mutex<Option<Arc<CpuExecutor>>>>,
}

impl Interrupt {
    pub(crate) fn install() -> Result<Self, Failure> {
        let interrupt = Self { happened: Arc::default(), executor: Arc::default() };
        let (happened, executor) = (interrupt.happened.clone(), interrupt.executor.clone());
        let handler = move || {
            let again = happened.swap(true, Ordering::SeqCst);
            let executor = executor.lock().unwrap_or_else(PoisonError::into_inner).clone();
            match executor {
                Some(executor) if !again => executor.cancel_all(),
                _ => exit_interrupted(),
            }
        };
        ctrlc::set_handler(handler).context("cannot watch for signals").map_err(Failure::Other)?;
        Ok(interrupt)
    }

    pub(crate) fn watch(&self, executor: &Arc<CpuExecutor>) {
        *self.executor.lock().unwrap_or_else(PoisonError::into_inner) = Some(executor.clone());
    }

    fn stop(&self) {
        if let Some(executor) = &*self.executor.lock().unwrap_or_else(PoisonError::into_inner) {
            executor.cancel_all();
        }
    }

    pub(crate) fn happened(&self) -> bool {
        self.happened.load(Ordering::SeqCst)
    }
}

/// Ends the process where nothing has to be put away.
#[expect(clippy::exit, reason = "a second signal, or one before anything runs, must end the process from its handler")]
fn exit_interrupted() -> ! {
    let _ = io::stdout().flush();
    std::process::exit(130)
}
