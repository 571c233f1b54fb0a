//! Limits of an engine: those that were asked for, and the choice of the others.

use engine_format::manifest::Limits;
use engine_format::{Mapping, ModelConfig, WeightType};

use super::budget::Budget;
use super::place::Place;

/// Largest `max_batch_size` that is chosen for a GPU, and its `max_num_tokens`: TensorRT-LLM's own defaults.
const GPU_MAX_BATCH_SIZE: usize = 2048;
const GPU_MAX_NUM_TOKENS: usize = 8192;

/// `max_batch_size` and `max_num_tokens` of the CPU engine.
const CPU_MAX_BATCH_SIZE: usize = 64;
const CPU_MAX_NUM_TOKENS: usize = 2048;

/// Limits that were asked for; what is absent is chosen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LimitRequest {
    /// Tokens of one sequence, prompt included.
    pub max_seq_len: Option<usize>,
    /// Sequences in one step.
    pub max_batch_size: Option<usize>,
    /// Tokens in one step.
    pub max_num_tokens: Option<usize>,
}

/// What an engine's memory depends on; all but limits and weights is of GPU engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineRequest {
    /// Limits.
    pub limits: LimitRequest,
    /// Beams of one request at most.
    pub max_beam_width: usize,
    /// Tokens of the step that one optimization profile is made for; `None` for several profiles.
    pub opt_num_tokens: Option<usize>,
    /// Whether there are logits of every token of a prompt.
    pub gather_context_logits: bool,
    /// What a CPU engine's matrices are stored as.
    pub weights: WeightType,
}

impl From<LimitRequest> for EngineRequest {
    fn from(limits: LimitRequest) -> Self {
        Self {
            limits,
            max_beam_width: 1,
            opt_num_tokens: None,
            gather_context_logits: false,
            weights: WeightType::Bf16,
        }
    }
}

/// The CPU engine's limits: what was asked for, else the model's positions, 64 sequences and 2048 tokens, each moved as
/// far as the other asks for it (a step has at least one token of each sequence).
pub fn cpu_limits(config: &ModelConfig, request: LimitRequest) -> Limits {
    let max_num_tokens = request.max_num_tokens.unwrap_or(CPU_MAX_NUM_TOKENS.max(request.max_batch_size.unwrap_or(0)));
    Limits {
        max_seq_len: request.max_seq_len.unwrap_or(config.max_position_embeddings),
        max_batch_size: request.max_batch_size.unwrap_or(CPU_MAX_BATCH_SIZE.min(max_num_tokens)),
        max_num_tokens,
    }
}

/// The part of what weights, reserve and a step's tokens leave that the logits of `max_batch_size` sequences may take: 1 / 32.
const LOGITS_PART: u64 = 32;

/// A GPU engine's limits: what was asked for, else 8192 tokens, the longest sequence that fits, and the largest power of two of
/// sequences, at most 2048, whose logits leave 31 / 32 of the memory to the KV cache. How many sequences run at once is for their
/// lengths to decide, at run time; a limit that counted full-length ones would forbid all others. Where nothing fits, what would
/// be best if it did.
pub(super) fn gpu_limits(config: &ModelConfig, mapping: Mapping, place: &Place, request: EngineRequest) -> Limits {
    let asked = request.limits;
    let max_num_tokens = asked.max_num_tokens.unwrap_or(GPU_MAX_NUM_TOKENS.max(asked.max_batch_size.unwrap_or(0)));
    let budget = |max_seq_len, max_batch_size| {
        let limits = Limits { max_seq_len, max_batch_size, max_num_tokens };
        Budget::new(config, mapping, place, limits, request)
    };
    let positions = config.max_position_embeddings;
    let max_seq_len = asked.max_seq_len.unwrap_or_else(|| {
        let smallest_batch = budget(positions, asked.max_batch_size.unwrap_or(1));
        match smallest_batch.longest(positions as u64) {
            0 => positions,
            longest => longest as usize,
        }
    });
    let max_batch_size = asked.max_batch_size.unwrap_or_else(|| {
        let left = budget(max_seq_len, 0).free();
        let may_have = |&size: &usize| {
            let budget = budget(max_seq_len, size);
            size <= max_num_tokens
                && left - budget.free() <= left / LOGITS_PART
                && budget.sequences(max_seq_len as u64) > 0
        };
        let powers_of_two = std::iter::successors(Some(GPU_MAX_BATCH_SIZE), |&size| Some(size / 2));
        powers_of_two.take_while(|&size| size > 1).find(may_have).unwrap_or(1)
    });
    Limits { max_seq_len, max_batch_size, max_num_tokens }
}
