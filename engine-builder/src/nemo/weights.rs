//! Megatron-core's names of the decoder's weights, and which rows of its fused tensors are which.

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::Path;

use engine_format::{FormatError, ModelConfig, Part, Result, Weight};

use crate::source::RowOrder;

/// The tensor of the embedding.
pub(super) const EMBEDDING: &str = "embedding.word_embeddings.weight";

/// The tensor of the head; absent where it is the embedding.
pub(super) const HEAD: &str = "output_layer.weight";

/// What wrappers put before names.
const PREFIXES: [&str; 3] = ["model.", "module.", "_orig_mod."];

/// Parts of names that belong to models of other kinds.
const OTHER_KINDS: [(&str, &str); 7] = [
    (
        "language_model.",
        "a model of NeMo's own layers, from before Megatron-core: convert it with NeMo to `mcore_gpt: true`",
    ),
    ("model_0.", "a model that was trained with a virtual pipeline: save it again without"),
    ("adapter", "an adapter: merge it into its model with NeMo"),
    ("lora", "an adapter: merge it into its model with NeMo"),
    (".experts.", "a mixture of experts, which is not supported"),
    (".router.", "a mixture of experts, which is not supported"),
    ("layernorm.bias", "a model with LayerNorm, which is not supported: RMSNorm is"),
];

/// A name without what wrappers put before it.
pub(super) fn plain(mut name: &str) -> &str {
    while let Some(rest) = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix)) {
        name = rest;
    }
    name
}

/// Whether a tensor says nothing about the decoder: the state of Transformer Engine, and frequencies that follow from the configuration.
pub(super) fn is_put_aside(name: &str) -> bool {
    name.ends_with("_extra_state") || name.ends_with("rotary_pos_emb.inv_freq")
}

/// Megatron-core's name of the tensor that holds a weight.
pub(super) fn name(weight: Weight) -> Option<String> {
    let of_layer = |layer: usize, name: &str| Some(format!("decoder.layers.{layer}.{name}"));
    match weight {
        Weight::Embedding => Some(EMBEDDING.to_owned()),
        Weight::FinalNorm => Some("decoder.final_layernorm.weight".to_owned()),
        Weight::LmHead => Some(HEAD.to_owned()),
        Weight::InputNorm(layer) => of_layer(layer, "self_attention.linear_qkv.layer_norm_weight"),
        Weight::Qkv(layer) => of_layer(layer, "self_attention.linear_qkv.weight"),
        Weight::Dense(layer) => of_layer(layer, "self_attention.linear_proj.weight"),
        Weight::PostNorm(layer) => of_layer(layer, "mlp.linear_fc1.layer_norm_weight"),
        Weight::MlpFc(layer) | Weight::MlpGate(layer) => of_layer(layer, "mlp.linear_fc1.weight"),
        Weight::MlpProj(layer) => of_layer(layer, "mlp.linear_fc2.weight"),
        Weight::QkvBias(_) | Weight::DenseBias(_) => None,
    }
}

/// Shape of the tensor that holds a weight; rows of the embedding and of the head may be more.
fn stored_shape(weight: Weight, config: &ModelConfig) -> Vec<usize> {
    let mut shape = weight.shape(config);
    if matches!(weight, Weight::MlpFc(_) | Weight::MlpGate(_)) {
        shape[0] *= 2;
    }
    shape
}

/// The rows of a part of a weight, and their order, in the tensor that holds it.
///
/// Queries, keys and values lie in groups: the queries that share a key, that key, its value. The gate lies before the other half of the
/// MLP's first product.
pub(super) fn rows(weight: Weight, part: Part, config: &ModelConfig) -> (RowOrder, Range<usize>) {
    let (head, queries) = (config.head_size, config.query_size() / config.num_key_value_heads);
    let group = queries + 2 * head;
    let order = match (weight, part) {
        (Weight::Qkv(_), Part::Query) => RowOrder::Grouped { run: queries, group, first: 0 },
        (Weight::Qkv(_), Part::Key) => RowOrder::Grouped { run: head, group, first: queries },
        (Weight::Qkv(_), Part::Value) => RowOrder::Grouped { run: head, group, first: queries + head },
        _ => RowOrder::Decoder,
    };
    let count = weight.part_shape(part, config)[0];
    let start = if matches!(weight, Weight::MlpGate(_)) { count } else { 0 };
    (order, start..start + count)
}

/// Refuses a tensor of a model of another kind, by its name.
pub(super) fn refuse_other_kind(path: &Path, name: &str) -> Result<()> {
    match OTHER_KINDS.iter().find(|(part, _)| name.contains(part)) {
        Some((_, kind)) => Err(FormatError::tensor(path, name, format!("is that of {kind}"))),
        None => Ok(()),
    }
}

/// Checks that the tensors whose shapes `shape` finds by name are the weights of `config`, and that `names` are no others; `path` is
/// named in errors.
pub(super) fn check<'a>(
    path: &Path,
    config: &ModelConfig,
    shape: impl Fn(&str) -> Option<&'a [usize]>,
    mut names: impl Iterator<Item = &'a str>,
) -> Result<()> {
    let mut known = BTreeSet::new();
    for weight in Weight::all(config) {
        let Some(name) = name(weight).filter(|_| weight != Weight::LmHead || !config.tie_word_embeddings) else {
            continue;
        };
        let missing = || FormatError::MissingTensor { path: path.to_owned(), tensor: name.clone() };
        let (found, expected) = (shape(&name).ok_or_else(missing)?, stored_shape(weight, config));
        let may_be_longer = matches!(weight, Weight::Embedding | Weight::LmHead);
        let is_longer = may_be_longer && found.len() == 2 && found[0] >= expected[0] && found[1] == expected[1];
        if found != expected && !is_longer {
            return Err(FormatError::TensorShape {
                path: path.to_owned(),
                tensor: name,
                expected,
                found: found.to_vec(),
            });
        }
        known.insert(name);
    }
    match names.find(|name| !known.contains(*name)) {
        None => Ok(()),
        Some(tensor) => Err(FormatError::UnknownTensor { path: path.to_owned(), tensor: tensor.to_owned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lose_what_wrappers_put_before_them() {
        for name in ["model.a.b", "model.module.a.b", "module.a.b", "model._orig_mod.a.b", "a.b"] {
            assert_eq!(plain(name), "a.b");
        }
        assert_eq!(plain("model_0.a"), "model_0.a");
    }
}
