//! `build-engine`: makes an engine out of a model. See `programs::build_engine`.

use std::process::ExitCode;

fn main() -> ExitCode {
    programs::build_engine::main()
}
