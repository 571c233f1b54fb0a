//! What the programs share on the command line.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`exit`] | why a program ends without success, what it says then, and its exit code |
//! | [`interrupt`] | Ctrl-C, SIGTERM and SIGHUP |
//! | [`executor_args`] | flags about the executor: threads, limits, KV cache |
//! | [`generation_args`] | flags about what to generate, which are also the fields of a line of a prompts file |
//! | [`number`] | numbers, refused in words |
//! | [`generate`] | `--generate`: man page and completions |

#![forbid(unsafe_code)]

pub mod executor_args;
pub mod exit;
pub mod generate;
pub mod generation_args;
pub mod interrupt;
pub mod number;

pub use executor_args::ExecutorArgs;
pub use exit::{Failure, input};
pub use generation_args::{GenerationArgs, SamplingArgs};
pub use interrupt::Interrupt;
