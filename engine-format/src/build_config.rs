//! What a TensorRT engine was built for: `build_config` of its `config.json`.
//!
//! Source: TensorRT-LLM 1.x, `builder.py` (`BuildConfig`, `PluginConfig`) for what is written, `runtime/gptJsonConfig.cpp` for
//! what its C++ reads.

use std::path::Path;

use crate::checkpoint::CONFIG_FILE;
use crate::error::Result;
use crate::json::{self, Object};
use crate::manifest::Limits;
use crate::shard::Mapping;
use crate::weights_file::WEIGHTS_FILE;

/// What a run has to know of the engine's `config.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildConfig {
    /// The version of TensorRT-LLM that built the engine, or whose schema it follows; empty where it does not say.
    pub version: String,
    /// The engine's limits.
    pub limits: Limits,
    /// Beams of one request at most.
    pub max_beam_width: usize,
    /// Whether the engine gives logits of every token of a prompt.
    pub gather_context_logits: bool,
    /// Whether the logits of generated tokens can be had.
    pub gather_generation_logits: bool,
    /// Whether the attention can keep first tokens in every window.
    pub streamingllm: bool,
    /// Whether the attention over a prompt reads keys and values from the paged cache.
    pub use_paged_context_fmha: bool,
    /// Whether LoRA adapters can be applied.
    pub lora_plugin: bool,
    /// Ranks: processes, and engine files.
    pub world_size: usize,
    /// How the model is split over them.
    pub mapping: Mapping,
}

impl BuildConfig {
    /// Reads `config.json` of the engine directory `dir`.
    ///
    /// # Errors
    /// The file cannot be read, or a field of it is invalid, by name.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(CONFIG_FILE);
        let value = json::read_file(&path, "")?;
        let root = Object::root(&path, &value)?;
        let build = root.object("build_config")?.ok_or_else(|| root.error("build_config", "is missing"))?;
        let max_seq_len = build.tokens("max_seq_len")?.ok_or_else(|| build.error("max_seq_len", "is missing"))?;
        let plugins = build.object("plugin_config")?;
        let lora =
            plugins.as_ref().and_then(|plugins| plugins.get("lora_plugin")).is_some_and(|value| !value.is_null());
        let plugin = |name| plugins.as_ref().map(|plugins| plugins.boolean(name)).transpose().map(Option::flatten);
        let pretrained = root.object("pretrained_config")?;
        let mapping = pretrained.as_ref().map(|pretrained| pretrained.object("mapping")).transpose()?.flatten();
        let of_mapping =
            |name| mapping.as_ref().map(|mapping| mapping.dimension(name)).transpose().map(Option::flatten);
        let world_size = of_mapping("world_size")?.unwrap_or(1);
        let pp_size = of_mapping("pp_size")?.unwrap_or(1);
        let tp_size = of_mapping("tp_size")?.unwrap_or(world_size / pp_size).max(1);
        Ok(Self {
            version: root.string("version")?.unwrap_or_default().to_owned(),
            limits: Limits {
                max_seq_len,
                max_batch_size: build.required_dimension("max_batch_size")?,
                max_num_tokens: build.required_dimension("max_num_tokens")?,
            },
            max_beam_width: build.dimension("max_beam_width")?.unwrap_or(1),
            gather_context_logits: build.boolean("gather_context_logits")?.unwrap_or(false),
            gather_generation_logits: build.boolean("gather_generation_logits")?.unwrap_or(false),
            streamingllm: plugin("streamingllm")?.unwrap_or(false),
            use_paged_context_fmha: plugin("use_paged_context_fmha")?.unwrap_or(false),
            lora_plugin: lora,
            world_size,
            mapping: Mapping { tp_size, pp_size },
        })
    }
}

/// Name of a rank's engine, as TensorRT-LLM's executor looks for it.
pub fn engine_file(rank: usize) -> String {
    format!("rank{rank}.engine")
}

/// Whether a directory holds what `trtllm-build` writes, whole or not; a CPU engine's configuration looks the same.
pub(crate) fn is_engine(dir: &Path) -> bool {
    let has_build_config =
        || json::read_file(&dir.join(CONFIG_FILE), "").is_ok_and(|value| value.get("build_config").is_some());
    let is_cpu_engine = dir.join(WEIGHTS_FILE).exists();
    dir.join(engine_file(0)).is_file() || !is_cpu_engine && has_build_config()
}
