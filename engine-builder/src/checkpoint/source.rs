//! A TensorRT-LLM checkpoint that this crate wrote as a source of weights: a file of tensors for each rank.

use std::collections::BTreeSet;
use std::path::Path;

use engine_format::checkpoint::{CONFIG_FILE, from_json, rank_file};
use engine_format::json::Object;
use engine_format::{Dtype, FormatError, Mapping, ModelConfig, Part, SafetensorsDir, Weight};
use serde_json::Value;

use crate::error::Result;
use crate::source::{Outline, PartView, SourceFormat, WeightSource};

/// The weights of a checkpoint.
#[derive(Debug)]
pub(crate) struct Checkpoint {
    config: ModelConfig,
    mapping: Mapping,
    ranks: Vec<SafetensorsDir>,
}

impl Checkpoint {
    /// Opens the checkpoint in `dir`, whose `config.json` is `value`.
    pub(crate) fn open(dir: &Path, value: &Value) -> Result<(ModelConfig, Self)> {
        let (config, mapping) = read_config(dir, value)?;
        let ranks = open_ranks(dir, &config, mapping)?;
        Ok((config.clone(), Self { config, mapping, ranks }))
    }

    /// What is known before the weights are there.
    pub(crate) fn outline(dir: &Path, value: &Value) -> Result<Outline> {
        let (config, mapping) = read_config(dir, value)?;
        let format = match open_ranks(dir, &config, mapping) {
            Ok(ranks) => Self { config: config.clone(), mapping, ranks }.format(),
            Err(_) => SourceFormat::new(NAME, None, &[]),
        };
        Ok(Outline { config, mapping: Some(mapping), format })
    }

    /// First row and number of rows of a part in the whole weight.
    fn rows_of(&self, weight: Weight, part: Part) -> (usize, usize) {
        let rows = |part| weight.part_shape(part, &self.config)[0];
        let first = weight.parts().iter().take_while(|&&before| before != part).map(|&before| rows(before)).sum();
        (first, rows(part))
    }

    fn tensor(&self, rank: usize, name: &str) -> Result<Option<PartView<'_>>> {
        self.ranks.get(rank).map(|tensors| Ok(tensors.tensor(name)?.into())).transpose()
    }
}

/// Reads `config.json`. An engine's may ask for a quantized KV cache; what is built of a checkpoint has none.
fn read_config(dir: &Path, value: &Value) -> Result<(ModelConfig, Mapping), FormatError> {
    let path = dir.join(CONFIG_FILE);
    let root = Object::root(&path, value)?;
    let read = from_json(&root)?;
    let field = "kv_cache_quant_algo";
    if let Some(quantization) = root.object("quantization")?
        && let Some(algorithm) = quantization.string(field)?
    {
        return Err(FormatError::Unsupported {
            field: quantization.name(field),
            value: algorithm.to_owned(),
            supported: "none: keys and values in bfloat16 only".to_owned(),
            path,
        });
    }
    Ok(read)
}

const NAME: &str = "TensorRT-LLM checkpoint";

impl WeightSource for Checkpoint {
    fn format(&self) -> SourceFormat {
        SourceFormat::new(NAME, None, &self.tensors())
    }

    fn total_bytes(&self) -> u64 {
        self.ranks.iter().map(SafetensorsDir::total_bytes).sum()
    }

    fn part(&self, weight: Weight, part: Part) -> Result<PartView<'_>> {
        let missing = || FormatError::MissingTensor { path: rank_file(0).into(), tensor: weight.name(0) };
        let view = self.tensor(0, &weight.name(0))?.ok_or_else(missing)?;
        let (first, rows) = self.rows_of(weight, part);
        Ok(view.rows(first..first + rows))
    }

    fn tensors(&self) -> Vec<PartView<'_>> {
        let views = self.ranks.iter().flat_map(|tensors| tensors.names().map(move |(name, _)| tensors.tensor(name)));
        views.flatten().map(PartView::from).collect()
    }

    fn mapping(&self) -> Option<Mapping> {
        Some(self.mapping)
    }

    fn rank_tensor(&self, rank: usize, name: &str) -> Result<Option<PartView<'_>>> {
        self.tensor(rank, name)
    }
}

/// Opens and checks each rank's file of a checkpoint.
fn open_ranks(dir: &Path, config: &ModelConfig, mapping: Mapping) -> Result<Vec<SafetensorsDir>, FormatError> {
    let mut ranks = Vec::new();
    for pp_rank in 0..mapping.pp_size {
        for tp_rank in 0..mapping.tp_size {
            let file = dir.join(rank_file(mapping.rank(pp_rank, tp_rank)));
            if !file.is_file() {
                let hint = "`config.json` says that the checkpoint has this rank; write it again";
                return Err(FormatError::Missing { path: file, hint: hint.into() });
            }
            let tensors = SafetensorsDir::open_files(dir, std::slice::from_ref(&file))?;
            check_rank(&tensors, &file, config, mapping, (pp_rank, tp_rank))?;
            ranks.push(tensors);
        }
    }
    Ok(ranks)
}

fn check_rank(
    tensors: &SafetensorsDir,
    file: &Path,
    config: &ModelConfig,
    mapping: Mapping,
    (pp_rank, tp_rank): (usize, usize),
) -> Result<(), FormatError> {
    let first_layer = mapping.layers(config, pp_rank).start;
    let mut known = BTreeSet::new();
    for weight in mapping.weights(config, pp_rank) {
        let name = weight.name(first_layer);
        let tensor = tensors.tensor(&name).map_err(|error| match error {
            FormatError::MissingTensor { tensor, .. } => FormatError::MissingTensor { path: file.to_owned(), tensor },
            other => other,
        })?;
        tensor.expect_shape(&mapping.shard(config, weight, tp_rank).shape)?;
        if tensor.dtype != Dtype::Bf16 {
            return Err(FormatError::damaged(
                file,
                format!("tensor `{name}` is {}, but a checkpoint of ours is bfloat16", tensor.dtype.name()),
            ));
        }
        known.insert(name);
    }
    match tensors.names().find(|(name, _)| !known.contains(*name)) {
        None => Ok(()),
        Some((tensor, _)) => Err(FormatError::UnknownTensor { path: file.to_owned(), tensor: tensor.to_owned() }),
    }
}
