//! LoRA adapters: a directory that PEFT wrote, as the two tensors that a TensorRT-LLM request carries.
//!
//! `weights` is `[rows, columns]` bfloat16 and `config` is `[rows, 4]` int32. A row is one projection of one layer:
//!
//! | weights | config |
//! | --- | --- |
//! | A `[rank, in]` row-major, then `scaling * B` `[out, rank]` row-major, then zeros up to the longest row | module id, layer of the whole model, rank, 0 (no DoRA) |
//!
//! | projection in Transformers | module of TensorRT-LLM | id |
//! | --- | --- | --- |
//! | `self_attn.q_proj`, `k_proj`, `v_proj`, `o_proj` | `attn_q`, `attn_k`, `attn_v`, `attn_dense` | 1, 2, 3, 4 |
//! | `mlp.gate_proj` (through SiLU) | `mlp_h_to_4h` | 5 |
//! | `mlp.down_proj` | `mlp_4h_to_h` | 6 |
//! | `mlp.up_proj` (linear) | `mlp_gate` | 7 |
//!
//! Rows are sorted by layer, then by id. They describe the whole adapter whatever the engine's mapping: each rank
//! takes its layers and slices from them.
//!
//! Sources, all of TensorRT-LLM: the table of names, the order of A and B, and the scaling of B, in
//! `tensorrt_llm/lora_manager.py` (NVIDIA/TensorRT-LLM `007e181b`, 1.x) and, older and the same,
//! `examples/hf_lora_convert.py` (`05316d33`); ids in `runtime/loraModule.h` (`0ccc36f7`, 1.2); which shapes a module has
//! in `runtime/loraModule.cpp` (`2a9abd95`); 3 or 4 columns of `config` and the element type in `runtime/loraUtils.{h,cpp}`
//! (yihwang-nv/TensorRT-LLM `9a037a69`, 1.2, and NVIDIA `2a9abd95`); how ranks split a row in `LoraCache::copyToPages`,
//! `runtime/loraCache.cpp` (`9a037a69`). What `docs/lora.md` lists as traps was read there too.

#![forbid(unsafe_code)]

pub mod module;
pub mod peft_config;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::path::Path;

use half::bf16;
use half::vec::HalfFloatVecExt;

use crate::error::{FormatError, Result};
use crate::json;
use crate::model_config::ModelConfig;
use crate::safetensors_dir::{SafetensorsDir, TensorView};
use crate::shape;
use crate::weight::{Part, Weight};
use peft_config::PeftConfig;

pub use module::LoraModule;

/// Name of PEFT's configuration file.
pub const CONFIG_FILE: &str = "adapter_config.json";

/// Name of PEFT's weights file.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";

/// A LoRA adapter in the layout of TensorRT-LLM's requests; see the [module](self) for rows and columns.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraAdapter {
    /// Bits of bfloat16, `rows * columns` of them, row-major.
    pub weights: Vec<u16>,
    /// Adapted projections, over all layers.
    pub rows: usize,
    /// Length of the longest row.
    pub columns: usize,
    /// For each row: module id, layer, rank, whether it is DoRA (never: 0).
    pub config: Vec<[i32; 4]>,
}

/// A projection that can be adapted.
struct Module {
    /// Its name in a layer of Transformers' model.
    name: &'static str,
    /// TensorRT-LLM's id.
    id: i32,
    weight: fn(usize) -> Weight,
    part: Part,
}

/// Every projection of a layer, by ascending id.
const MODULES: [Module; 7] = [
    Module { name: "self_attn.q_proj", id: 1, weight: Weight::Qkv, part: Part::Query },
    Module { name: "self_attn.k_proj", id: 2, weight: Weight::Qkv, part: Part::Key },
    Module { name: "self_attn.v_proj", id: 3, weight: Weight::Qkv, part: Part::Value },
    Module { name: "self_attn.o_proj", id: 4, weight: Weight::Dense, part: Part::Whole },
    Module { name: "mlp.gate_proj", id: 5, weight: Weight::MlpFc, part: Part::Whole },
    Module { name: "mlp.down_proj", id: 6, weight: Weight::MlpProj, part: Part::Whole },
    Module { name: "mlp.up_proj", id: 7, weight: Weight::MlpGate, part: Part::Whole },
];

/// A projection of one layer: the layer, and the index in [`MODULES`]. Sorts as rows do.
type Projection = (usize, usize);

/// What becomes one row.
struct Row<'a> {
    a: TensorView<'a>,
    b: TensorView<'a>,
    config: [i32; 4],
    scaling: f32,
    /// Elements of A, after which B begins.
    a_length: usize,
    /// Elements of A and B.
    length: usize,
}

impl LoraAdapter {
    /// Reads the adapter in `dir`, made for `model`, and converts it.
    ///
    /// The memory needed is that of the result: `rows * columns * 2` bytes.
    ///
    /// # Errors
    /// A missing or damaged file, a configuration that a request cannot express ([`PeftConfig::parse`]), a tensor that is
    /// not one of a projection of `model`, lacks its other half, has another shape than rank and model say, or holds what
    /// bfloat16 cannot; each with file and field or tensor.
    pub fn open(dir: &Path, model: &ModelConfig) -> Result<Self> {
        if dir.is_file() {
            let hint = "a LoRA adapter is the directory that PEFT's `save_pretrained` writes".to_owned();
            return Err(FormatError::NotADirectory { path: dir.to_owned(), hint });
        }
        let path = dir.join(CONFIG_FILE);
        let value = json::read_file(&path, "a LoRA adapter is a directory that PEFT's `save_pretrained` wrote")?;
        let peft = PeftConfig::parse(&path, &value)?;
        let path = dir.join(WEIGHTS_FILE);
        if !path.is_file() {
            let hint =
                "it holds the adapter's weights; a pickled `adapter_model.bin` is not read: save it as safetensors";
            return Err(FormatError::Missing { path, hint: hint.to_owned() });
        }
        let tensors = SafetensorsDir::open_files(&path, std::slice::from_ref(&path))?;
        convert(&path, &tensors, &peft, model)
    }
}

fn convert(path: &Path, tensors: &SafetensorsDir, peft: &PeftConfig, model: &ModelConfig) -> Result<LoraAdapter> {
    let projections = tensors.names().map(|(name, _)| projection_of(path, name, model));
    let projections = projections.collect::<Result<BTreeSet<Projection>>>()?;
    let rows = projections
        .into_iter()
        .map(|projection| row(path, tensors, peft, model, projection))
        .collect::<Result<Vec<_>>>()?;
    let Some(columns) = rows.iter().map(|row| row.length).max() else {
        return Err(FormatError::damaged(path, "it holds no tensor: the adapter adapts nothing"));
    };
    let mut weights = Vec::new();
    let length = shape::elements(&[rows.len(), columns]).unwrap_or(usize::MAX);
    weights.try_reserve_exact(length).map_err(|_| FormatError::io("hold the rows of", path)(no_memory()))?;
    weights.resize(length, bf16::ZERO);
    for (row, out) in rows.iter().zip(weights.chunks_exact_mut(columns)) {
        let (a, b) = out[..row.length].split_at_mut(row.a_length);
        row.a.dtype.convert_to_bf16(row.a.bytes, a);
        row.b.dtype.scale_to_bf16(row.b.bytes, row.scaling, b);
        check_finite(path, row.a.name, a, 1.0)?;
        check_finite(path, row.b.name, b, row.scaling)?;
    }
    let config = rows.iter().map(|row| row.config).collect();
    Ok(LoraAdapter { rows: rows.len(), columns, config, weights: weights.reinterpret_into() })
}

/// Name of a half (`A` or `B`) of the adapter of a projection.
fn tensor_name((layer, module): Projection, half: char) -> String {
    format!("base_model.model.model.layers.{layer}.{}.lora_{half}.weight", MODULES[module].name)
}

/// The projection that a tensor adapts.
fn projection_of(path: &Path, name: &str, model: &ModelConfig) -> Result<Projection> {
    let refused = |problem: String| Err(FormatError::tensor(path, name, problem));
    let layers = model.num_hidden_layers;
    let found = layer_number(name).filter(|&layer| layer < layers).and_then(|layer| {
        (0..MODULES.len()).map(|module| (layer, module)).find(|&projection| is_half(projection, name))
    });
    match found {
        Some((_, module)) if MODULES[module].id == 4 && model.query_size() != model.hidden_size => refused(format!(
            "adapts the output of attention; TensorRT-LLM takes that only where the heads together ({}) are as wide as \
             the hidden state ({}): train without `o_proj`, or merge the adapter into the model",
            model.query_size(),
            model.hidden_size
        )),
        Some(projection) => Ok(projection),
        None if ["lm_head", "embed_tokens"].iter().any(|part| name.contains(part)) => refused(
            "belongs to the embedding or the head, which a request cannot change: train without it, or merge the adapter \
             into the model"
                .to_owned(),
        ),
        None => refused(format!(
            "is not `lora_A.weight` or `lora_B.weight` of a projection of this model ({} of layers 0 to {}), so it would \
             be lost: is the adapter one for another model?",
            MODULES.map(|module| module.name).join(", "),
            layers.saturating_sub(1)
        )),
    }
}

fn is_half(projection: Projection, name: &str) -> bool {
    ['A', 'B'].iter().any(|&half| tensor_name(projection, half) == name)
}

fn layer_number(name: &str) -> Option<usize> {
    name.strip_prefix("base_model.model.model.layers.")?.split('.').next()?.parse().ok()
}

fn row<'a>(
    path: &Path,
    tensors: &'a SafetensorsDir,
    peft: &PeftConfig,
    model: &ModelConfig,
    projection: Projection,
) -> Result<Row<'a>> {
    let (layer, Module { name, id, weight, part }) = (projection.0, &MODULES[projection.1]);
    let full_name = format!("model.layers.{layer}.{name}");
    let rank = peft.rank(&full_name);
    let (a, b) = (tensors.tensor(&tensor_name(projection, 'A'))?, tensors.tensor(&tensor_name(projection, 'B'))?);
    let matrix = weight(layer).part_shape(*part, model);
    let (outputs, inputs) = (matrix[0], matrix[1]);
    a.expect_shape(&[rank, inputs])?;
    b.expect_shape(&[outputs, rank])?;
    // Both fit into memory, so their products and sum do; TensorRT-LLM counts them in 32 bits.
    let (a_length, length) = (rank * inputs, rank * inputs + outputs * rank);
    let as_i32 = |number: usize| i32::try_from(number).ok();
    let (Some(layer), Some(rank), Some(_)) = (as_i32(layer), as_i32(rank), as_i32(length)) else {
        return Err(FormatError::tensor(path, a.name, format!("has rank {rank}, too large for TensorRT-LLM")));
    };
    Ok(Row { a, b, config: [*id, layer, rank, 0], scaling: peft.scaling(&full_name), a_length, length })
}

fn check_finite(path: &Path, tensor: &str, values: &[bf16], scaling: f32) -> Result<()> {
    if values.iter().all(|value| value.is_finite()) {
        return Ok(());
    }
    let problem = format!("times {scaling} holds a value that is not a finite bfloat16: is the adapter damaged?");
    Err(FormatError::tensor(path, tensor, problem))
}

fn no_memory() -> std::io::Error {
    std::io::ErrorKind::OutOfMemory.into()
}
