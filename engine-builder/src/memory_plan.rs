//! What fits on a target: weights, KV cache, activations, and the largest batches and sequences that are left room for.
//!
//! A plan is arithmetic on `config.json` and a memory size; it needs neither the weights nor the GPU. Per rank:
//!
//! ```text
//! weights       every tensor of the rank, bfloat16 (on the CPU: the size of the packed file)
//! activations   max_num_tokens * (4 * hidden + element * (2 * hidden + max(qkv + query, 2 * intermediate)))
//!               + max_batch_size * max_beam_width * padded vocabulary * 4 * 2
//! context logits, with --gather-context-logits: max_num_tokens * padded vocabulary * (2 in the engine, 4 more with several
//!               tensor-parallel ranks, and 4 in the runtime)
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

mod budget;
mod limits;
mod place;
#[cfg(test)]
pub(crate) mod tests;

use engine_format::manifest::Limits;
use engine_format::{Mapping, ModelConfig, WeightType};

use crate::network::{NetworkOptions, Release};
use crate::units::{bytes, count, counted};
use budget::Budget;
use limits::gpu_limits;

pub use budget::TOKENS_PER_BLOCK;
pub use limits::{EngineRequest, LimitRequest, cpu_limits};
pub use place::{Executor, Place};

/// Largest tensor-parallel size that is suggested: the GPUs of one NVLink domain of most machines.
const MAX_SUGGESTED_TP: usize = 8;

/// The memory plan of one model on one target. Everything is per rank, for the rank that needs most.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryPlan {
    /// Where.
    pub place: Place,
    /// How the model is split.
    pub mapping: Mapping,
    /// The limits asked for or chosen.
    pub limits: Limits,
    /// What matrices are stored as.
    pub weight_type: WeightType,
    /// Bytes of weights.
    pub weights_bytes: u64,
    /// Bytes of activations at these limits.
    pub activation_bytes: u64,
    /// Bytes that logits of every token of a step take in the engine; 0 unless they were asked for.
    pub context_logits_engine_bytes: u64,
    /// Bytes that they take in the runtime, from the first long prompt on, beside the KV cache.
    pub context_logits_runtime_bytes: u64,
    /// Where the runtime would give so much to the KV cache that they do not fit: the percentage of the free memory that it may
    /// have.
    pub smaller_cache_percent: Option<u64>,
    /// Least, best and greatest number of tokens of a step in each of the engine's optimization profiles; none on the CPU.
    pub token_ranges: Vec<[usize; 3]>,
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
    pub fn new(config: &ModelConfig, mapping: Mapping, place: Place, request: EngineRequest) -> Self {
        let limits = match place.executor {
            Executor::Cpu => cpu_limits(config, request.limits),
            Executor::TensorRtLlm => gpu_limits(config, mapping, &place, request),
        };
        let budget = Budget::new(config, mapping, &place, limits, request);
        let missing_bytes = budget.missing(limits.max_seq_len as u64);
        let smallest_tp_size = if missing_bytes > 0 && place.executor == Executor::TensorRtLlm {
            (mapping.tp_size + 1..=MAX_SUGGESTED_TP).find(|&tp_size| {
                let wider = Mapping { tp_size, ..mapping };
                wider.validate(config).is_ok()
                    && Budget::new(config, wider, &place, limits, request).missing(limits.max_seq_len as u64) == 0
            })
        } else {
            None
        };
        Self {
            mapping,
            limits,
            weight_type: match place.executor {
                Executor::Cpu => request.weights,
                Executor::TensorRtLlm => WeightType::Bf16,
            },
            weights_bytes: budget.weights,
            activation_bytes: budget.activations,
            context_logits_engine_bytes: budget.context_logits.engine,
            context_logits_runtime_bytes: budget.context_logits.runtime,
            smaller_cache_percent: budget.smaller_cache_percent(),
            token_ranges: match place.executor {
                Executor::Cpu => Vec::new(),
                Executor::TensorRtLlm => NetworkOptions {
                    opt_num_tokens: request.opt_num_tokens,
                    ..NetworkOptions::new(Release::V1_2, limits)
                }
                .token_ranges(),
            },
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
                "fits: {} of {} at once, or one of {}",
                counted(self.largest_batch, "sequence"),
                counted(limits.max_seq_len as u64, "token"),
                count(self.longest_sequence)
            );
            if self.largest_batch < limits.max_batch_size as u64 {
                text.push_str("; more of the batch wait until the KV cache has room");
            }
            return text;
        }
        let mut text = format!(
            "does not fit: {} are missing for one sequence of {}",
            bytes(self.missing_bytes),
            counted(limits.max_seq_len as u64, "token")
        );
        let mut ways = Vec::new();
        if let Some(tp_size) = self.smallest_tp_size {
            ways.push(format!("`tp_size` {tp_size}"));
        }
        if self.longest_sequence > 0 {
            ways.push(format!("`max_seq_len` {}", self.longest_sequence));
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

    /// What logits of every token of a prompt cost, in a sentence or two.
    pub fn context_logits_note(&self) -> String {
        let mut text = format!(
            "`gather_context_logits`: TensorRT-LLM reuses no KV-cache block of any request with this engine, and the head is computed for every token of a prompt; logits of a step take {} in the engine and {} in the runtime",
            bytes(self.context_logits_engine_bytes),
            bytes(self.context_logits_runtime_bytes)
        );
        if let Some(percent) = self.smaller_cache_percent {
            text.push_str(&format!(
                "; for these, run it with `kv_cache.free_memory_fraction` 0.{percent:02}, or build with a smaller `max_num_tokens`"
            ));
        }
        text
    }

    /// Tokens that the KV cache holds, a multiple of a block.
    pub const fn kv_cache_tokens(&self) -> u64 {
        self.kv_cache_bytes / (self.kv_bytes_per_token * TOKENS_PER_BLOCK) * TOKENS_PER_BLOCK
    }
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
