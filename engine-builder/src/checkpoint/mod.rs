//! TensorRT-LLM checkpoints.

mod header;
pub mod write;
