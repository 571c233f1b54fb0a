//! TensorRT-LLM checkpoints.

mod header;
pub(crate) mod source;
pub mod write;
