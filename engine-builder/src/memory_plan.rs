//! What fits on a target: weights, KV cache, activations, and the largest batches and sequences that are left room for.
//!
//! A plan is arithmetic on `config.json` and a memory size; it needs neither the weights nor the GPU. Per rank:
//!
//! ```text
//! weights       every tensor of the rank, bfloat16 (on the CPU: the size of the packed file)
//! activations   max_num_tokens * (4 * hidden + element * (2 * hidden + max(qkv + query, 2 * intermediate)))
//!               + max_batch_size * padded vocabulary * 4 * 2
//! reserve       an allowance for what the runtime takes besides
//! KV cache      90 % of what is left
//! ```
//!
//! Activations are what is alive at once in one layer: the residual stream (float32), its normalized copy and a projection's
//! output, and either attention's input and output or the two halves of the MLP, whichever is larger; then a row of
//! float32 logits per sequence and the sampler's copy. `element` is 2 bytes on a GPU (bfloat16) and 4 on the CPU
//! (float32). TensorRT's own number depends on its tactics and is known only after the engine is built, so this is an
//! estimate.
//!
//! Sources: TensorRT-LLM's documentation, "Memory Usage of TensorRT-LLM" (what there is to count) and `KvCacheConfig`
//! (`free_gpu_memory_fraction` is 0.9 of the memory that is free once the engine is loaded); `batch_manager/
//! kvCacheManager.h` (blocks of a sequence under a sliding window: the window's and one more); `BuildConfig` (2048
//! sequences and 8192 tokens by default).
#![forbid(unsafe_code)]

use std::path::Path;

use engine_format::manifest::Limits;
use engine_format::{Mapping, ModelConfig, bf16, shape};

use crate::compile::cpu;
use crate::units::{bytes, count};

/// Tokens of one block of the KV cache.
pub const TOKENS_PER_BLOCK: u64 = 32;

/// Percentage of the free memory that the KV cache gets.
const KV_CACHE_PERCENT: u64 = 90;

const MIB: u64 = 1 << 20;

/// Allowance for the CUDA context, TensorRT, cuBLAS and the attention plugin's workspace. Not measured.
const GPU_RESERVE: u64 = 1536 * MIB;

/// Allowance for NCCL's buffers when there is more than one rank. Not measured.
const NCCL_RESERVE: u64 = 512 * MIB;

/// Allowance for the CPU engine's tables, threads and the tokenizer. Not measured.
const CPU_RESERVE: u64 = 256 * MIB;

/// Largest `max_batch_size` that is chosen for a GPU, and its `max_num_tokens`: TensorRT-LLM's own defaults.
const GPU_MAX_BATCH_SIZE: usize = 2048;
const GPU_MAX_NUM_TOKENS: usize = 8192;

/// `max_batch_size` and `max_num_tokens` of the CPU engine.
const CPU_MAX_BATCH_SIZE: usize = 64;
const CPU_MAX_NUM_TOKENS: usize = 2048;

/// Largest tensor-parallel size that is suggested: the GPUs of one NVLink domain of most machines.
const MAX_SUGGESTED_TP: usize = 8;

/// Who runs the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Executor {
    /// TensorRT-LLM on a GPU: bfloat16 activations, a KV cache that drops what a sliding window has passed.
    TensorRtLlm,
    /// The embedded CPU executor: float32 activations, a KV cache that keeps whole sequences.
    Cpu,
}

/// Where the engine would run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The target's name, as `--gpu` takes it.
    pub target: String,
    /// What the memory belongs to, for people.
    pub description: String,
    /// Memory of one rank in bytes.
    pub memory_bytes: u64,
    /// Where the figure is from.
    pub source: String,
    /// Who runs the engine there.
    pub executor: Executor,
}

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

/// The memory plan of one model on one target. Everything is per rank, for the rank that needs most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Where.
    pub place: Place,
    /// How the model is split.
    pub mapping: Mapping,
    /// The limits asked for or chosen.
    pub limits: Limits,
    /// Bytes of weights.
    pub weights_bytes: u64,
    /// Bytes of activations at these limits.
    pub activation_bytes: u64,
    /// Bytes set aside for the runtime.
    pub reserve_bytes: u64,
    /// Bytes of keys and values of one token.
    pub kv_bytes_per_token: u64,
    /// Bytes that the KV cache gets.
    pub kv_cache_bytes: u64,
    /// Bytes that are lacking before one sequence of `max_seq_len` tokens can run; 0 when it fits.
    pub missing_bytes: u64,
    /// Largest number of sequences of `max_seq_len` tokens at once.
    pub largest_batch: u64,
    /// Longest sequence that fits alone, at most `max_position_embeddings`; 0 when none does.
    pub longest_sequence: u64,
    /// For some lengths up to `max_position_embeddings`: how many sequences of that length fit at once.
    pub sequences_by_length: Vec<(u64, u64)>,
    /// When it does not fit on a GPU: the smallest larger `tp_size` up to 8 with which it would.
    pub smallest_tp_size: Option<usize>,
}

impl MemoryPlan {
    /// Plans `config`, split by `mapping` (which has to suit the model, see [`Mapping::validate`]), on `place`.
    pub fn new(config: &ModelConfig, mapping: Mapping, place: Place, request: LimitRequest) -> Self {
        let limits = match place.executor {
            Executor::Cpu => cpu_limits(config, request),
            Executor::TensorRtLlm => gpu_limits(config, mapping, &place, request),
        };
        let budget = Budget::new(config, mapping, &place, limits);
        let missing_bytes = budget.missing(limits.max_seq_len as u64);
        let smallest_tp_size = if missing_bytes > 0 && place.executor == Executor::TensorRtLlm {
            (mapping.tp_size + 1..=MAX_SUGGESTED_TP).find(|&tp_size| {
                let wider = Mapping { tp_size, ..mapping };
                wider.validate(config).is_ok()
                    && Budget::new(config, wider, &place, limits).missing(limits.max_seq_len as u64) == 0
            })
        } else {
            None
        };
        Self {
            mapping,
            limits,
            weights_bytes: budget.weights,
            activation_bytes: budget.activations,
            reserve_bytes: budget.reserve,
            kv_bytes_per_token: budget.kv_bytes_per_token,
            kv_cache_bytes: budget.kv_cache(),
            missing_bytes,
            largest_batch: budget.sequences(limits.max_seq_len as u64),
            longest_sequence: budget.longest(config.max_position_embeddings as u64),
            sequences_by_length: lengths(config, limits)
                .into_iter()
                .map(|length| (length, budget.sequences(length)))
                .collect(),
            smallest_tp_size,
            place,
        }
    }

    /// Whether at least one sequence of `max_seq_len` tokens can run.
    pub const fn fits(&self) -> bool {
        self.missing_bytes == 0
    }

    /// What fits, or what is missing and what to do.
    pub fn verdict(&self) -> String {
        let limits = self.limits;
        if self.fits() {
            let mut text = format!(
                "fits: {} sequences of {} tokens at once, or one of {}",
                count(self.largest_batch),
                count(limits.max_seq_len as u64),
                count(self.longest_sequence)
            );
            if self.largest_batch < limits.max_batch_size as u64 {
                text.push_str("; more of the batch wait until the KV cache has room");
            }
            return text;
        }
        let mut text = format!(
            "does not fit: {} are missing for one sequence of {} tokens",
            bytes(self.missing_bytes),
            count(limits.max_seq_len as u64)
        );
        let mut ways = Vec::new();
        if let Some(tp_size) = self.smallest_tp_size {
            ways.push(format!("--tp-size {tp_size}"));
        }
        if self.longest_sequence > 0 {
            ways.push(format!("--max-seq-len {}", self.longest_sequence));
        }
        match (ways.is_empty(), self.place.executor) {
            (false, _) => text.push_str(&format!("; it fits with {}", ways.join(" or "))),
            (true, Executor::Cpu) => text.push_str("; free memory or take a larger machine"),
            (true, Executor::TensorRtLlm) => {
                text.push_str("; take a GPU with more memory, lower limits, or more ranks");
            }
        }
        text
    }

    /// Tokens that the KV cache holds, a multiple of a block.
    pub const fn kv_cache_tokens(&self) -> u64 {
        self.kv_cache_bytes / (self.kv_bytes_per_token * TOKENS_PER_BLOCK) * TOKENS_PER_BLOCK
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

/// A GPU engine's limits: what was asked for, else 8192 tokens, the longest sequence that fits, and the largest power of
/// two of such sequences, at most 2048, that fits. Where nothing fits, what would be best if it did.
fn gpu_limits(config: &ModelConfig, mapping: Mapping, place: &Place, request: LimitRequest) -> Limits {
    let max_num_tokens = request.max_num_tokens.unwrap_or(GPU_MAX_NUM_TOKENS.max(request.max_batch_size.unwrap_or(0)));
    let budget = |max_batch_size| {
        let limits = Limits { max_seq_len: config.max_position_embeddings, max_batch_size, max_num_tokens };
        Budget::new(config, mapping, place, limits)
    };
    let max_seq_len = request.max_seq_len.unwrap_or_else(|| {
        let smallest = budget(request.max_batch_size.unwrap_or(1));
        match smallest.longest(config.max_position_embeddings as u64) {
            0 => config.max_position_embeddings,
            longest => longest as usize,
        }
    });
    let max_batch_size = request.max_batch_size.unwrap_or_else(|| {
        let powers = std::iter::successors(Some(GPU_MAX_BATCH_SIZE), |&size| Some(size / 2));
        powers
            .take_while(|&size| size > 1)
            .find(|&size| size <= max_num_tokens && budget(size).sequences(max_seq_len as u64) >= size as u64)
            .unwrap_or(1)
    });
    Limits { max_seq_len, max_batch_size, max_num_tokens }
}

/// Powers of two from 1024 below the model's positions, the positions themselves, and `max_seq_len`.
fn lengths(config: &ModelConfig, limits: Limits) -> Vec<u64> {
    let positions = config.max_position_embeddings as u64;
    let powers = std::iter::successors(Some(1024u64), |&length| length.checked_mul(2));
    let mut lengths: Vec<_> =
        powers.take_while(|&length| length < positions).chain([positions, limits.max_seq_len as u64]).collect();
    lengths.sort_unstable();
    lengths.dedup();
    lengths
}

/// Bytes of one rank, before anything is concluded from them.
struct Budget {
    memory: u64,
    weights: u64,
    activations: u64,
    reserve: u64,
    kv_bytes_per_token: u64,
    /// Most blocks that one sequence holds, under a window.
    most_blocks: Option<u64>,
}

impl Budget {
    fn new(config: &ModelConfig, mapping: Mapping, place: &Place, limits: Limits) -> Self {
        let (reserve, window) = match place.executor {
            Executor::Cpu => (CPU_RESERVE, None),
            Executor::TensorRtLlm if mapping.world_size() > 1 => (GPU_RESERVE + NCCL_RESERVE, config.sliding_window),
            Executor::TensorRtLlm => (GPU_RESERVE, config.sliding_window),
        };
        Self {
            memory: place.memory_bytes,
            weights: weights_bytes(config, mapping, place.executor),
            activations: activation_bytes(config, mapping, place.executor, limits),
            reserve,
            kv_bytes_per_token: kv_bytes_per_token(config, mapping),
            most_blocks: window.map(|window| (window as u64).div_ceil(TOKENS_PER_BLOCK) + 1),
        }
    }

    fn taken(&self) -> u64 {
        self.weights.saturating_add(self.activations).saturating_add(self.reserve)
    }

    fn kv_cache(&self) -> u64 {
        let free = self.memory.saturating_sub(self.taken());
        (u128::from(free) * u128::from(KV_CACHE_PERCENT) / 100) as u64
    }

    fn block_bytes(&self) -> u64 {
        self.kv_bytes_per_token * TOKENS_PER_BLOCK
    }

    /// Blocks of one sequence of `length` tokens.
    fn blocks(&self, length: u64) -> u64 {
        let blocks = length.div_ceil(TOKENS_PER_BLOCK).max(1);
        blocks.min(self.most_blocks.unwrap_or(blocks))
    }

    /// Sequences of `length` tokens that fit at once.
    fn sequences(&self, length: u64) -> u64 {
        self.kv_cache() / self.block_bytes() / self.blocks(length)
    }

    /// The longest sequence that fits alone, at most `most` tokens.
    fn longest(&self, most: u64) -> u64 {
        if self.sequences(most) > 0 {
            return most;
        }
        // A sequence that does not fit within its window is cut where the cache ends, as one without a window is.
        (self.kv_cache() / self.block_bytes() * TOKENS_PER_BLOCK).min(most)
    }

    /// Bytes that are lacking before one sequence of `length` tokens fits.
    fn missing(&self, length: u64) -> u64 {
        let cache = u128::from(self.blocks(length)) * u128::from(self.block_bytes());
        let free = (cache * 100).div_ceil(u128::from(KV_CACHE_PERCENT));
        let needed = u128::from(self.taken()) + free;
        u64::try_from(needed.saturating_sub(u128::from(self.memory))).unwrap_or(u64::MAX)
    }
}

/// Bytes of weights of the rank that holds most.
fn weights_bytes(config: &ModelConfig, mapping: Mapping, executor: Executor) -> u64 {
    if executor == Executor::Cpu {
        // Only a size beyond the address space is an error.
        return cpu::weights_bytes(config, Path::new("")).unwrap_or(u64::MAX);
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

/// Bytes of keys and values of one token on the rank with most layers; heads are repeated when ranks outnumber them.
fn kv_bytes_per_token(config: &ModelConfig, mapping: Mapping) -> u64 {
    let heads = (config.num_key_value_heads / mapping.tp_size).max(1) as u64;
    let layers = mapping.layers(config, 0).len() as u64;
    let keys_and_values = 2;
    let bf16_bytes = 2;
    keys_and_values * bf16_bytes * heads * config.head_size as u64 * layers
}

/// Bytes of activations, as the module's formula has it.
fn activation_bytes(config: &ModelConfig, mapping: Mapping, executor: Executor, limits: Limits) -> u64 {
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
    (limits.max_num_tokens as u64)
        .saturating_mul(per_token)
        .saturating_add((limits.max_batch_size as u64).saturating_mul(per_sequence))
}

#[cfg(test)]
#[path = "memory_plan_tests.rs"]
mod tests;
