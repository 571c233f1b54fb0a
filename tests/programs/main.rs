//! `run-engine` from the outside: what is typed, what comes out on which stream, and the exit code.
//!
//! The engines are made from the parity fixtures (ids only), from a tiny model of random weights with the tokenizer
//! fixtures (text that is no language, full of broken characters), and from the bundled model (real text).

#[path = "../common/mod.rs"]
mod common;

mod chat;
mod damaged_engine;
mod endings;
mod log_probs;
mod machine;
mod prompts;
mod sampling;
mod streams;
mod support;
mod text;
