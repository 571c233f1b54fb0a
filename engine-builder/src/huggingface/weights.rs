//! Transformers' names of the decoder's weights.

use std::collections::BTreeSet;

use engine_format::{FormatError, ModelConfig, Part, Result, SafetensorsDir, Weight};

/// Transformers' name of one part of a weight; `None` for a part that the weight does not have.
pub fn name(weight: Weight, part: Part) -> Option<String> {
    let projection = match part {
        Part::Query => "q_proj",
        Part::Key => "k_proj",
        Part::Value => "v_proj",
        Part::Whole => "",
    };
    let layer = |layer: usize, suffix: String| format!("model.layers.{layer}.{suffix}");
    let whole = |index, suffix: &str| layer(index, suffix.to_owned());
    Some(match (weight, part) {
        (Weight::Qkv(_) | Weight::QkvBias(_), Part::Whole) => return None,
        (Weight::Qkv(index), _) => layer(index, format!("self_attn.{projection}.weight")),
        (Weight::QkvBias(index), _) => layer(index, format!("self_attn.{projection}.bias")),
        (_, Part::Query | Part::Key | Part::Value) => return None,
        (Weight::Embedding, _) => "model.embed_tokens.weight".into(),
        (Weight::FinalNorm, _) => "model.norm.weight".into(),
        (Weight::LmHead, _) => "lm_head.weight".into(),
        (Weight::InputNorm(index), _) => whole(index, "input_layernorm.weight"),
        (Weight::PostNorm(index), _) => whole(index, "post_attention_layernorm.weight"),
        (Weight::Dense(index), _) => whole(index, "self_attn.o_proj.weight"),
        (Weight::DenseBias(index), _) => whole(index, "self_attn.o_proj.bias"),
        (Weight::MlpFc(index), _) => whole(index, "mlp.gate_proj.weight"),
        (Weight::MlpGate(index), _) => whole(index, "mlp.up_proj.weight"),
        (Weight::MlpProj(index), _) => whole(index, "mlp.down_proj.weight"),
    })
}

/// Whether the model stores a head that is not its embedding. Transformers then uses it, whatever `tie_word_embeddings`
/// says. Reads both tensors as far as they are equal.
///
/// # Errors
/// A head or an embedding of a type that cannot be read.
pub fn has_own_head(tensors: &SafetensorsDir) -> Result<bool> {
    let (head, embedding) = ("lm_head.weight", "model.embed_tokens.weight");
    if !tensors.contains(head) || !tensors.contains(embedding) {
        return Ok(false);
    }
    let (head, embedding) = (tensors.tensor(head)?, tensors.tensor(embedding)?);
    let is_same = head.shape == embedding.shape && head.dtype == embedding.dtype && head.bytes == embedding.bytes;
    head.release();
    embedding.release();
    Ok(!is_same)
}

/// Checks that `tensors` are the weights of `config`: each of them present, readable and of the right shape, and
/// nothing else but what carries no information.
///
/// # Errors
/// The first tensor that is missing, unknown, of another shape or of another type.
pub fn check(tensors: &SafetensorsDir, config: &ModelConfig) -> Result<()> {
    let mut known = BTreeSet::new();
    for weight in Weight::all(config) {
        if weight == Weight::LmHead && config.tie_word_embeddings {
            continue;
        }
        for &part in weight.parts() {
            let Some(name) = name(weight, part) else {
                continue;
            };
            if weight == Weight::LmHead && !tensors.contains(&name) {
                let hint = "tensor `lm_head.weight` is missing, and `tie_word_embeddings` in its `config.json` is not true, so the head is not the embedding";
                return Err(FormatError::damaged(tensors.path(), hint));
            }
            if !tensors.contains(&name) {
                return Err(missing(tensors, &name, config));
            }
            tensors.tensor(&name)?.expect_shape(&weight.part_shape(part, config))?;
            known.insert(name);
        }
    }
    let is_harmless =
        |name: &str| name.ends_with(".rotary_emb.inv_freq") || (config.tie_word_embeddings && name == "lm_head.weight");
    match tensors.names().find(|(name, _)| !known.contains(*name) && !is_harmless(name)) {
        None => Ok(()),
        Some((tensor, path)) => Err(FormatError::UnknownTensor { path: path.to_owned(), tensor: tensor.to_owned() }),
    }
}

/// What programs put before the names of a model that they hold, and how to save the model alone.
const WRAPPERS: [(&str, &str); 5] = [
    ("base_model.model.", "PEFT: merge the adapter with `merge_and_unload()`, and save the model that this returns"),
    ("module.", "PyTorch's data parallelism: save `model.module`"),
    ("_orig_mod.", "`torch.compile`: save `model._orig_mod`"),
    ("language_model.", "a model of text and images: save its language model alone"),
    ("model.language_model.", "a model of text and images: save its language model alone"),
];

/// The error for a tensor that is not there, with what is there under a longer or a shorter name.
fn missing(tensors: &SafetensorsDir, name: &str, config: &ModelConfig) -> FormatError {
    let refused = |problem: String| FormatError::tensor(tensors.path(), name, problem);
    let without_model = name.strip_prefix("model.").filter(|inner| tensors.contains(inner));
    if without_model.is_some() {
        return refused(
            "is missing; the names here lack `model.`: the inner model was saved, without its head; save the `…ForCausalLM`"
                .into(),
        );
    }
    let longer = tensors.names().find_map(|(other, _)| other.strip_suffix(name).filter(|prefix| !prefix.is_empty()));
    if let Some(prefix) = longer {
        let wrapper = WRAPPERS.iter().find(|(known, _)| *known == prefix);
        let whose =
            wrapper.map_or_else(|| "save the model without it".to_owned(), |(_, what)| format!("it is that of {what}"));
        return refused(format!("is missing; the names here begin with `{prefix}`: {whose}"));
    }
    if name == "model.embed_tokens.weight" && config.tie_word_embeddings && tensors.contains("lm_head.weight") {
        return refused(
            "is missing; of the embedding and the head, which are tied, only `lm_head.weight` is here: load the model with Transformers, and save it again".into(),
        );
    }
    FormatError::MissingTensor { path: tensors.path().to_owned(), tensor: name.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mlp_names_are_the_right_way_round() {
        let of = |weight| name(weight, Part::Whole).unwrap();
        assert_eq!(of(Weight::MlpFc(3)), "model.layers.3.mlp.gate_proj.weight");
        assert_eq!(of(Weight::MlpGate(3)), "model.layers.3.mlp.up_proj.weight");
        assert_eq!(name(Weight::Qkv(0), Part::Whole), None);
        assert_eq!(name(Weight::Dense(0), Part::Key), None);
        let key = name(Weight::QkvBias(1), Part::Key).unwrap();
        assert_eq!(key, "model.layers.1.self_attn.k_proj.bias");
    }
}
