//! TensorRT-LLM's executor over the stand-in for its library: what goes wrong, what is asked for, and the programs.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail where it likes")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/stand_in.rs"]
mod stand_in;

mod c_abi;
mod deadline;
mod faults;
mod guides;
mod load;
mod logits;
mod mixture;
mod process;
mod programs;
mod requests;
mod serving;
