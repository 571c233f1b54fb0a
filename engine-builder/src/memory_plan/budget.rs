//! What one rank's memory goes to: weights, activations, reserve, KV cache.

use std::path::Path;

use engine_format::manifest::Limits;
use engine_format::{Mapping, ModelConfig, WeightType, bf16, shape};

use super::limits::EngineRequest;
use super::place::{Executor, Place};
use crate::compile::cpu;

/// Tokens of one block of the KV cache.
pub const TOKENS_PER_BLOCK: u64 = 32;

/// Percentage of the free memory that the KV cache gets.
const KV_CACHE_PERCENT: u64 = 90;

const MIB: u64 = 1 << 20;

/// Allowance for the CUDA context, TensorRT, cuBLAS and the attention plugin's workspace. Not measured.
pub(super) const GPU_RESERVE: u64 = 1536 * MIB;

/// Allowance for NCCL's buffers when there is more than one rank. Not measured.
const NCCL_RESERVE: u64 = 512 * MIB;

/// Allowance for the CPU engine's tables, threads and the tokenizer. Not measured.
const CPU_RESERVE: u64 = 256 * MIB;

/// Memory of one rank and what takes it, in bytes.
pub(super) struct Budget {
    memory: u64,
    pub(super) weights: u64,
    pub(super) activations: u64,
    pub(super) context_logits: ContextLogits,
    pub(super) reserve: u64,
    pub(super) kv_bytes_per_token: u64,
    /// The most blocks that one sequence holds, while its prompt is computed and afterwards; `None` without a sliding window.
    max_blocks: Option<(u64, u64)>,
}

impl Budget {
    pub(super) fn new(
        config: &ModelConfig,
        mapping: Mapping,
        place: &Place,
        limits: Limits,
        request: EngineRequest,
    ) -> Self {
        let reserve = match place.executor {
            Executor::Cpu => CPU_RESERVE,
            Executor::TensorRtLlm if mapping.world_size() > 1 => GPU_RESERVE + NCCL_RESERVE,
            Executor::TensorRtLlm => GPU_RESERVE,
        };
        let blocks = |tokens: u64| tokens.div_ceil(TOKENS_PER_BLOCK) + 1;
        Self {
            memory: place.memory_bytes,
            weights: weights_bytes(config, mapping, place.executor, request.weights),
            activations: activation_bytes(config, mapping, place.executor, limits, request.max_beam_width),
            context_logits: match request.gather_context_logits && place.executor == Executor::TensorRtLlm {
                true => context_logits(config, mapping, limits),
                false => ContextLogits::default(),
            },
            reserve,
            kv_bytes_per_token: mapping.kv_bytes_per_token(config) as u64,
            max_blocks: config.sliding_window.map(|window| window as u64).map(|window| match place.executor {
                // The window of the first token of a chunk, and the chunk.
                Executor::Cpu => (blocks(window - 1 + limits.max_num_tokens as u64 - 1), blocks(window - 1)),
                Executor::TensorRtLlm => (blocks(window), blocks(window)),
            }),
        }
    }

    /// Everything but the KV cache.
    fn fixed(&self) -> u64 {
        let logits = self.context_logits.engine.saturating_add(self.context_logits.runtime);
        self.weights.saturating_add(self.activations).saturating_add(self.reserve).saturating_add(logits)
    }

    /// Bytes that are left when everything but the KV cache is there.
    pub(super) fn free(&self) -> u64 {
        self.memory.saturating_sub(self.fixed())
    }

    /// Bytes that the KV cache gets of what is left.
    pub(super) fn kv_cache(&self) -> u64 {
        (u128::from(self.free()) * u128::from(KV_CACHE_PERCENT) / 100) as u64
    }

    /// The part of the memory that is free when the engine is loaded which the KV cache may take without taking the runtime's
    /// buffer of context logits, in hundredths, where that is less than the runtime takes by itself.
    pub(super) fn smaller_cache_percent(&self) -> Option<u64> {
        let free = u128::from(self.free()) + u128::from(self.context_logits.runtime);
        let percent = (u128::from(self.kv_cache()) * 100).checked_div(free)? as u64;
        (free * u128::from(100 - KV_CACHE_PERCENT) < u128::from(self.context_logits.runtime) * 100).then_some(percent)
    }

    fn block_bytes(&self) -> u64 {
        self.kv_bytes_per_token * TOKENS_PER_BLOCK
    }

    /// Blocks of one sequence of `length` tokens, while its prompt is computed and afterwards.
    fn blocks(&self, length: u64) -> (u64, u64) {
        let all = length.div_ceil(TOKENS_PER_BLOCK).max(1);
        self.max_blocks.map_or((all, all), |(context, generation)| (all.min(context), all.min(generation)))
    }

    /// Sequences of `length` tokens that fit at once, one of them with its prompt to be computed.
    pub(super) fn sequences(&self, length: u64) -> u64 {
        let (context, generation) = self.blocks(length);
        let blocks = self.kv_cache() / self.block_bytes();
        blocks.checked_sub(context).map_or(0, |rest| 1 + rest / generation)
    }

    /// The longest sequence that fits alone, at most `limit` tokens.
    pub(super) fn longest(&self, limit: u64) -> u64 {
        if self.sequences(limit) > 0 {
            return limit;
        }
        // The cache is smaller than what a window bounds, where there is one, so the cache alone decides.
        (self.kv_cache() / self.block_bytes() * TOKENS_PER_BLOCK).min(limit)
    }

    /// Bytes that are lacking before one sequence of `length` tokens fits.
    pub(super) fn missing(&self, length: u64) -> u64 {
        let cache = u128::from(self.blocks(length).0) * u128::from(self.block_bytes());
        let free_before_cache = (cache * 100).div_ceil(u128::from(KV_CACHE_PERCENT));
        let needed = u128::from(self.fixed()) + free_before_cache;
        u64::try_from(needed.saturating_sub(u128::from(self.memory))).unwrap_or(u64::MAX)
    }
}

/// Bytes of weights of the rank that holds most.
fn weights_bytes(config: &ModelConfig, mapping: Mapping, executor: Executor, weights: WeightType) -> u64 {
    if executor == Executor::Cpu {
        // Only a size beyond the address space is an error.
        return cpu::weights_bytes(config, Path::new(""), weights).unwrap_or(u64::MAX);
    }
    let rank_bytes = |pp_rank, tp_rank| -> u64 {
        let weights = mapping.weights(config, pp_rank).into_iter();
        weights
            .map(|weight| {
                let dims = mapping.shard(config, weight, tp_rank).shape;
                shape::bytes(&dims, size_of::<bf16>()).map_or(u64::MAX, |bytes| bytes as u64)
            })
            .fold(0, u64::saturating_add)
    };
    // Tensor-parallel ranks of a stage hold equal shapes.
    (0..mapping.pp_size).map(|pp_rank| rank_bytes(pp_rank, 0)).max().unwrap_or(0)
}

/// What the logits of every token of a step take, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ContextLogits {
    /// In the engine: the bfloat16 product, and where ranks share a layer the gathered columns and their two orders.
    pub(super) engine: u64,
    /// In the runtime, from the first long prompt on: float32.
    pub(super) runtime: u64,
}

fn context_logits(config: &ModelConfig, mapping: Mapping, limits: Limits) -> ContextLogits {
    let elements = (limits.max_num_tokens as u64).saturating_mul(mapping.padded_vocab_size(config) as u64);
    let copies = if mapping.tp_size > 1 { 2 } else { 1 };
    ContextLogits { engine: elements.saturating_mul(2 * copies), runtime: elements.saturating_mul(4) }
}

/// Bytes of activations, by the formula of [`memory_plan`](super).
fn activation_bytes(
    config: &ModelConfig,
    mapping: Mapping,
    executor: Executor,
    limits: Limits,
    max_beam_width: usize,
) -> u64 {
    let ranks = mapping.tp_size as u64;
    let kv_heads = (config.num_key_value_heads / mapping.tp_size).max(1) as u64;
    let query = config.query_size() as u64 / ranks;
    let qkv = query + 2 * kv_heads * config.head_size as u64;
    let intermediate = config.intermediate_size as u64 / ranks;
    let element = match executor {
        Executor::TensorRtLlm => 2,
        Executor::Cpu => 4,
    };
    let hidden = config.hidden_size as u64;
    let per_token = 4 * hidden + element * (2 * hidden + (qkv + query).max(2 * intermediate));
    let per_sequence = 2 * 4 * mapping.padded_vocab_size(config) as u64;
    (limits.max_num_tokens as u64).saturating_mul(per_token).saturating_add(
        (limits.max_batch_size as u64).saturating_mul(max_beam_width as u64).saturating_mul(per_sequence),
    )
}
