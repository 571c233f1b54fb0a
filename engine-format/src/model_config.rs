//! The one description of a decoder. Whatever a source calls its fields, it becomes this, once.

use std::ops::RangeInclusive;
use std::path::Path;

use crate::error::{FormatError, Result};
use crate::json::MAX_DIMENSION;
use crate::rope::Rope;

/// Epsilons of RMSNorm that are accepted; fp32 holds them, and nothing useful lies outside.
pub const NORM_EPSILONS: RangeInclusive<f64> = 1e-30..=1.0;

/// A model family. Families are rows of a table, not copies of code: all of them run through one decoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// `MistralForCausalLM`: Mistral-7B, Mistral-NeMo-12B, Mistral-NeMo-Minitron-8B.
    Mistral,
    /// `LlamaForCausalLM`: Llama 2 and 3.
    Llama,
}

impl Architecture {
    /// Every family.
    pub const ALL: [Self; 2] = [Self::Mistral, Self::Llama];

    /// The name in `architectures` (Transformers) and `architecture` (TensorRT-LLM).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mistral => "MistralForCausalLM",
            Self::Llama => "LlamaForCausalLM",
        }
    }

    /// The family's window when `config.json` does not say: Transformers' `MistralConfig` defaults to 4096 where the
    /// field is absent (null means none), `LlamaConfig` has no window.
    pub const fn default_sliding_window(self) -> Option<usize> {
        match self {
            Self::Mistral => Some(4096),
            Self::Llama => None,
        }
    }

    /// The family called `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|architecture| architecture.name() == name)
    }

    /// Every family's name, for messages.
    pub fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }
}

/// Everything that the decoder's mathematics depends on.
///
/// A value that passed [`ModelConfig::validate`] is consistent: heads divide, products of dimensions fit.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The family.
    pub architecture: Architecture,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Decoder layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; divides the query heads.
    pub num_key_value_heads: usize,
    /// Width of one head; even. `num_attention_heads * head_size` need not be `hidden_size`.
    pub head_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Rows of the embedding and of the head.
    pub vocab_size: usize,
    /// Positions that the model was made for.
    pub max_position_embeddings: usize,
    /// Epsilon of RMSNorm, inside the square root.
    pub norm_epsilon: f32,
    /// Whether the query, key, value and output projections have biases.
    pub attention_bias: bool,
    /// Whether the head is the embedding.
    pub tie_word_embeddings: bool,
    /// Query i sees keys i-W+1 to i, itself included, in every layer; `None` is full causal attention.
    pub sliding_window: Option<usize>,
    /// Rotary position embedding.
    pub rope: Rope,
}

impl ModelConfig {
    /// Columns of the query projection's output.
    pub const fn query_size(&self) -> usize {
        self.num_attention_heads * self.head_size
    }

    /// Columns of the key projection's output, and of the value projection's.
    pub const fn key_value_size(&self) -> usize {
        self.num_key_value_heads * self.head_size
    }

    /// Columns of the fused QKV projection's output.
    pub const fn qkv_size(&self) -> usize {
        self.query_size() + 2 * self.key_value_size()
    }

    /// Bytes of the KV cache of one token in bfloat16, over all layers.
    pub const fn kv_bytes_per_token(&self) -> usize {
        2 * 2 * self.key_value_size() * self.num_hidden_layers
    }

    /// Checks what one field alone cannot show. `path` is the file that the configuration came from.
    ///
    /// # Errors
    /// [`FormatError::Field`] that names the field which contradicts another.
    pub fn validate(&self, path: &Path) -> Result<()> {
        let field = |name: &str, problem: String| Err(FormatError::field(path, name, problem));
        let dimensions = [
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_size),
            ("intermediate_size", self.intermediate_size),
            ("vocab_size", self.vocab_size),
        ];
        for (name, value) in dimensions {
            if !(1..=MAX_DIMENSION).contains(&value) {
                return field(name, format!("must be from 1 to {MAX_DIMENSION}, not {value}"));
            }
        }
        if self.num_hidden_layers > 4096 {
            return field("num_hidden_layers", format!("must be at most 4096, not {}", self.num_hidden_layers));
        }
        if !self.num_attention_heads.is_multiple_of(self.num_key_value_heads) {
            return field(
                "num_key_value_heads",
                format!(
                    "({}) must divide num_attention_heads ({})",
                    self.num_key_value_heads, self.num_attention_heads
                ),
            );
        }
        if !self.head_size.is_multiple_of(2) {
            return field("head_dim", format!("must be even for rotary position embedding, not {}", self.head_size));
        }
        if self.query_size() > MAX_DIMENSION {
            let heads = self.num_attention_heads;
            return field("head_dim", format!("times num_attention_heads ({heads}) must be at most {MAX_DIMENSION}"));
        }
        if !(self.norm_epsilon > 0.0 && self.norm_epsilon <= 1.0) {
            return field("rms_norm_eps", format!("must be above 0 and at most 1, not {}", self.norm_epsilon));
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::rope::RopeScaling;

    /// Mistral-NeMo-Minitron-8B-Base.
    pub(crate) fn minitron() -> ModelConfig {
        ModelConfig {
            architecture: Architecture::Mistral,
            hidden_size: 4096,
            num_hidden_layers: 40,
            num_attention_heads: 32,
            num_key_value_heads: 8,
            head_size: 128,
            intermediate_size: 11520,
            vocab_size: 131_072,
            max_position_embeddings: 8192,
            norm_epsilon: 1e-5,
            attention_bias: false,
            tie_word_embeddings: false,
            sliding_window: None,
            rope: Rope { theta: 1e6, scaling: RopeScaling::None },
        }
    }

    #[test]
    fn minitron_is_valid() {
        let config = minitron();
        config.validate(Path::new("config.json")).unwrap();
        assert_eq!(config.kv_bytes_per_token(), 163_840);
    }

    #[test]
    fn contradictions_are_named() {
        let check = |change: fn(&mut ModelConfig), field: &str| {
            let mut config = minitron();
            change(&mut config);
            let error = config.validate(Path::new("config.json")).unwrap_err().to_string();
            assert!(error.contains(&format!("`{field}`")), "{error}");
        };
        check(|c| c.num_key_value_heads = 5, "num_key_value_heads");
        check(|c| c.num_hidden_layers = 0, "num_hidden_layers");
        check(|c| c.head_size = 127, "head_dim");
        check(|c| c.head_size = MAX_DIMENSION, "head_dim");
        check(|c| c.vocab_size = usize::MAX, "vocab_size");
        check(|c| c.norm_epsilon = 0.0, "rms_norm_eps");
        check(|c| c.norm_epsilon = f32::INFINITY, "rms_norm_eps");
        check(|c| c.norm_epsilon = f32::NAN, "rms_norm_eps");
    }
}
