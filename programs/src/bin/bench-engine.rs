//! `bench-engine`: measures an engine under a workload. See `programs::bench_engine`.

use std::process::ExitCode;

fn main() -> ExitCode {
    programs::bench_engine::main()
}
