//! How large the KV cache of an executor is, from what the limits can use, the configuration asks for and the memory holds.

use engine_format::error::counted;
use system::{Available, Machine, Promise};

use crate::cpu_model::{CpuModelError, MemoryError};
use crate::executor::{KvCacheConfig, LimitError, MAX_TOKENS_PER_BLOCK};

/// Whether the settings leave at least one block, of a size that makes sense.
pub(super) fn check_blocks(config: &KvCacheConfig, bytes_per_token: usize) -> Result<(), CpuModelError> {
    let tokens_per_block = config.tokens_per_block;
    if tokens_per_block == 0 || tokens_per_block > MAX_TOKENS_PER_BLOCK {
        let (name, limit) = ("tokens_per_block", MAX_TOKENS_PER_BLOCK);
        return Err(LimitError { name, asked: tokens_per_block, limit }.into());
    }
    if let Some(tokens) = config.max_tokens.filter(|&tokens| tokens < tokens_per_block) {
        return Err(CpuModelError::KvCacheTokens { tokens, tokens_per_block });
    }
    let block = bytes_per_token.saturating_mul(tokens_per_block);
    match config.max_bytes.filter(|&bytes| bytes < block) {
        Some(bytes) => Err(CpuModelError::KvCacheBytes { bytes, tokens_per_block, block }),
        None => Ok(()),
    }
}

/// What bounds the size of a KV cache.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum KvCacheBound {
    /// The limits can use no more.
    Limits,
    /// `kv_cache.max_tokens`.
    MaxTokens,
    /// `kv_cache.max_bytes`.
    MaxBytes,
    /// The memory that the process may take: what allows no more.
    Memory(String),
}

/// The size of a KV cache.
#[derive(Debug)]
pub(super) struct CacheSize {
    pub(super) num_blocks: usize,
    pub(super) bound: KvCacheBound,
    /// The memory of its blocks, none of which is touched yet.
    pub(super) promise: Promise,
}

/// Address space that is left to stacks, to the allocator's own areas and to the tokenizer, where it is limited: without it a
/// thread cannot start, which ends the process. Not measured.
const OTHER_MAPPINGS: u64 = 64 << 20;

/// The size of a KV cache of which the limits can use `most` blocks: what the configuration asks for, at most what fits into
/// the memory that the process may take beside `others` bytes (weights, which are mapped, and buffers).
///
/// # Errors
/// There is no memory for one block.
pub(super) fn cache_size(
    machine: &Machine,
    config: &KvCacheConfig,
    most: usize,
    bytes_per_token: usize,
    others: u64,
) -> Result<CacheSize, MemoryError> {
    let tokens_per_block = config.tokens_per_block;
    let block = bytes_per_token.saturating_mul(tokens_per_block).max(1);
    let wanted = match config.max_tokens {
        Some(tokens) => (tokens.div_ceil(tokens_per_block), KvCacheBound::MaxTokens),
        None => (most, KvCacheBound::Limits),
    };
    let of_bytes = config.max_bytes.map(|bytes| (bytes / block, KvCacheBound::MaxBytes));
    let of_memory = |available: Available, bytes: u64| {
        let blocks = (bytes as f64 * config.free_memory_fraction) as usize / block;
        (blocks, KvCacheBound::Memory(available.limit))
    };
    // What is mapped already, as weights and buffers are, counts as used there.
    let mappable = machine.mappable().map(|available| {
        let bytes = available.bytes.saturating_sub(OTHER_MAPPINGS);
        of_memory(available, bytes)
    });
    let mut size = (0, KvCacheBound::Limits);
    let promise = Promise::new(machine, |touchable| {
        let touchable = touchable.map(|available| {
            let bytes = beside(available.bytes, others);
            of_memory(available, bytes)
        });
        let bounds = [Some(wanted), of_bytes, touchable, mappable];
        // `min_by_key` keeps the first of equals: memory is named only where it allows less than what was asked for.
        if let Some(least) = bounds.into_iter().flatten().min_by_key(|(blocks, _)| *blocks) {
            size = least;
        }
        (size.0 as u64).saturating_mul(block as u64)
    });
    match size {
        (0, KvCacheBound::Memory(limit)) => Err(MemoryError {
            what: format!("one block of {} of the KV cache", counted(tokens_per_block, "token")),
            bytes: block as u64,
            reason: format!("which are not left ({limit})"),
        }),
        (num_blocks, bound) => Ok(CacheSize { num_blocks: num_blocks.max(1), bound, promise }),
    }
}

/// Bytes of `free` that are left once `others` bytes are in memory. Where those fill it, an eighth is taken all the same, at
/// the price of reading weights again.
pub(super) fn beside(free: u64, others: u64) -> u64 {
    free.saturating_sub(others).max(free / 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine with this many free bytes, and a process that may map this many.
    fn machine(free_kib: u64, address_space: &str) -> (tempfile::TempDir, Machine) {
        let dir = tempfile::tempdir().unwrap();
        let proc = dir.path().join("proc/self");
        std::fs::create_dir_all(&proc).unwrap();
        std::fs::write(dir.path().join("proc/meminfo"), format!("MemAvailable: {free_kib} kB\n")).unwrap();
        std::fs::write(proc.join("limits"), format!("Max address space   {address_space}  unlimited  bytes\n"))
            .unwrap();
        let machine = Machine::at(dir.path());
        (dir, machine)
    }

    #[test]
    fn the_least_of_what_is_asked_for_and_what_there_is_is_the_size() {
        let config = KvCacheConfig { tokens_per_block: 32, free_memory_fraction: 0.5, ..KvCacheConfig::default() };
        // A block takes 1 KiB.
        let size = |config: &KvCacheConfig, free_kib, address_space: &str, others| {
            let (_dir, machine) = machine(free_kib, address_space);
            let size = cache_size(&machine, config, 1000, 32, others).unwrap();
            assert_eq!(size.promise.left(), size.num_blocks as u64 * 1024);
            (size.num_blocks, size.bound)
        };
        let plenty = 1 << 30;
        assert_eq!(size(&config, plenty, "unlimited", 0), (1000, KvCacheBound::Limits));
        let tokens = KvCacheConfig { max_tokens: Some(1601), ..config.clone() };
        assert_eq!(size(&tokens, plenty, "unlimited", 0), (51, KvCacheBound::MaxTokens));
        let bytes = KvCacheConfig { max_bytes: Some(50 * 1024 + 1023), ..tokens };
        assert_eq!(size(&bytes, plenty, "unlimited", 0), (50, KvCacheBound::MaxBytes));
        for config in [&config, &bytes] {
            let (blocks, bound) = size(config, 100, "unlimited", 20 * 1024);
            assert_eq!(blocks, 40);
            assert!(matches!(&bound, KvCacheBound::Memory(limit) if limit.contains("MemAvailable")), "{bound:?}");
            // Weights that fill the memory leave an eighth of it.
            assert_eq!(size(config, 160, "unlimited", 1 << 40).0, 10);
            let address_space = (OTHER_MAPPINGS + 20480).to_string();
            let (blocks, bound) = size(config, plenty, &address_space, 1 << 20);
            assert_eq!(blocks, 10);
            assert!(matches!(&bound, KvCacheBound::Memory(limit) if limit.contains("RLIMIT_AS")), "{bound:?}");
        }
    }

    #[test]
    fn without_memory_for_a_block_there_is_an_error_with_the_numbers() {
        let (_dir, machine) = machine(1, "unlimited");
        let error = cache_size(&machine, &KvCacheConfig::default(), 10, 1000, 0).unwrap_err();
        assert_eq!(error.bytes, 32_000);
        let text = error.to_string();
        assert!(
            text.contains("32000 bytes") && text.contains("MemAvailable") && text.contains("max_num_tokens"),
            "{text}"
        );
    }

    #[test]
    fn settings_that_hold_no_block_are_named() {
        let check = |config: KvCacheConfig| check_blocks(&config, 100).map_err(|error| error.to_string());
        let config = KvCacheConfig::default;
        assert_eq!(check(config()), Ok(()));
        let error = check(KvCacheConfig { max_tokens: Some(31), ..config() }).unwrap_err();
        assert!(error.contains("31 tokens") && error.contains("give it 32 or more"), "{error}");
        let error = check(KvCacheConfig { max_bytes: Some(3199), ..config() }).unwrap_err();
        assert!(error.contains("3199 bytes") && error.contains("give it 3200 or more"), "{error}");
        assert_eq!(check(KvCacheConfig { max_bytes: Some(3200), max_tokens: Some(32), ..config() }), Ok(()));
    }
}
