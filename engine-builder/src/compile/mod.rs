//! Ways from a model to an engine: [`cpu`] packs one, TensorRT or `trtllm-build` compile one for a GPU.

pub mod cpu;
pub(crate) mod gpu;
mod packed_tensors;
pub(crate) mod tensorrt;
pub(crate) mod trtllm_build;
