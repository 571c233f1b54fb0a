//! Models as NeMo stores them: an archive, or a directory, with Megatron-core's weights in PyTorch's checkpoints.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`pickle`] | reads pickles symbolically: nothing is imported, nothing is called |
//! | `zip` | the directory of a zip archive whose entries are stored |
//! | [`torch`] | PyTorch's checkpoints: names, types, shapes and places of tensors |
//! | `archive` | the members of a `.nemo` file or of a directory that was unpacked of one |
//! | [`yaml`] | YAML as JSON values, with limits |
//! | [`config`] | the model's configuration, of `model_config.yaml` |
//! | `weights` | Megatron-core's names of weights, and where queries, keys and values are in a fused one |
//! | `tokenizer` | the tokenizer's files in the archive |
//! | `source` | all of that as a source of weights |
//!
//! Sources: NVIDIA/NeMo 2.0.0, NVIDIA/Megatron-LM core 0.7 and later, and files that PyTorch 2 wrote.

pub(crate) mod archive;
pub mod config;
pub mod pickle;
pub(crate) mod source;
mod tokenizer;
pub mod torch;
mod weights;
pub mod yaml;
mod zip;
