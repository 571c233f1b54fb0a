//! The programs, each a folder with its own flags; `src/bin/` calls their `main`.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`build_engine`] | `build-engine`: flags, progress, memory plans as tables |
//! | [`run_engine`] | `run-engine`: prompts in, completions out |
//! | [`bench_engine`] | `bench-engine`: workloads, measurements, tables, plots |
//! | `engine` | an engine that a program runs: opened, described, shut down at the end |
//! | `prompts` | prompts of the command line, of files and of standard input |
//! | `format`, `log`, `memory` | short numbers; the libraries' log; this process's memory and processor |

#![forbid(unsafe_code)]

pub mod bench_engine;
pub mod build_engine;
pub mod run_engine;

mod engine;
mod format;
mod log;
mod memory;
mod prompts;
