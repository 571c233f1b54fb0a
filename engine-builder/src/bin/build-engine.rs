//! `build-engine`: makes an engine out of a model. See `engine_builder::cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    engine_builder::cli::main()
}
