//! The programs from the outside: what is typed, what comes out on which stream, and the exit code.
//!
//! The engines are made from the parity fixtures (ids only), from a tiny model of random weights with the tokenizer
//! fixtures (text that is no language, full of broken characters), and from the bundled model (real text).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper of a test fails as the test does")]

#[path = "../common/mod.rs"]
mod common;

mod advice;
mod advice_on_files;
mod batching;
mod bench_engine;
mod chat;
mod damaged_engine;
mod endings;
mod guides;
mod log_probs;
mod machine;
mod memory;
mod not_a_number;
mod prompts;
mod sampling;
mod sequences;
mod steering;
mod streams;
mod support;
mod text;
