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
