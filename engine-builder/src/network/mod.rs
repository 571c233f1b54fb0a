//! The network that TensorRT is asked for, as data: what `compile::tensorrt` replays, `--network`
//! prints and the tests evaluate. `docs/network.md` draws it and says where each fact is from.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`graph`] | [`Graph`]: tensors, nodes, inputs, outputs |
//! | [`ops`] | the operations, and what comes out of them |
//! | [`plugin`] | TensorRT-LLM's plugins: fields and inputs, a table for each release |
//! | [`inputs`] | the network's inputs and their optimization profiles |
//! | [`mod@decoder`] | the one decoder: embedding, layers, head |
//! | [`attention`], [`mlp`], [`norm`], [`rope`] | its parts |
//! | [`validate`] | everything that is checked before TensorRT sees the network |
//! | [`mod@print`] | text, JSON, Graphviz |

pub mod attention;
pub mod decoder;
pub mod graph;
pub mod inputs;
pub mod mlp;
pub mod norm;
pub mod ops;
pub mod plugin;
pub mod print;
pub mod rope;
#[cfg(test)]
mod tests;
pub mod validate;

pub use decoder::{NetworkOptions, RankNetwork, decoder};
pub use graph::{DataType, Graph, NetworkError};
pub use plugin::Release;
