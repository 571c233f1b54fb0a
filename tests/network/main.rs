//! The numbers of the TensorRT network: what arrived on the other side of the C table, recorded by the stand-in's builder, is
//! evaluated by a small and slow interpreter, and its logits are compared with Transformers'.

#![allow(clippy::unwrap_used, reason = "a test may fail where it likes")]

mod attention;
#[path = "../common/mod.rs"]
mod common;
mod interpreter;
mod lora;
mod numbers;
mod plan;
#[path = "../common/stand_in.rs"]
mod stand_in;
mod step;
