//! The `run-engine` program: what was typed, resolved, run and printed.
//!
//! Completions go to standard output, everything else to standard error.

mod completions;
pub(crate) mod flags;
mod live;
mod output;
mod stats;

use std::io::{self, IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::anyhow;
use args::exit::{Failure, exit_code, input, say};
use args::interrupt::Interrupt;
use engine_format::EngineDir;
use engine_format::weights_file::WEIGHTS_FILE;
use runner::doctor;
use runner::engine::{Engine, Running, check_target};
use runner::executor::tensorrt_llm;
use runner::executor::{EnqueueError, ExecutorConfig, FinishReason};
use runner::request_builder::RequestBuilder;
use runner::session::Session;

use crate::engine::{Closing, describe};
use crate::log::install_log;
use crate::prompts::{self, Prompt};
use completions::{Completion, CompletionError, Event, Job};
use flags::{Args, Command, Format};
use live::Live;
use output::{Printer, Style};
use stats::Iterations;

/// Runs the program.
pub fn main() -> ExitCode {
    args::generate::main(|args: Args| exit_code(run(args)))
}

fn run(args: Args) -> Result<(), Failure> {
    if let Some(Command::Doctor { engine }) = &args.command {
        return examine(engine.as_deref());
    }
    let path = args.engine.as_deref().ok_or_else(|| input(anyhow!("--engine DIR is needed")))?;
    install_log(args.verbose);
    let interrupt = Interrupt::install().map_err(Failure::Other)?;
    let prompts = prompts::collect(&args).map_err(input);
    // Under mpirun only the leader needs prompts, and who leads is known only once the engine runs: keep the error until then.
    let prompts = if tensorrt_llm::is_one_of_several() { prompts } else { Ok(prompts?) };
    let began = Instant::now();
    let dir = EngineDir::open(path).map_err(input)?;
    check_target(&dir).map_err(Failure::from)?;
    args.executor.check(dir.manifest().limits).map_err(input)?;
    let config = args.executor.config().map_err(input)?;
    if args.verify {
        verify(&dir, args.quiet)?;
        if matches!(&prompts, Ok(prompts) if prompts.is_empty()) {
            return Ok(());
        }
    }
    let config = ExecutorConfig {
        // With --stats they are taken at every event, so the list stays short. Without, keep none.
        iter_stats_max_iterations: if args.stats { usize::MAX } else { 0 },
        ..config
    };
    let engine = Engine::start_with_text(dir, &config).map_err(Failure::from)?;
    if let Running::TensorRtLlm(executor) = engine.running()
        && !executor.facts().is_leader
    {
        executor.serve();
        return Ok(());
    }
    let _closing = Closing(engine.executor());
    let prompts = prompts?;
    if args.chat {
        engine.chat().map_err(input)?;
    }
    let executor = engine.executor();
    interrupt.watch(&executor);
    let load = began.elapsed();
    if !args.quiet {
        describe(&engine, &config);
    }

    let builder = RequestBuilder::new(&engine, executor.as_ref());
    let names = Names::of(&prompts);
    let mut jobs = Vec::new();
    for (index, prompt) in prompts.into_iter().enumerate() {
        let submission = builder.build(&prompt.prompt, &prompt.options);
        let submission = submission.map_err(|error| input(names.blame(index, prompts::refused(error))))?;
        let job = Job { index, request: submission.request, stop_strings: submission.stop_strings };
        if !args.quiet {
            warn(&job, names.get(index).unwrap_or("the prompt"), executor.limits().max_seq_len);
        }
        jobs.push(job);
    }
    let session = Session::start(executor, engine.tokenizer().cloned())
        .map_err(|error| Failure::Other(anyhow::Error::new(error).context("cannot start a thread")))?;
    complete(&args, &interrupt, &session, jobs, &names, load)
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
    session: &Session,
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
    let result = completions::complete(session, jobs, |event| {
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
                // Nobody reads any more: end what runs, and see it end.
                interrupt.stop();
            }
        }
        if args.stats {
            iterations.add(&session.executor().iteration_stats());
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
        iterations.add(&session.executor().iteration_stats());
        say(stats::stats(load, elapsed, prompts, &completions, &iterations));
    }
    Ok(())
}

/// An error of a run, with the name of the prompt that it is about.
fn failed(error: CompletionError, names: &Names) -> Failure {
    match error {
        CompletionError::Enqueue { index, source } => {
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
        CompletionError::Failed { index, message } => Failure::Other(names.blame(index, anyhow!(message))),
        other => Failure::Other(other.into()),
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
