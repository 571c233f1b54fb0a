//! `build-engine` for a GPU, with stand-ins where TensorRT, TensorRT-LLM and NVIDIA's driver would be.

#![allow(clippy::unwrap_used, reason = "a test may fail where it likes")]

#[path = "../common/mod.rs"]
mod common;
mod compiler;
mod endings;
mod engine;
#[path = "../common/stand_in.rs"]
mod stand_in;
mod support;
