//! `run-engine`: completes prompts with an engine. See `programs::run_engine`.

use std::process::ExitCode;

fn main() -> ExitCode {
    programs::run_engine::main()
}
