//! `--generate`: the man page and the shells' completions, made of the same definition as the flags themselves.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::builder::EnumValueParser;
use clap::{Arg, Command, Parser, ValueEnum};
use clap_complete::Shell;

use crate::exit::{Failure, exit_code};

const FLAG: &str = "generate";

/// What can be generated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Man,
    CompleteBash,
    CompleteZsh,
    CompleteFish,
}

/// The `main` of a program whose arguments are `T`. Parses the command line, to which it adds `--generate`, and either
/// generates or runs `program`. Ends the process, as clap does, for `--help` and for arguments that are wrong.
pub fn main<T: Parser>(program: impl FnOnce(T) -> ExitCode) -> ExitCode {
    run(command::<T>(), program)
}

/// [`main`] of a program whose flags can be set in the environment too: `--max-queue-size` by `PREFIX_MAX_QUEUE_SIZE`. What is
/// typed goes before it.
pub fn main_with_environment<T: Parser>(prefix: &str, program: impl FnOnce(T) -> ExitCode) -> ExitCode {
    let with_variable = |arg: Arg| match arg.get_long() {
        None | Some(FLAG) => arg,
        Some(long) => {
            let variable = format!("{prefix}_{}", long.replace('-', "_").to_uppercase());
            arg.env(variable).hide_env(true)
        }
    };
    run(command::<T>().mut_args(with_variable), program)
}

fn run<T: Parser>(mut command: Command, program: impl FnOnce(T) -> ExitCode) -> ExitCode {
    let matches = command.get_matches_mut();
    // Before `T` is made of the matches, which may lack what `T` requires.
    if let Some(&kind) = matches.get_one::<Kind>(FLAG) {
        return exit_code(print(kind, command));
    }
    program(T::from_arg_matches(&matches).unwrap_or_else(|error| error.format(&mut command).exit()))
}

fn command<T: Parser>() -> Command {
    let flag = Arg::new(FLAG).long(FLAG).value_name("KIND").value_parser(EnumValueParser::<Kind>::new());
    // `exclusive` lifts the required flags. No heading: it is listed among the general options.
    let flag = flag.exclusive(true).help_heading(None);
    T::command().arg(flag.help("Print a man page, or completions for a shell, and do nothing else"))
}

fn print(kind: Kind, command: Command) -> Result<(), Failure> {
    match generate(kind, command).and_then(|text| io::stdout().write_all(&text)) {
        // The reader has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.map_err(|error| Failure::Other(error.into())),
    }
}

fn generate(kind: Kind, mut command: Command) -> io::Result<Vec<u8>> {
    let shell = match kind {
        Kind::Man => return man_page(command),
        Kind::CompleteBash => Shell::Bash,
        Kind::CompleteZsh => Shell::Zsh,
        Kind::CompleteFish => Shell::Fish,
    };
    let (name, mut text) = (command.get_name().to_owned(), Vec::new());
    clap_complete::generate(shell, &mut command, name, &mut text);
    Ok(text)
}

/// What `--help` calls the usage, a line for each way.
fn synopsis(command: &mut Command) -> String {
    let usage = command.render_usage().to_string();
    let lines: Vec<_> =
        usage.trim_start_matches("Usage:").lines().map(|line| line.trim().replace('-', "\\-")).collect();
    lines.join("\n.br\n") + "\n"
}

fn man_page(mut command: Command) -> io::Result<Vec<u8>> {
    command.build();
    let escaped = |name: &str| name.replace('-', "\\-");
    let program = escaped(command.get_name());
    let subcommands: Vec<_> = command.get_subcommands().map(|subcommand| escaped(subcommand.get_name())).collect();
    let synopsis = synopsis(&mut command);
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    let mut page = String::from_utf8(page).map_err(io::Error::other)?;
    // Its own lists every flag, and none of their values.
    if let Some((before, after)) = page.split_once(".SH SYNOPSIS\n")
        && let Some((_, after)) = after.split_once(".SH ")
    {
        page = format!("{before}.SH SYNOPSIS\n{synopsis}.SH {after}");
    }
    // They are named as pages of their own, which do not exist; as they are typed is of more use.
    for subcommand in subcommands {
        page = page.replace(&format!("{program}\\-{subcommand}(1)"), &format!("{program} {subcommand}"));
    }
    Ok(page.into_bytes())
}
