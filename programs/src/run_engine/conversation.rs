//! `run-engine --chat` on a terminal: a conversation, a message and its answer at a time.
//!
//! While a message is typed the terminal belongs to the line editor, which reads Ctrl-C and Ctrl-D as keys. While an answer runs
//! it is as it was, and Ctrl-C is a signal.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{anyhow, ensure};
use args::exit::{Failure, say};
use args::interrupt::{Interrupt, Signal};
use runner::engine::Engine;
use runner::executor::{FinishReason, RequestError, RequestId, Response};
use runner::generation_options::GenerationOptions;
use runner::request_builder::{BuildRequestError, Prompt, RequestBuilder};
use runner::session::{Awaited, Session};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use rustyline::error::ReadlineError;
use rustyline::history::MemHistory;
use rustyline::{Config, Editor};
use serde_json::{Value, json};

use super::flags::{Args, Format};
use crate::prompts::refused;

/// What begins a new conversation.
const NEW: &str = "/new";

/// Whether the arguments ask for a conversation: `--chat` without a prompt, where somebody can type.
pub(crate) fn is_asked_for(args: &Args) -> bool {
    let has_prompt = !args.prompt.is_empty() || !args.prompt_ids.is_empty() || args.prompts.is_some();
    args.chat && !has_prompt && !args.verify && io::stdin().is_terminal()
}

/// Checks what the options of a conversation cannot be.
///
/// # Errors
/// The flag that has to go.
pub(super) fn check(args: &Args) -> anyhow::Result<()> {
    let options = &args.generation.options;
    ensure!(args.format == Format::Text, "a conversation is text: leave out --format json, or give a prompt");
    let several = options.n.unwrap_or(1) > 1 || options.beam_width.unwrap_or(1) > 1;
    ensure!(!several, "a conversation has one answer at a time: leave out --n and --beam-width, or give a prompt");
    Ok(())
}

/// Talks until the user ends it.
///
/// # Errors
/// The terminal cannot be read or written, or the executor ended.
pub(super) fn converse(args: &Args, interrupt: &Interrupt, session: &Session, engine: &Engine) -> Result<(), Failure> {
    let running = Arc::new(Running::default());
    watch(interrupt, session, &running);
    if !args.quiet {
        say(format_args!("Ctrl-C stops an answer, {NEW} begins a new conversation, Ctrl-D ends."));
    }
    let config = Config::builder().auto_add_history(true).build();
    let mut editor = Editor::<(), MemHistory>::with_history(config, MemHistory::new()).map_err(terminal)?;
    let builder = RequestBuilder::new(engine, session.executor());
    let options = &args.generation.options;
    let mut messages: Vec<Value> = Vec::new();
    loop {
        let message = match editor.readline("> ") {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => {
                say("Ctrl-D ends the conversation.");
                continue;
            }
            Err(ReadlineError::Eof) => return Ok(()),
            Err(error) => return Err(terminal(error)),
        };
        match message.trim() {
            "" => continue,
            NEW => {
                messages.clear();
                continue;
            }
            _ => messages.push(json!({"role": "user", "content": message})),
        }
        match answer(session, &running, builder, &messages, options, args.quiet)? {
            Some(answer) => messages.push(json!({"role": "assistant", "content": answer})),
            // As if it had not been asked.
            None => drop(messages.pop()),
        }
    }
}

/// The answer that runs, for the signals' thread.
#[derive(Default)]
struct Running(Mutex<Option<RequestId>>);

impl Running {
    fn set(&self, request: Option<RequestId>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = request;
    }

    fn get(&self) -> Option<RequestId> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ctrl-C ends the answer that runs. Any other signal ends the program, and leaves the terminal as it was.
fn watch(interrupt: &Interrupt, session: &Session, running: &Arc<Running>) {
    let (executor, running) = (session.shared_executor(), running.clone());
    let terminal = tcgetattr(io::stdin()).ok();
    interrupt.watch_each(move |signal| {
        if let (Signal::Interrupt, Some(request)) = (signal, running.get()) {
            executor.cancel(request);
            return true;
        }
        if let Some(terminal) = &terminal {
            let _ = tcsetattr(io::stdin(), OptionalActions::Now, terminal);
        }
        false
    });
}

/// Prints the answer to `messages` as it comes; `None` where there is none, which was said.
fn answer(
    session: &Session,
    running: &Running,
    builder: RequestBuilder<'_>,
    messages: &[Value],
    options: &GenerationOptions,
    quiet: bool,
) -> Result<Option<String>, Failure> {
    let max_seq_len = session.executor().limits().max_seq_len;
    // An answer may fill the context, unless something else is asked for.
    let fill = GenerationOptions { max_length: Some(max_seq_len), ..GenerationOptions::default() };
    let prompt = Prompt::Messages(Value::from(messages).to_string());
    let submission = match builder.build(&prompt, &options.clone().or(&fill)) {
        Ok(submission) => submission,
        Err(error) => {
            say(format_args!("error: {}", unanswerable(error, max_seq_len)));
            return Ok(None);
        }
    };
    let request = match session.submit(submission) {
        Ok(request) => request,
        Err(error) => {
            say(format_args!("error: {error}"));
            return Ok(None);
        }
    };
    running.set(Some(request));
    let printed = print(session);
    running.set(None);
    let Some((text, reason)) = printed? else { return Ok(None) };
    if !quiet && reason == Some(FinishReason::Length) {
        let limited = options.max_new_tokens.or(options.max_length).is_some();
        say(match limited {
            true => "(cut off: the limit that was asked for is reached)".to_owned(),
            false => {
                format!("(cut off: the context is full, max_seq_len is {max_seq_len}; {NEW} begins a new conversation)")
            }
        });
    }
    Ok(Some(text))
}

/// Prints what the session gives out of its one request; the whole text, and why it ended. `None` after an error, which was said.
fn print(session: &Session) -> Result<Option<(String, Option<FinishReason>)>, Failure> {
    let failed =
        |error: io::Error| Failure::Other(anyhow::Error::new(error).context("cannot write to standard output"));
    let (mut out, mut whole) = (io::stdout().lock(), String::new());
    loop {
        let Awaited::Outputs(outputs) = session.await_outputs(None) else {
            return Err(Failure::Other(anyhow!("the executor has ended")));
        };
        for output in outputs {
            // The template writes what separates the answer from the message.
            let text = if whole.is_empty() { output.text.trim_start() } else { &output.text };
            whole.push_str(text);
            out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(failed)?;
            match output.response {
                Response::Error { message, .. } => {
                    writeln!(out).map_err(failed)?;
                    say(format_args!("error: {message}"));
                    return Ok(None);
                }
                Response::Result(result) if result.is_final => {
                    if !whole.ends_with('\n') {
                        writeln!(out).map_err(failed)?;
                    }
                    return Ok(Some((whole, result.finish_reason)));
                }
                Response::Result(_) => {}
            }
        }
    }
}

/// Why a conversation cannot go on with a message, and what to do.
fn unanswerable(error: BuildRequestError, max_seq_len: usize) -> String {
    let full = match &error {
        BuildRequestError::Request(RequestError::PromptTooLong { prompt, .. }) => Some(format!("{prompt} tokens")),
        BuildRequestError::Option { field: "max_length", .. } | BuildRequestError::TextTooLong { .. } => {
            Some("more".to_owned())
        }
        _ => None,
    };
    match full {
        Some(tokens) => format!(
            "the context is full: max_seq_len is {max_seq_len}, and the conversation with this message has {tokens}. {NEW} begins a new conversation; an engine that is built with a larger --max-seq-len holds a longer one"
        ),
        None => engine_format::error::with_causes(refused(error).as_ref()),
    }
}

fn terminal(error: ReadlineError) -> Failure {
    Failure::Other(anyhow::Error::new(error).context("cannot read from the terminal"))
}
