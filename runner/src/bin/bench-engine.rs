//! `bench-engine`: measures an engine under a workload. See `runner::bench`.

use std::process::ExitCode;

fn main() -> ExitCode {
    runner::bench::main()
}
