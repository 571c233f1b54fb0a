//! What TensorRT-LLM is told when the engine is opened.

use trtllm_sys::gpu::{Setting, SettingValue};

use super::CommunicationMode;
use crate::executor::{CapacitySchedulerPolicy, ExecutorConfig, Limits};

/// All settings, those of every executor among them. `kv_bytes_per_token` are those of a rank.
pub(super) fn settings(
    limits: Limits,
    config: &ExecutorConfig,
    max_beam_width: usize,
    mode: Option<CommunicationMode>,
    kv_bytes_per_token: usize,
) -> Vec<Setting> {
    let integer = |value: usize| SettingValue::Integer(i64::try_from(value.min(i32::MAX as usize)).unwrap_or(i64::MAX));
    let mut settings = config.tensorrt_llm.settings();
    // Chosen here, and not by the configuration alone.
    settings.retain(|setting| {
        !["max_beam_width", "parallel.communication_mode", "parallel.worker_executable_path"]
            .contains(&setting.name.as_str())
    });
    let policy = match config.capacity_scheduler_policy {
        CapacitySchedulerPolicy::MaxUtilization => "max_utilization",
        CapacitySchedulerPolicy::GuaranteedNoEvict => "guaranteed_no_evict",
    };
    let mut add = |name: &str, value| settings.push(Setting { name: name.to_owned(), value });
    add("max_beam_width", integer(max_beam_width));
    add("max_batch_size", integer(limits.max_batch_size));
    add("max_num_tokens", integer(limits.max_num_tokens));
    add("max_queue_size", integer(config.max_queue_size));
    add("iter_stats_max_iterations", integer(config.iter_stats_max_iterations));
    add("enable_chunked_context", SettingValue::Bool(config.enable_chunked_context));
    add("scheduler.capacity_scheduler_policy", SettingValue::Text(policy.to_owned()));
    add("kv_cache.enable_block_reuse", SettingValue::Bool(config.kv_cache.enable_block_reuse));
    add("kv_cache.free_gpu_memory_fraction", SettingValue::Number(config.kv_cache.free_memory_fraction));
    // TensorRT-LLM counts tokens.
    let of_bytes = config.kv_cache.max_bytes.map(|bytes| (bytes / kv_bytes_per_token.max(1)).max(1));
    if let Some(tokens) = config.kv_cache.max_tokens.into_iter().chain(of_bytes).min() {
        add("kv_cache.max_tokens", integer(tokens));
    }
    match mode {
        Some(CommunicationMode::Leader) => add("parallel.communication_mode", SettingValue::Text("leader".into())),
        Some(CommunicationMode::Orchestrator) => {
            add("parallel.communication_mode", SettingValue::Text("orchestrator".into()));
        }
        None => {}
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_the_cache_become_tokens_and_the_least_counts() {
        let limits = Limits { max_seq_len: 10, max_batch_size: 2, max_num_tokens: 20 };
        let max_tokens = |max_tokens, max_bytes| {
            let mut config = ExecutorConfig::default();
            (config.kv_cache.max_tokens, config.kv_cache.max_bytes) = (max_tokens, max_bytes);
            let settings = settings(limits, &config, 1, None, 100);
            let found = settings.iter().find(|setting| setting.name == "kv_cache.max_tokens");
            found.map(|setting| format!("{:?}", setting.value))
        };
        assert_eq!(max_tokens(None, None), None);
        assert_eq!(max_tokens(None, Some(1099)).as_deref(), Some("Integer(10)"));
        assert_eq!(max_tokens(Some(7), Some(1099)).as_deref(), Some("Integer(7)"));
        assert_eq!(max_tokens(Some(11), Some(1099)).as_deref(), Some("Integer(10)"));
        assert_eq!(max_tokens(None, Some(1)).as_deref(), Some("Integer(1)"));
    }
}
