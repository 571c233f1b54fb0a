//! What a build asks of LoRA: modules and largest rank, as given, as the adapters at hand have them, or as many as can be.

use std::path::PathBuf;

use engine_format::lora::LoraModule;
use engine_format::{LoraAdapter, Mapping, ModelConfig};

use crate::build::BuildFailure;
use crate::network::lora::{LoraModules, LoraOptions};
use crate::settings::SettingsError;

/// The largest rank where nothing says another: TensorRT-LLM's default.
const DEFAULT_MAX_RANK: usize = 64;

/// What was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoraRequest {
    /// Adapters that the engine is to take, as PEFT's `save_pretrained` writes them.
    pub dirs: Vec<PathBuf>,
    /// The largest rank of an adapter.
    pub max_rank: Option<usize>,
    /// What adapters may change.
    pub target_modules: Vec<LoraModule>,
}

impl LoraRequest {
    /// Whether anything was asked for.
    pub fn is_given(&self) -> bool {
        *self != Self::default()
    }

    /// The engine's part in LoRA; `None` where nothing was asked for.
    ///
    /// # Errors
    /// An adapter that cannot be read or does not go with what was asked for, by its directory; a model or a split for which
    /// TensorRT-LLM's runtime would misread adapters.
    pub(crate) fn options(&self, config: &ModelConfig, mapping: Mapping) -> Result<Option<LoraOptions>, BuildFailure> {
        if !self.is_given() {
            return Ok(None);
        }
        let refuse = |problem: String| Err(BuildFailure::Settings(SettingsError::Lora(problem)));
        let dense_is_square = config.query_size() == config.hidden_size;
        let mut of_adapters = Vec::new();
        for dir in &self.dirs {
            let adapter = LoraAdapter::open(dir, config)?;
            for [id, _, rank, _] in adapter.config {
                let module = LoraModule::ALL.into_iter().find(|module| module.id() == id);
                of_adapters.extend(module.map(|module| (dir, module, rank as usize)));
            }
        }
        let possible = |module: &LoraModule| *module != LoraModule::AttnDense || dense_is_square;
        let modules: LoraModules = match (self.target_modules.as_slice(), of_adapters.as_slice()) {
            ([], []) => LoraModule::ALL.into_iter().filter(possible).collect(),
            ([], adapters) => adapters.iter().map(|(_, module, _)| *module).collect(),
            (given, _) => given.iter().copied().collect(),
        };
        let largest = of_adapters.iter().map(|(_, _, rank)| *rank).max();
        let max_rank = self.max_rank.or(largest).unwrap_or(DEFAULT_MAX_RANK);
        for (dir, module, rank) in of_adapters {
            if rank > max_rank {
                return refuse(format!("`max_lora_rank` {max_rank} is less than rank {rank} of `{}`", dir.display()));
            }
            if !modules.contains(module) {
                let (dir, name) = (dir.display(), module.name());
                return refuse(format!("`lora_target_modules` lacks {name}, which `{dir}` changes"));
            }
        }
        if modules.contains(LoraModule::AttnDense) && !dense_is_square {
            return refuse(format!(
                "`lora_target_modules`: TensorRT-LLM takes attn_dense only where the heads together ({}) are as wide as the hidden state ({})",
                config.query_size(),
                config.hidden_size
            ));
        }
        if modules.contains(LoraModule::AttnK) && mapping.tp_size > config.num_key_value_heads {
            return refuse(format!(
                "LoRA of queries, keys and values with `tp_size` {}: TensorRT-LLM misreads B where there are more ranks than key-value heads, {}",
                mapping.tp_size, config.num_key_value_heads
            ));
        }
        if !config.num_hidden_layers.is_multiple_of(mapping.pp_size) {
            return refuse(format!(
                "LoRA with `pp_size` {}: TensorRT-LLM looks for adapters under wrong layers where it does not divide the {} layers",
                mapping.pp_size, config.num_hidden_layers
            ));
        }
        Ok(Some(LoraOptions { max_rank, modules }))
    }
}
