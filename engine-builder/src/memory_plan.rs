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

mod budget;
mod limits;
mod place;
#[cfg(test)]
mod tests;

use engine_format::manifest::Limits;
use engine_format::{Mapping, ModelConfig};

use crate::units::{bytes, count, counted};
use budget::Budget;
use limits::gpu_limits;

pub use budget::TOKENS_PER_BLOCK;
pub use limits::{LimitRequest, cpu_limits};
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
