//! The `run-engine` program: what was typed, resolved, run and printed.
//!
//! Completions go to standard output, everything else to standard error.

mod advice;
mod completions;
pub(crate) mod conversation;
mod feed;
pub(crate) mod flags;
mod live;
mod output;
mod stats;

use std::io::{self, IsTerminal, Write};
use std::iter::Enumerate;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{anyhow, ensure};
use args::exit::{Failure, exit_code, input, say};
use args::interrupt::Interrupt;
use engine_format::EngineDir;
use engine_format::weights_file::WEIGHTS_FILE;
use runner::doctor;
use runner::engine::{Engine, OpenError, Running, check_target};
use runner::executor::tensorrt_llm;
use runner::executor::{Executor, ExecutorConfig, FinishReason, RequestError};
use runner::inflight::KvCacheBound;
use runner::request_builder::{self, BuildRequestError, DEFAULT_MAX_NEW_TOKENS, RequestBuilder};
use runner::session::{Session, Submission};

use crate::engine::{Closing, describe};
use crate::format::counted;
use crate::log::install_log;
use crate::prompts::{self, Given, Prompt, Prompts};
use advice::Advice;
use completions::{Completion, Event, Outcome};
use feed::{Feed, Job};
use flags::{Args, Command, Format};
use live::Live;
use output::{Printer, Style};
use stats::{Iterations, Sequences};

/// Runs the program.
pub fn main() -> ExitCode {
    system::memory::share_the_allocator_where_address_space_is_little();
    args::generate::main(|args: Args| exit_code(run(args)))
}

fn run(args: Args) -> Result<(), Failure> {
    if let Some(Command::Doctor { engine }) = &args.command {
        return examine(engine.as_deref());
    }
    let path = args.engine.as_deref().ok_or_else(|| input(anyhow!("--engine DIR is needed")))?;
    install_log(args.verbose);
    let interrupt = Interrupt::install().map_err(Failure::Other)?;
    check_flags(&args).map_err(input)?;
    let prompts = Prompts::open(&args).map_err(input);
    // Under mpirun only the leader needs prompts, and who leads is known only once the engine runs: keep the error until then.
    let prompts = if tensorrt_llm::is_one_of_several() { prompts } else { Ok(prompts?) };
    let began = Instant::now();
    let dir = EngineDir::open(path).map_err(OpenError::from)?;
    check_target(&dir).map_err(Failure::from)?;
    let config = args.executor.config().map_err(input)?;
    args.executor.check(&config, dir.manifest().limits).map_err(input)?;
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
    let start = if args.give_text() { Engine::start_with_text } else { Engine::start };
    let engine = Arc::new(start(dir, &config).map_err(Failure::from)?);
    if let Running::TensorRtLlm(executor) = engine.running()
        && !executor.facts().is_leader
    {
        executor.serve();
        return Ok(());
    }
    let _closing = Closing(engine.executor());
    let prompts = prompts?;
    if args.chat {
        engine.chat().map_err(|error| input(prompts::refused(BuildRequestError::ChatTemplate(error))))?;
    }
    let executor = engine.executor();
    let load = began.elapsed();
    if !args.quiet {
        describe(&engine, &config);
    }
    let session = Session::start(executor.clone(), engine.tokenizer().cloned()).map_err(no_thread)?;
    if conversation::is_asked_for(&args) {
        return conversation::converse(&args, &interrupt, &session, &engine);
    }
    let (is_one, prompts) = (prompts.is_one(), prompts.enumerate());
    let longer = longer(&engine, &config, executor.limits().max_seq_len);
    let jobs = Jobs {
        longer,
        prompts,
        is_one,
        engine: engine.clone(),
        executor,
        text: args.give_text(),
        format: args.format,
        quiet: args.quiet,
        advice: Advice::default(),
    };
    complete(&args, &interrupt, &Arc::new(session), jobs, load)
}

/// Checks what needs no engine to be wrong.
fn check_flags(args: &Args) -> anyhow::Result<()> {
    if conversation::is_asked_for(args) {
        conversation::check(args)?;
    }
    request_builder::check(&args.generation.options).map_err(prompts::refused_flag)
}

/// `run-engine doctor`.
fn examine(engine: Option<&Path>) -> Result<(), Failure> {
    let diagnosis = doctor::diagnose(engine);
    write!(io::stdout(), "{diagnosis}").map_err(|error| Failure::Other(error.into()))?;
    if diagnosis.is_healthy() {
        return Ok(());
    }
    Err(Failure::Machine(match engine {
        Some(engine) => anyhow!("this machine cannot run `{}` as it is", engine.display()),
        None => anyhow!("this machine cannot run TensorRT engines as it is; CPU engines (`--gpu none`) run everywhere"),
    }))
}

/// How much is under way at once, at least: enough for the executor to choose from.
const WINDOW: usize = 1024;

/// Makes requests of prompts, as they are asked for.
struct Jobs {
    prompts: Enumerate<Prompts>,
    /// Whether the run is about one prompt: its failure is then the run's.
    is_one: bool,
    engine: Arc<Engine>,
    executor: Arc<dyn Executor>,
    /// What would let a longer prompt in.
    longer: &'static str,
    /// Whether outputs are text.
    text: bool,
    format: Format,
    quiet: bool,
    advice: Advice,
}

impl Iterator for Jobs {
    type Item = Result<Job, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        let (index, given) = self.prompts.next()?;
        Some(given.map_err(input).map(|Given { name, prompt }| self.job(index, name, prompt)))
    }
}

impl Jobs {
    fn job(&mut self, index: usize, name: Option<String>, prompt: anyhow::Result<Prompt>) -> Job {
        let mut warnings = Vec::new();
        let submission = prompt.and_then(|prompt| {
            let submission = self.submission(&prompt)?;
            if !self.quiet {
                let builder = RequestBuilder::new(&self.engine, self.executor.as_ref());
                warnings =
                    self.advice.of(name.as_deref().unwrap_or("the prompt"), &prompt.options, &submission, &builder);
            }
            Ok(submission)
        });
        let submission = submission.map_err(Failure::Input);
        Job { index, name, submission, warnings }
    }

    fn refused(&self, error: BuildRequestError) -> anyhow::Error {
        match error {
            BuildRequestError::Request(RequestError::PromptTooLong { prompt, max_seq_len }) => anyhow!(
                "the prompt has {}, but max_seq_len is {max_seq_len}, of which one is kept for the output: shorten it, or {}",
                counted(prompt, "token"),
                self.longer
            ),
            BuildRequestError::TextTooLong { .. } => anyhow!("{error}, or {}", self.longer),
            other => prompts::refused(other),
        }
    }

    fn submission(&self, prompt: &Prompt) -> anyhow::Result<Submission> {
        ensure!(
            self.format == Format::Json || !prompt.options.asks_for_log_probs(),
            "log-probabilities are printed as JSON only: add --format json"
        );
        let builder = RequestBuilder::new(&self.engine, self.executor.as_ref());
        let submission = builder.build(&prompt.prompt, &prompt.options).map_err(|error| self.refused(error))?;
        Ok(Submission { text: self.text, ..submission })
    }
}

/// What would let a longer prompt in.
fn longer(engine: &Engine, config: &ExecutorConfig, max_seq_len: usize) -> &'static str {
    match () {
        () if max_seq_len >= engine.dir().manifest().limits.max_seq_len => {
            "build the engine with a larger --max-seq-len"
        }
        () if config.max_seq_len == Some(max_seq_len) => "raise this run's --max-seq-len (max_seq_len)",
        () => longer_cache(engine),
    }
}

/// What would let the KV cache hold a longer one.
fn longer_cache(engine: &Engine) -> &'static str {
    let bound = match engine.running() {
        Running::Cpu(executor) => &executor.facts().kv_cache_bound,
        Running::TensorRtLlm(_) => &KvCacheBound::Limits,
    };
    match bound {
        KvCacheBound::MaxTokens => "raise --kv-cache-tokens (kv_cache.max_tokens)",
        KvCacheBound::MaxBytes => "raise --kv-cache-bytes (kv_cache.max_bytes)",
        _ => "free memory for the KV cache, which limits it",
    }
}

/// Runs the prompts and prints what comes.
fn complete(
    args: &Args,
    interrupt: &Interrupt,
    session: &Arc<Session>,
    jobs: Jobs,
    load: Duration,
) -> Result<(), Failure> {
    let began = Instant::now();
    let is_one = jobs.is_one;
    let is_single = is_one && args.generation.options.n.unwrap_or(1) == 1;
    let on_terminal = io::stdout().is_terminal() && io::stderr().is_terminal();
    let style = match args.format {
        Format::Json => Style::Json,
        Format::Text if on_terminal && !is_single && !args.quiet => Style::WholeText,
        Format::Text => Style::StreamedText,
    };
    let window = WINDOW.max(2 * jobs.executor.limits().max_batch_size);
    let feed = Feed::start(session.clone(), jobs, window).map_err(no_thread)?;
    let (executor, stop) = (session.shared_executor(), feed.stopper());
    interrupt.watch(move || {
        executor.cancel_all();
        stop();
    });
    let mut printer = Printer::new(io::stdout().lock(), style);
    let mut live = (style == Style::WholeText).then(Live::new);
    let mut printed = Ok(());
    let mut sequences = Sequences::default();
    let mut iterations = Iterations::default();
    let (mut is_cancelled, mut at_the_default, mut failure) = (false, 0, None);
    let outcome = completions::complete(&feed, |event| {
        if let Some(live) = &mut live {
            live.show(&event);
        }
        let mut print = || {
            match &event {
                Event::Started { warnings, .. } => warnings.iter().for_each(say),
                Event::Failed { failure, .. } if !is_one && style != Style::Json => {
                    say(format_args!("error: {}", failure.message()));
                }
                _ => {}
            }
            printer.print(&event)
        };
        if printed.is_ok() {
            let result = match (&mut live, &event) {
                // They change only what is live.
                (Some(_), Event::Text { .. }) => Ok(0),
                (Some(live), _) => live.above(print),
                (None, _) => print(),
            };
            match result {
                Ok(over) => (0..over).for_each(|_| feed.allow_another()),
                Err(error) => {
                    printed = Err(error);
                    // Nobody reads any more: end what runs, and see it end.
                    interrupt.stop();
                }
            }
        }
        if args.stats {
            iterations.add(&session.executor().iteration_stats());
        }
        match event {
            Event::Finished(completion) => {
                at_the_default += usize::from(is_at_the_default(args, &completion));
                is_cancelled |= completion.finish_reason == FinishReason::Cancelled;
                sequences.add(&completion);
            }
            Event::Failed { failure: of_one, .. } if is_one => failure = Some(of_one),
            _ => {}
        }
    });
    let elapsed = began.elapsed();
    drop(live);
    match printed {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
        Err(error) => return Err(Failure::Other(anyhow::Error::new(error).context("cannot write to standard output"))),
        Ok(()) => {}
    }
    let is_cut = outcome.as_ref().is_ok_and(|outcome| outcome.is_cut);
    if interrupt.happened() && (is_cut || is_cancelled) {
        return Err(Failure::Interrupted);
    }
    let Outcome { prompts, failed, .. } = outcome?;
    if is_cut {
        return Err(Failure::Other(anyhow!("the executor ended before all prompts had run")));
    }
    if at_the_default > 0 && args.format == Format::Text && !args.quiet {
        let those = if is_single { String::new() } else { format!("{}: ", counted(at_the_default, "sequence")) };
        say(format_args!(
            "note: {those}ended after {DEFAULT_MAX_NEW_TOKENS} tokens, which is the default: --max-new-tokens N"
        ));
    }
    if args.stats {
        iterations.add(&session.executor().iteration_stats());
        say(stats::stats(load, elapsed, prompts, &sequences, &iterations));
    }
    match (failure, failed) {
        (Some(failure), _) => Err(failure),
        (None, 0) => Ok(()),
        (None, failed) => Err(Failure::Other(anyhow!("{failed} of {} failed", counted(prompts, "prompt")))),
    }
}

/// Whether a sequence ended where it did only because nobody said how long it may be.
fn is_at_the_default(args: &Args, completion: &Completion) -> bool {
    let options = &args.generation.options;
    completion.finish_reason == FinishReason::Length
        && completion.output_ids.len() == DEFAULT_MAX_NEW_TOKENS
        && options.max_new_tokens.or(options.max_length).is_none()
}

fn no_thread(error: io::Error) -> Failure {
    Failure::Machine(anyhow::Error::new(error).context("cannot start a thread"))
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
        let weights = engine.weights().map_err(input)?.weight_type();
        say(format_args!("verified: all {tensors} weight tensors match their hashes ({weights}, {bytes})"));
    }
    Ok(())
}
