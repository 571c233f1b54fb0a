//! What an engine and its configuration let a request ask for.

use engine_format::BuildConfig;

use super::DecodingMode;
use crate::executor::{ExecutorConfig, Limits};

/// What this executor can do, with this engine and configuration.
pub(super) struct Capabilities {
    pub(super) vocab_size: usize,
    pub(super) max_seq_len: usize,
    pub(super) max_num_tokens: usize,
    pub(super) max_beam_width: usize,
    pub(super) enable_chunked_context: bool,
    pub(super) enable_block_reuse: bool,
    pub(super) gather_context_logits: bool,
    pub(super) gather_generation_logits: bool,
    /// Why guides cannot be asked for.
    pub(super) guides_off: Option<String>,
    pub(super) lora: bool,
    pub(super) mode: DecodingMode,
    /// Whether streams with log-probabilities or logits are cancelled at once: see `Route::cancel`.
    pub(super) cancels_scored_streams: bool,
}

impl Capabilities {
    pub(super) fn new(
        vocab_size: usize,
        limits: Limits,
        build: &BuildConfig,
        config: &ExecutorConfig,
        guides_off: Option<String>,
    ) -> Self {
        let own = &config.tensorrt_llm;
        Self {
            vocab_size,
            max_seq_len: limits.max_seq_len,
            max_num_tokens: limits.max_num_tokens,
            max_beam_width: own.max_beam_width.map_or(build.max_beam_width, |width| width as usize),
            enable_chunked_context: config.enable_chunked_context,
            enable_block_reuse: config.kv_cache.enable_block_reuse,
            gather_context_logits: build.gather_context_logits,
            gather_generation_logits: build.gather_generation_logits,
            guides_off,
            lora: build.lora_plugin,
            cancels_scored_streams: own.cancel_streams_with_log_probs,
            mode: own.decoding.mode.unwrap_or(DecodingMode::Auto),
        }
    }
}
