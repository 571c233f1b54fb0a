//! What a network is made for, beside the model and its split over ranks.

use engine_format::manifest::Limits;

use super::lora::LoraOptions;
use super::profiles::token_ranges;
use super::tensor::DataType;

/// Tokens of a block of the KV cache.
pub const TOKENS_PER_BLOCK: usize = 32;

/// A release of TensorRT-LLM whose plugins are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Release {
    /// 1.0.
    V1_0,
    /// 1.1.
    V1_1,
    /// 1.2, the last one that has TensorRT engines.
    V1_2,
}

impl Release {
    /// Every release, oldest first.
    pub const ALL: [Self; 3] = [Self::V1_0, Self::V1_1, Self::V1_2];

    /// Major and minor version.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V1_0 => "1.0",
            Self::V1_1 => "1.1",
            Self::V1_2 => "1.2",
        }
    }

    /// The release of a version such as `1.2.1`.
    pub fn of_version(version: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|release| {
            let rest = version.strip_prefix(release.name());
            rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
        })
    }
}

/// Type of the residual stream, to which attention and MLP are added.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ResidualDtype {
    /// fp32: it is never rounded between the embedding and the final norm, but between pipeline ranks.
    #[default]
    Float32,
    /// bfloat16, as upstream's is: half of its bytes, rounded twice in each layer.
    Bfloat16,
}

impl ResidualDtype {
    /// As a tensor's type.
    pub const fn data_type(self) -> DataType {
        match self {
            Self::Float32 => DataType::Float,
            Self::Bfloat16 => DataType::Bf16,
        }
    }
}

/// What a network is made for, beside the model and its split.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetworkOptions {
    /// The release of TensorRT-LLM whose plugins it uses.
    pub release: Release,
    /// Length of a sequence, sequences and tokens of a step, at most.
    pub limits: Limits,
    /// Beams of one request at most.
    pub max_beam_width: usize,
    /// Tokens of the step that TensorRT chooses tactics for, in one optimization profile; `None` for several profiles.
    pub opt_num_tokens: Option<usize>,
    /// Whether there are logits of every token of the prompt, not of its last one only.
    pub gather_context_logits: bool,
    /// Whether the runtime keeps the logits of generated tokens; the network computes them in any case.
    pub gather_generation_logits: bool,
    /// Whether matrix products are TensorRT-LLM's Gemm plugin instead of TensorRT's operation.
    pub gemm_plugin: bool,
    /// Whether `mlp.gate` follows `mlp.fc` in each layer of the rank's file, so that both are one matrix.
    pub fused_mlp: bool,
    /// Type of the residual stream.
    pub residual_dtype: ResidualDtype,
    /// What LoRA adapters may change; `None` for an engine without.
    pub lora: Option<LoraOptions>,
}

impl NetworkOptions {
    /// These limits, and nothing else asked for.
    pub const fn new(release: Release, limits: Limits) -> Self {
        Self {
            release,
            limits,
            max_beam_width: 1,
            opt_num_tokens: None,
            gather_context_logits: false,
            gather_generation_logits: false,
            gemm_plugin: false,
            fused_mlp: true,
            residual_dtype: ResidualDtype::Float32,
            lora: None,
        }
    }

    /// Tokens of a step at most: no more than all sequences have.
    pub fn max_num_tokens(&self) -> usize {
        self.limits.max_num_tokens.min(self.limits.max_seq_len.saturating_mul(self.limits.max_batch_size))
    }

    /// Least, best and greatest number of tokens of a step in each optimization profile.
    pub fn token_ranges(&self) -> Vec<[usize; 3]> {
        token_ranges(self.opt_num_tokens, self.max_num_tokens())
    }
}
