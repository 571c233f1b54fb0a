//! The limits of an executor and the size of its KV cache, from what the engine allows, the configuration asks for and the
//! memory holds.

use crate::cpu_model::CpuModelError;
use crate::executor::{KvCacheConfig, LimitError, MAX_TOKENS_PER_BLOCK};

/// Whether the settings leave at least one block, of a size that makes sense.
pub(super) fn check_blocks(config: &KvCacheConfig) -> Result<(), CpuModelError> {
    let tokens_per_block = config.tokens_per_block;
    if tokens_per_block == 0 || tokens_per_block > MAX_TOKENS_PER_BLOCK {
        let (name, limit) = ("tokens_per_block", MAX_TOKENS_PER_BLOCK);
        return Err(LimitError { name, asked: tokens_per_block, limit }.into());
    }
    match config.max_tokens.filter(|&tokens| tokens < tokens_per_block) {
        Some(tokens) => Err(CpuModelError::KvCacheTokens { tokens, tokens_per_block }),
        None => Ok(()),
    }
}

/// Blocks of the KV cache: what the configuration asks for, or the `most` that the limits can use; at most what fits into free
/// memory beside `weights` bytes of weights, at least one.
pub(super) fn num_blocks(config: &KvCacheConfig, most: usize, bytes_per_token: usize, weights: u64) -> usize {
    let tokens_per_block = config.tokens_per_block;
    let affordable = free_memory().map_or(usize::MAX, |free| {
        affordable(free, weights, config.free_memory_fraction) / bytes_per_token / tokens_per_block
    });
    let wanted = match config.max_tokens {
        Some(tokens) => tokens.div_ceil(tokens_per_block),
        None => most,
    };
    wanted.min(affordable).max(1)
}

/// Bytes that the cache may take: a share of what is free once the weights, which are mapped, are in memory. Where they
/// fill it, an eighth is taken all the same, at the price of reading weights again.
fn affordable(free: u64, weights: u64, fraction: f64) -> usize {
    (free.saturating_sub(weights).max(free / 8) as f64 * fraction) as usize
}

/// Bytes that the system can give without swapping: `MemAvailable` of `/proc/meminfo`; `None` where there is none.
fn free_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
