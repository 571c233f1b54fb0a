//! How far engines' distributions are from a reference engine's on a text: Kullback-Leibler divergence and perplexity.
//!
//! ```text
//! accuracy compare --text FILE --rows ROWS.json ENGINE NAME=ENGINE…    compares, and writes a row for each engine
//! accuracy table --output DIR ROWS.json…                              prints the rows as a table; DIR/accuracy.md and .json
//! ```
//!
//! `scripts/accuracy` builds the engines and calls both. In reading order: `windows` makes token ids of the text, `figures` is the
//! arithmetic, `compare` runs engines side by side, `table` writes.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

mod compare;
mod figures;
mod table;
mod windows;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Compares engines with the first of them, position by position.
    Compare(compare::Args),
    /// Prints rows that were written as one table.
    Table {
        /// Where accuracy.md and accuracy.json are written.
        #[arg(long)]
        output: PathBuf,
        /// Files of rows.
        #[arg(required = true)]
        rows: Vec<PathBuf>,
    },
}

fn main() -> ExitCode {
    let done = match Args::parse().command {
        Command::Compare(args) => compare::run(&args),
        Command::Table { output, rows } => table::run(&output, &rows),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
