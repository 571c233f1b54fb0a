//! Settings that TensorRT-LLM takes and that cannot work with an engine: found before it is opened, and not in every step or never.

use engine_format::{BuildConfig, EngineDir};

use super::{CommunicationMode, OpenError};
use crate::executor::{ExecutorConfig, KvCacheDtype, Limits};

/// Refuses the first of them by name.
pub(super) fn check(
    engine: &EngineDir,
    build: &BuildConfig,
    config: &ExecutorConfig,
    limits: Limits,
    max_beam_width: usize,
) -> Result<(), OpenError> {
    let dtype = config.kv_cache.dtype;
    if dtype != KvCacheDtype::Bf16 {
        return Err(OpenError::KvCacheDtype { path: engine.path().to_owned(), dtype });
    }
    let cache = &config.tensorrt_llm.kv_cache;
    let refused = |setting, problem| {
        let path = engine.path().to_owned();
        Err(OpenError::Conflict { path, setting, problem })
    };
    // Its blocks would be more than the engine's profile admits, and its attention would not shift positions.
    if cache.sink_token_length.is_some_and(|tokens| tokens > 0) && !build.streamingllm {
        return refused("kv_cache.sink_token_length", "it was built without plugin_config.streamingllm: leave it out");
    }
    if !build.use_paged_context_fmha {
        return Ok(());
    }
    if cache.onboard_blocks == Some(false) {
        let problem = "its attention (plugin_config.use_paged_context_fmha) needs the blocks on the GPU: leave it out";
        return refused("kv_cache.onboard_blocks", problem);
    }
    let windows = cache.max_attention_window.iter().flatten();
    if max_beam_width > 1 && windows.into_iter().any(|&window| (window as usize) < limits.max_seq_len) {
        let problem = "a window below max_seq_len, beams and plugin_config.use_paged_context_fmha exclude each other in some releases of TensorRT-LLM: set max_beam_width to 1";
        return refused("kv_cache.max_attention_window", problem);
    }
    Ok(())
}

/// Why there are no events of the KV cache.
pub(super) fn no_events(config: &ExecutorConfig, mode: Option<CommunicationMode>) -> Option<&'static str> {
    if mode == Some(CommunicationMode::Orchestrator) {
        return Some(
            "an orchestrator gets no KV-cache events from its workers: start the ranks with mpirun (leader mode)",
        );
    }
    let is_kept = config.tensorrt_llm.kv_cache.event_buffer_max_size.is_some_and(|events| events > 0);
    (!is_kept).then_some("no KV-cache events are kept: set kv_cache.event_buffer_max_size")
}
