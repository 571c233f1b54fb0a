//! Every tensor of the decoder, under the names that TensorRT-LLM's checkpoints use.
//!
//! Source: TensorRT-LLM 1.x, `models/llama/convert.py` and the layers' parameter names. 2-D weights are stored
//! `[out_features, in_features]`, row-major. Beware of two names: `mlp.fc` is Transformers' `gate_proj` (the branch that
//! goes through SiLU), and `mlp.gate` is `up_proj` (the linear branch).

use crate::model_config::ModelConfig;

/// One tensor of the decoder; layers are counted over the whole model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Weight {
    /// Token embedding, `[vocab, hidden]`.
    Embedding,
    /// RMSNorm before attention, `[hidden]`.
    InputNorm(usize),
    /// Query, key and value projections, stacked by rows, `[(heads + 2 * kv_heads) * head_size, hidden]`.
    Qkv(usize),
    /// Their biases, `[(heads + 2 * kv_heads) * head_size]`.
    QkvBias(usize),
    /// Output projection of attention, `[hidden, heads * head_size]`.
    Dense(usize),
    /// Its bias, `[hidden]`.
    DenseBias(usize),
    /// RMSNorm before the MLP, `[hidden]`.
    PostNorm(usize),
    /// Transformers' `gate_proj`, `[intermediate, hidden]`.
    MlpFc(usize),
    /// Transformers' `up_proj`, `[intermediate, hidden]`.
    MlpGate(usize),
    /// Transformers' `down_proj`, `[hidden, intermediate]`.
    MlpProj(usize),
    /// RMSNorm before the head, `[hidden]`.
    FinalNorm,
    /// The head, `[vocab, hidden]`.
    LmHead,
}

/// A part of a weight that sources store as a tensor of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// All of it.
    Whole,
    /// The query rows of a QKV weight.
    Query,
    /// The key rows.
    Key,
    /// The value rows.
    Value,
}

impl Weight {
    /// Every weight of the model, in the order in which a forward pass reads them. The head is in the list even when it
    /// is tied: TensorRT-LLM's checkpoints store it.
    pub fn all(config: &ModelConfig) -> Vec<Self> {
        let mut weights = vec![Self::Embedding];
        for layer in 0..config.num_hidden_layers {
            weights.extend(Self::of_layer(config, layer));
        }
        weights.extend([Self::FinalNorm, Self::LmHead]);
        weights
    }

    /// The weights of one layer.
    pub fn of_layer(config: &ModelConfig, layer: usize) -> Vec<Self> {
        let mut weights = vec![Self::InputNorm(layer), Self::Qkv(layer)];
        if config.attention_bias {
            weights.push(Self::QkvBias(layer));
        }
        weights.push(Self::Dense(layer));
        if config.attention_bias {
            weights.push(Self::DenseBias(layer));
        }
        weights.extend([Self::PostNorm(layer), Self::MlpFc(layer), Self::MlpGate(layer), Self::MlpProj(layer)]);
        weights
    }

    /// The layer that the weight belongs to.
    pub const fn layer(self) -> Option<usize> {
        match self {
            Self::Embedding | Self::FinalNorm | Self::LmHead => None,
            Self::InputNorm(layer)
            | Self::Qkv(layer)
            | Self::QkvBias(layer)
            | Self::Dense(layer)
            | Self::DenseBias(layer)
            | Self::PostNorm(layer)
            | Self::MlpFc(layer)
            | Self::MlpGate(layer)
            | Self::MlpProj(layer) => Some(layer),
        }
    }

    /// TensorRT-LLM's name, with layers counted from `first_layer` (a pipeline rank counts its own from 0).
    pub fn name(self, first_layer: usize) -> String {
        let suffix = match self {
            Self::Embedding => return "transformer.vocab_embedding.weight".into(),
            Self::FinalNorm => return "transformer.ln_f.weight".into(),
            Self::LmHead => return "lm_head.weight".into(),
            Self::InputNorm(_) => "input_layernorm.weight",
            Self::Qkv(_) => "attention.qkv.weight",
            Self::QkvBias(_) => "attention.qkv.bias",
            Self::Dense(_) => "attention.dense.weight",
            Self::DenseBias(_) => "attention.dense.bias",
            Self::PostNorm(_) => "post_layernorm.weight",
            Self::MlpFc(_) => "mlp.fc.weight",
            Self::MlpGate(_) => "mlp.gate.weight",
            Self::MlpProj(_) => "mlp.proj.weight",
        };
        let layer = self.layer().unwrap_or(0) - first_layer;
        format!("transformer.layers.{layer}.{suffix}")
    }

    /// The name of one part, where parts are stored as tensors of their own: TensorRT-LLM's for projections that are not fused.
    pub fn part_name(self, part: Part, first_layer: usize) -> String {
        let letter = match part {
            Part::Whole => return self.name(first_layer),
            Part::Query => "q",
            Part::Key => "k",
            Part::Value => "v",
        };
        self.name(first_layer).replace("attention.qkv.", &format!("attention.{letter}."))
    }

    /// The whole weight's shape.
    pub fn shape(self, config: &ModelConfig) -> Vec<usize> {
        let hidden = config.hidden_size;
        match self {
            Self::Embedding | Self::LmHead => vec![config.vocab_size, hidden],
            Self::InputNorm(_) | Self::PostNorm(_) | Self::FinalNorm | Self::DenseBias(_) => {
                vec![hidden]
            }
            Self::Qkv(_) => vec![config.qkv_size(), hidden],
            Self::QkvBias(_) => vec![config.qkv_size()],
            Self::Dense(_) => vec![hidden, config.query_size()],
            Self::MlpFc(_) | Self::MlpGate(_) => vec![config.intermediate_size, hidden],
            Self::MlpProj(_) => vec![hidden, config.intermediate_size],
        }
    }

    /// The parts that sources may store separately, in the order of their rows.
    pub const fn parts(self) -> &'static [Part] {
        match self {
            Self::Qkv(_) | Self::QkvBias(_) => &[Part::Query, Part::Key, Part::Value],
            _ => &[Part::Whole],
        }
    }

    /// Shape of one part.
    pub fn part_shape(self, part: Part, config: &ModelConfig) -> Vec<usize> {
        let mut shape = self.shape(config);
        match part {
            Part::Whole => {}
            Part::Query => shape[0] = config.query_size(),
            Part::Key | Part::Value => shape[0] = config.key_value_size(),
        }
        shape
    }

    /// Whether the weight is the right-hand side of a matrix product, which the CPU engine packs.
    pub const fn is_matmul(self) -> bool {
        matches!(
            self,
            Self::Qkv(_) | Self::Dense(_) | Self::MlpFc(_) | Self::MlpGate(_) | Self::MlpProj(_) | Self::LmHead
        )
    }
}

impl ModelConfig {
    /// Number of the model's parameters. A tied head is the embedding, so it is not counted again.
    pub fn parameters(&self) -> u64 {
        Weight::all(self)
            .into_iter()
            .filter(|weight| !(self.tie_word_embeddings && *weight == Weight::LmHead))
            .map(|weight| weight.shape(self).iter().map(|&dim| dim as u64).product::<u64>())
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model_config::tests::minitron;

    #[test]
    fn names_are_unique_and_count_layers_from_the_rank() {
        let mut config = minitron();
        config.attention_bias = true;
        let weights = Weight::all(&config);
        let names: std::collections::HashSet<_> = weights.iter().map(|weight| weight.name(0)).collect();
        assert_eq!(names.len(), weights.len());
        assert_eq!(weights.len(), 3 + 40 * 9);
        assert_eq!(Weight::MlpFc(13).name(10), "transformer.layers.3.mlp.fc.weight");
        let parts = weights.iter().flat_map(|weight| weight.parts().iter().map(|&part| weight.part_name(part, 0)));
        let parts: std::collections::HashSet<_> = parts.collect();
        assert_eq!(parts.len(), 3 + 40 * (9 + 2 * 2));
        assert_eq!(Weight::Qkv(13).part_name(Part::Value, 10), "transformer.layers.3.attention.v.weight");
    }

    #[test]
    fn parts_stack_to_the_whole() {
        let config = minitron();
        for weight in Weight::all(&config) {
            let rows: usize = weight.parts().iter().map(|&part| weight.part_shape(part, &config)[0]).sum();
            assert_eq!(rows, weight.shape(&config)[0]);
        }
        assert_eq!(Weight::Qkv(0).shape(&config), [6144, 4096]);
    }

    #[test]
    fn minitron_has_the_parameters_of_its_card() {
        let mut config = minitron();
        assert_eq!(config.parameters(), 8_414_105_600);
        config.tie_word_embeddings = true;
        assert_eq!(config.parameters(), 8_414_105_600 - 131_072 * 4096);
    }
}
