//! What a model and an engine directory *are*: the formats that the builder writes and the runner reads.
//!
//! The builder and the runner never see each other; they meet here, that is, on disk. This crate knows
//! configurations, tensor names, shard rules, element types, safetensors views, GPU targets and the two
//! directories (TensorRT-LLM checkpoint, engine). It computes nothing with weights beyond converting them to
//! bfloat16, and it trusts nothing that it reads.
//!
//! In reading order:
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`error`] | [`FormatError`]: why a file or a directory was refused |
//! | [`json`] | fields of JSON files, with errors that name the file and the field |
//! | [`python_json`] | JSON as Python writes it, and what parsers say in plain words |
//! | [`rope`] | rotary position embedding: settings and frequencies |
//! | [`model_config`] | [`ModelConfig`]: the one description of a decoder that everything else takes |
//! | [`weight`] | [`Weight`]: every tensor of the decoder, by TensorRT-LLM's names |
//! | [`shard`] | [`Mapping`]: which rank holds which rows and columns of which weight |
//! | [`checkpoint`] | `config.json` of a TensorRT-LLM checkpoint |
//! | [`dtype`], [`shape`] | element types, conversion to bfloat16, checked sizes |
//! | [`mmap`] | memory-mapped files |
//! | [`safetensors_header`], [`safetensors_dir`] | safetensors: one file's head, and directories of files |
//! | [`weights_file`] | `rank0.weights`, the CPU engine's packed weights |
//! | [`target`] | the GPUs that an engine can be built for |
//! | [`model_files`] | what becomes of each field of a Hugging Face model's files |
//! | [`manifest`] | `engine.json` of an engine directory |
//! | [`build_config`] | what a TensorRT engine was built for |
//! | [`engine_dir`] | [`EngineDir`]: an engine directory, opened and checked |
//! | [`rebuild`] | the command that builds an engine again |
//! | [`staging`] | output directories that appear whole or not at all |
//! | [`lora`] | LoRA adapters that PEFT wrote, as a TensorRT-LLM request carries them |
//! | [`panics`] | panics of other libraries that become errors, in silence |

pub mod build_config;
pub mod checkpoint;
pub mod dtype;
pub mod engine_dir;
pub mod error;
pub mod foreign_file;
pub mod json;
pub mod lora;
pub mod manifest;
pub mod mmap;
pub mod model_config;
pub mod model_files;
pub mod panics;
pub mod python_json;
pub mod rebuild;
pub mod rope;
pub mod safetensors_dir;
pub mod safetensors_header;
pub mod shape;
pub mod shard;
pub mod staging;
pub mod target;
pub mod weight;
pub mod weight_type;
pub mod weights_file;

pub use build_config::BuildConfig;
pub use dtype::Dtype;
pub use engine_dir::EngineDir;
pub use error::{FormatError, Result};
pub use foreign_file::ForeignFile;
pub use half::bf16;
pub use lora::LoraAdapter;
pub use manifest::Manifest;
pub use model_config::{Architecture, ModelConfig};
pub use safetensors_dir::SafetensorsDir;
pub use shard::Mapping;
pub use target::Target;
pub use weight::{Part, Weight};
pub use weight_type::WeightType;
