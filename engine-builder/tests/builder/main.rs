//! The builder from the outside: real directories in, real directories out.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a helper of a test fails as the test does")]

mod bad_input;
mod beside;
mod checkpoint;
mod config;
mod cpu_engine;
mod fields;
mod gguf;
mod gguf_blocks;
mod gguf_codes;
mod gguf_config;
mod gguf_file;
mod hub;
mod interruption;
mod nemo;
mod nemo_file;
mod non_finite;
mod support;
mod transformers;
