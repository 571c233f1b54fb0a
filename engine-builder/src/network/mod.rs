//! The network that TensorRT is asked for, as data: what `compile::tensorrt` replays, `--network` prints and
//! the tests check. `docs/network.md` draws it and says where each fact is from.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`options`] | [`NetworkOptions`]: what a network is made for |
//! | [`rank`] | one rank: its layers, its part of each weight |
//! | [`tensor`], [`error`] | types and shapes; why a network is refused |
//! | [`plugin`] | TensorRT-LLM's plugins: their fields and inputs |
//! | [`ops`] | the operations, and the types and shapes of what they compute |
//! | [`graph`] | [`Graph`]: tensors, nodes, inputs, outputs |
//! | [`profiles`], `inputs` | ranges of tokens of a step; the network's inputs |
//! | `linear`, [`norm`], [`rope`] | linear layers, RMSNorm, rotary tables |
//! | [`lora`] | what adapters add to products |
//! | [`mod@attention`], [`mod@mlp`] | the two halves of a layer |
//! | [`mod@decoder`] | the one decoder: embedding, layers, head |
//! | [`validate`] | everything that is checked before TensorRT sees the network |
//! | [`mod@print`] | text, JSON, Graphviz |

pub mod attention;
pub mod decoder;
pub mod error;
pub mod graph;
mod inputs;
mod linear;
pub mod lora;
pub mod mlp;
pub mod norm;
pub mod ops;
pub mod options;
pub mod plugin;
pub mod print;
pub mod profiles;
pub mod rank;
pub mod rope;
pub mod tensor;
#[cfg(test)]
mod tests;
pub mod validate;

pub use decoder::{RankNetwork, decoder};
pub use error::NetworkError;
pub use graph::Graph;
pub use options::{NetworkOptions, Release};
pub use tensor::DataType;
