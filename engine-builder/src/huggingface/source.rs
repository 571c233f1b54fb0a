//! A model directory in Transformers' layout as a source of weights.

use std::path::Path;

use engine_format::{ModelConfig, Part, SafetensorsDir, Weight};
use serde_json::Value;

use super::config::{self, CONFIG_FILE};
use super::weights;
use crate::error::Result;
use crate::lookalike;
use crate::source::{Outline, PartView, SourceFormat, WeightSource};

/// The weights of a Transformers model.
#[derive(Debug)]
pub(crate) struct HuggingFace {
    tensors: SafetensorsDir,
    version: Option<String>,
}

impl HuggingFace {
    /// Opens the model in `dir`, whose `config.json` is `value`.
    pub(crate) fn open(dir: &Path, value: &Value) -> Result<(ModelConfig, Self)> {
        let mut config = config::parse(&dir.join(CONFIG_FILE), value)?;
        let tensors = SafetensorsDir::open(dir).map_err(|error| lookalike::explain(dir, error))?;
        if config.tie_word_embeddings && weights::has_own_head(&tensors)? {
            config.tie_word_embeddings = false;
        }
        weights::check(&tensors, &config)?;
        Ok((config, Self { tensors, version: version(value) }))
    }

    /// What is known before the weights are there.
    pub(crate) fn outline(dir: &Path, value: &Value) -> Result<Outline> {
        let config = config::parse(&dir.join(CONFIG_FILE), value)?;
        let version = version(value);
        let format = match SafetensorsDir::open(dir) {
            Ok(tensors) => Self { tensors, version }.format(),
            Err(_) => SourceFormat::new(NAME, version, &[]),
        };
        Ok(Outline { config, mapping: None, format })
    }
}

const NAME: &str = "Hugging Face Transformers";

/// The version of Transformers that wrote the model.
fn version(value: &Value) -> Option<String> {
    value.get("transformers_version").and_then(Value::as_str).map(str::to_owned)
}

impl WeightSource for HuggingFace {
    fn format(&self) -> SourceFormat {
        SourceFormat::new(NAME, self.version.clone(), &self.tensors())
    }

    fn total_bytes(&self) -> u64 {
        self.tensors.total_bytes()
    }

    fn part(&self, weight: Weight, part: Part) -> Result<PartView<'_>> {
        let name = weights::name(weight, part).unwrap_or_else(|| weight.name(0));
        Ok(self.tensors.tensor(&name)?.into())
    }

    fn tensors(&self) -> Vec<PartView<'_>> {
        // Tensors of types that cannot be read are no weights of the model, or it would have been refused.
        self.tensors.names().filter_map(|(name, _)| self.tensors.tensor(name).ok()).map(PartView::from).collect()
    }
}
