//! The `build-engine` program: arguments become settings, settings become library calls.
//!
//! Memory plans go to stdout, everything else to stderr.
#![forbid(unsafe_code)]

mod args;
mod failure;
mod plan;

use std::process::ExitCode;

use clap::Parser;

use crate::build;
use crate::progress::Interrupt;
use crate::report::Report;
use crate::settings::Task;
use args::Args;
use failure::Failure;

/// Runs the program on this process's arguments and says with which code it ends.
pub fn main() -> ExitCode {
    let args = Args::parse();
    engine_format::mmap::report_file_size_limit_as_error();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.print();
            failure.exit_code()
        }
    }
}

fn run(args: &Args) -> Result<(), Failure> {
    let report = Report::new(args.verbosity());
    let settings = args.settings();
    settings.validate()?;
    let interrupt = Interrupt::new();
    let handle = interrupt.handle();
    ctrlc::set_handler(move || handle.set()).map_err(Failure::Signals)?;
    if let Some(threads) = args.threads() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        pool.build_global().map_err(Failure::Threads)?;
    }
    if settings.task == Task::Plan {
        let plans = build::plan(&settings, &report, &interrupt)?;
        return plan::print(&settings, &plans, args.plan_format());
    }
    let built = build::build(&settings, &report, &interrupt)?;
    if !built.next.is_empty() {
        report.note(&format!("next:\n  {}", built.next.join("\n  or, with TensorRT-LLM's own tool:\n  ")));
    }
    Ok(())
}
