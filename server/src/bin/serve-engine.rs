//! `serve-engine`: serves an engine over HTTP. See `server::program`.

use std::process::ExitCode;

fn main() -> ExitCode {
    server::program::main()
}
