//! Models as llama.cpp and its kin store them: one file, or several that are parts of one, with weights, configuration and tokenizer.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `bytes` | reading numbers and strings, with limits |
//! | [`container`] | the file's head: metadata and tensors, checked |
//! | [`blocks`] | the types whose weights are codes in blocks |
//! | `files` | which files a path names |
//! | [`config`] | the model's configuration, of its metadata |
//! | `weights` | names of weights, and the order of the rows of queries and keys |
//! | `tokenizer` | the files of a tokenizer, of its metadata |
//! | `source` | all of that as a source of weights |
//!
//! Source: the format's description (ggml-org/ggml, `docs/gguf.md`), and the tables of the Python package `gguf` 0.19.

pub mod blocks;
mod bytes;
pub mod config;
pub mod container;
pub(crate) mod files;
pub(crate) mod source;
pub(crate) mod tokenizer;
mod weights;
