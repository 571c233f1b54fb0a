//! From a Hugging Face model to a TensorRT-LLM checkpoint and to an engine.
//!
//! A build reads a [`Source`] (a Hugging Face directory, or a checkpoint that this crate wrote), which is mapped and
//! checked whole at open, and writes one new directory, which appears whole or not at all. Weights stream through
//! bounded buffers: no model is too large for a small machine's memory.
//!
//! In reading order:
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`source`] | [`Source`]: an opened model, its weights by part, whatever its format |
//! | [`huggingface`] | Transformers' models: `config.json`, names of weights; and where `--model` is found |
//! | [`gguf`] | llama.cpp's models: container, blocks of codes, configuration, tokenizer |
//! | [`nemo`] | NeMo's models: archives, pickles that are never run, PyTorch's checkpoints |
//! | `stream` | writes a large file in order from pieces that are made in parallel |
//! | [`checkpoint`] | writes a TensorRT-LLM checkpoint, split over ranks |
//! | [`network`] | the decoder's TensorRT network as data: made, checked, printed |
//! | [`compile`] | ways to an engine; [`compile::cpu`] packs one for the CPU, TensorRT or `trtllm-build` compile one for a GPU |
//! | [`output`], `companions` | what every output has in common; the tokenizer's files |
//! | [`memory_plan`] | what fits on a target |
//! | [`settings`], [`build`] | what was asked for, done from beginning to end |
//! | `machine`, `command` | what this machine has; commands for a shell that go on |
//! | [`progress`], [`error`], [`units`] | how work reports, stops and fails; numbers as people read them |
//!
//! ```no_run
//! use engine_builder::compile::cpu::{CpuEngineRequest, build_cpu_engine};
//! use engine_builder::progress::{Interrupt, Quiet};
//! use engine_builder::Source;
//! use engine_format::manifest::Limits;
//!
//! let source = Source::open("assets/demo-model".as_ref())?;
//! let request = CpuEngineRequest {
//!     output: "engine".into(),
//!     force: false,
//!     allow_non_finite: false,
//!     limits: Limits { max_seq_len: 256, max_batch_size: 8, max_num_tokens: 2048 },
//!     weights: engine_format::WeightType::Bf16,
//!     model: "assets/demo-model".into(),
//! };
//! let written = build_cpu_engine(&source, &request, &Quiet, &Interrupt::new())?;
//! assert!(written.bytes > 0);
//! # Ok::<(), engine_builder::BuildError>(())
//! ```

#![forbid(unsafe_code)]

pub mod build;
pub mod checkpoint;
mod command;
mod companions;
pub mod compile;
pub mod error;
pub mod gguf;
pub mod huggingface;
mod lookalike;
pub mod lora;
mod machine;
pub mod memory_plan;
pub mod nemo;
pub mod network;
mod non_finite;
pub mod output;
pub mod progress;
pub mod settings;
pub mod source;
mod stream;
pub mod units;

pub use error::{BuildError, Result};
pub use non_finite::NonFiniteWeights;
pub use source::{Outline, PartView, Source, SourceFormat};
