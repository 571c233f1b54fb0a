//! `run-engine`: completes prompts with an engine. See `runner::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    runner::cli::main()
}
