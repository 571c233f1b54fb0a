//! llama.cpp's names of the decoder's weights.

use std::collections::BTreeSet;
use std::path::Path;

use engine_format::{FormatError, ModelConfig, Part, Result, Weight};

use super::config::ROPE_FACTORS;
use super::container::{ElementType, StoredTensor};
use crate::source::RowOrder;

/// The tensor of the embedding.
pub(super) const EMBEDDING: &str = "token_embd.weight";

/// The tensor of the head; absent where it is the embedding.
pub(super) const HEAD: &str = "output.weight";

/// The bias of the first layer's queries: a model has all biases or none.
pub(super) const FIRST_BIAS: &str = "blk.0.attn_q.bias";

/// llama.cpp's name of one part of a weight; `None` for a part that the weight does not have.
pub(super) fn name(weight: Weight, part: Part) -> Option<String> {
    let projection = match part {
        Part::Query => "attn_q",
        Part::Key => "attn_k",
        Part::Value => "attn_v",
        Part::Whole => "",
    };
    let of_layer = |layer: usize, name: &str| Some(format!("blk.{layer}.{name}"));
    match (weight, part) {
        (Weight::Qkv(_) | Weight::QkvBias(_), Part::Whole) => None,
        (Weight::Qkv(layer), _) => of_layer(layer, &format!("{projection}.weight")),
        (Weight::QkvBias(layer), _) => of_layer(layer, &format!("{projection}.bias")),
        (_, Part::Query | Part::Key | Part::Value) => None,
        (Weight::Embedding, _) => Some(EMBEDDING.into()),
        (Weight::FinalNorm, _) => Some("output_norm.weight".into()),
        (Weight::LmHead, _) => Some(HEAD.into()),
        (Weight::InputNorm(layer), _) => of_layer(layer, "attn_norm.weight"),
        (Weight::PostNorm(layer), _) => of_layer(layer, "ffn_norm.weight"),
        (Weight::Dense(layer), _) => of_layer(layer, "attn_output.weight"),
        (Weight::DenseBias(layer), _) => of_layer(layer, "attn_output.bias"),
        (Weight::MlpFc(layer), _) => of_layer(layer, "ffn_gate.weight"),
        (Weight::MlpGate(layer), _) => of_layer(layer, "ffn_up.weight"),
        (Weight::MlpProj(layer), _) => of_layer(layer, "ffn_down.weight"),
    }
}

/// The order of a part's rows: in queries and keys the two elements that rotate together are neighbours.
pub(super) fn row_order(part: Part, config: &ModelConfig) -> RowOrder {
    match part {
        Part::Query | Part::Key => RowOrder::NeighbouringPairs { head_size: config.head_size },
        Part::Whole | Part::Value => RowOrder::Decoder,
    }
}

/// Checks that the tensors which `find` finds by name, with the files that hold them, are the weights of `config`, each of the right
/// shape, and that `names` are no others. `path` is named where one is missing.
pub(super) fn check<'a>(
    path: &Path,
    config: &ModelConfig,
    find: impl Fn(&str) -> Option<(&'a Path, &'a StoredTensor)>,
    names: impl Iterator<Item = &'a str>,
) -> Result<()> {
    let mut known = BTreeSet::from([ROPE_FACTORS.to_owned()]);
    for weight in Weight::all(config) {
        if weight == Weight::LmHead && config.tie_word_embeddings {
            continue;
        }
        for &part in weight.parts() {
            let Some(name) = name(weight, part) else { continue };
            let (file, tensor) = find(&name)
                .ok_or_else(|| FormatError::MissingTensor { path: path.to_owned(), tensor: name.clone() })?;
            let expected = weight.part_shape(part, config);
            if tensor.shape != expected {
                let found = tensor.shape.clone();
                return Err(FormatError::TensorShape { path: file.to_owned(), tensor: name, expected, found });
            }
            if expected.len() == 1
                && let ElementType::Blocks(block) = tensor.element
            {
                let problem = format!("is a vector in {}; vectors are read as F32, F16 or BF16", block.name());
                return Err(FormatError::tensor(file, name, problem));
            }
            known.insert(name);
        }
    }
    for name in names {
        if !known.contains(name) {
            let file = find(name).map_or(path, |(file, _)| file);
            return Err(FormatError::UnknownTensor { path: file.to_owned(), tensor: name.to_owned() });
        }
    }
    Ok(())
}
