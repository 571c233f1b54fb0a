//! The `build-engine` program: arguments become settings, settings become library calls.
//!
//! Memory plans go to stdout, everything else to stderr.

mod failure;
mod flags;
mod options;
mod plan;
mod report;

use std::process::ExitCode;

use ::args::interrupt::on_signal;
use engine_builder::build;
use engine_builder::progress::Interrupt;
use engine_builder::settings::Task;
use failure::Failure;
use flags::Args;
use report::Report;

/// Runs the program on this process's arguments and says with which code it ends.
pub fn main() -> ExitCode {
    system::memory::share_the_allocator_where_address_space_is_little();
    args::generate::main(|args: Args| {
        engine_format::mmap::report_file_size_limit_as_error();
        match run(&args) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                failure.print();
                failure.exit_code()
            }
        }
    })
}

fn run(args: &Args) -> Result<(), Failure> {
    let report = Report::new(args.verbosity());
    let settings = args.settings();
    settings.validate()?;
    let interrupt = Interrupt::new();
    let handle = interrupt.handle();
    on_signal(move |_| handle.set()).map_err(Failure::Signals)?;
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
