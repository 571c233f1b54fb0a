//! What only TensorRT-LLM's executor can be told: the `[tensorrt_llm]` table of a configuration file.

mod tables;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use trtllm_sys::gpu::{Setting, SettingValue};

pub use tables::{
    CommunicationMode, ContextChunkingPolicy, Decoding, DecodingMode, DynamicBatch, Eagle, ExtendedRuntimePerfKnob,
    KvCache, Lookahead, Parallel, PeftCache, Scheduler,
};

/// Settings of TensorRT-LLM's `ExecutorConfig` and of the classes in it, by their names there in snake_case; what is not set
/// has TensorRT-LLM's default. One that the loaded release does not have is refused by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TensorRtLlmConfig {
    /// Beams of a request at most; `None` for what the engine was built for.
    pub max_beam_width: Option<u32>,
    /// Iterations whose statistics of each request are kept; `None` for none.
    pub request_stats_max_iterations: Option<u32>,
    /// Share of the weights that is kept on the GPU.
    pub gpu_weights_percent: Option<f64>,
    /// How long an orchestrator's processes sleep between looks for work, in milliseconds; 0 looks without a pause.
    pub recv_poll_period_ms: Option<u32>,
    /// After which a sequence that nobody asks for is ended, in microseconds.
    pub max_seq_idle_microseconds: Option<u64>,
    /// Whether the next batch is prepared while the GPU works on this one.
    pub enable_trt_overlap: Option<bool>,
    /// Whether the engine is read with GPUDirect Storage.
    pub use_gpu_direct_storage: Option<bool>,
    /// Whether an attention window that does not fit is an error (from 1.1).
    pub fail_fast_on_attention_window_too_large: Option<bool>,
    /// What `SchedulerConfig` has beside the policy.
    pub scheduler: Scheduler,
    /// What `KvCacheConfig` has beside the settings of every executor.
    pub kv_cache: KvCache,
    /// `ExtendedRuntimePerfKnobConfig`.
    pub extended_runtime_perf_knob: ExtendedRuntimePerfKnob,
    /// `PeftCacheConfig`: the cache of LoRA adapters.
    pub peft_cache: PeftCache,
    /// `DecodingConfig`.
    pub decoding: Decoding,
    /// `ParallelConfig`: how the ranks of an engine with several are started.
    pub parallel: Parallel,

    /// Whether guides (JSON schemas, regexes, EBNF grammars) can be asked for. Costs start-up time and memory.
    #[serde(skip_serializing)]
    pub guided_decoding: bool,
    /// How long an orchestrator's workers may take to start, in seconds.
    #[serde(skip_serializing)]
    pub start_up_timeout: u64,
    /// How long neither a response nor an iteration may come while requests wait, in seconds; then all of them end with an error, and no
    /// more are taken until one comes.
    #[serde(skip_serializing)]
    pub stall_timeout: u64,
    /// How long cancelled requests may take to end at shutdown, in seconds; then they end with an error.
    #[serde(skip_serializing)]
    pub shutdown_timeout: u64,
    /// Whether a cancelled stream with log-probabilities or logits is cancelled in TensorRT-LLM too. Its issue 10810 is a crash then, where
    /// generation logits are gathered; without, such a stream is over for its client, and runs to its end unseen.
    #[serde(skip_serializing)]
    pub cancel_streams_with_log_probs: bool,
    /// What goes to `tracing` (target `tensorrt_llm`) of what TensorRT-LLM logs.
    #[serde(skip)]
    pub capture_log: CaptureLog,
}

/// What goes to `tracing` of what this process writes to C++'s `std::cout` and `std::cerr`, where TensorRT-LLM logs. The first engine of
/// a process that asks for something decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CaptureLog {
    /// Nothing.
    #[default]
    Nothing,
    /// The lines that TensorRT-LLM has marked as its own, while somebody listens to `tracing`: for hosts, which write there too.
    OwnLines,
    /// Every line. Programs of this project ask for it: their standard output is their own.
    Everything,
}

impl Default for TensorRtLlmConfig {
    fn default() -> Self {
        Self {
            max_beam_width: None,
            request_stats_max_iterations: None,
            gpu_weights_percent: None,
            recv_poll_period_ms: None,
            max_seq_idle_microseconds: None,
            enable_trt_overlap: None,
            use_gpu_direct_storage: None,
            fail_fast_on_attention_window_too_large: None,
            scheduler: Scheduler::default(),
            kv_cache: KvCache::default(),
            extended_runtime_perf_knob: ExtendedRuntimePerfKnob::default(),
            peft_cache: PeftCache::default(),
            decoding: Decoding::default(),
            parallel: Parallel::default(),
            guided_decoding: true,
            start_up_timeout: 300,
            stall_timeout: 600,
            shutdown_timeout: 60,
            cancel_streams_with_log_probs: false,
            capture_log: CaptureLog::Nothing,
        }
    }
}

impl TensorRtLlmConfig {
    /// The content of a table `[tensorrt_llm]`.
    ///
    /// # Errors
    /// What is wrong, with its line.
    pub fn from_toml(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string())
    }

    /// As the shim takes them.
    pub(super) fn settings(&self) -> Vec<Setting> {
        let mut settings = Vec::new();
        // Nothing in these types can fail to be a value.
        flatten(&mut settings, String::new(), serde_json::to_value(self).unwrap_or_default());
        settings
    }
}

/// Appends the values of nested tables by their dotted names.
fn flatten(settings: &mut Vec<Setting>, name: String, value: Value) {
    let value = match value {
        Value::Null => return,
        Value::Object(fields) => {
            for (field, value) in fields {
                let name = if name.is_empty() { field } else { format!("{name}.{field}") };
                flatten(settings, name, value);
            }
            return;
        }
        Value::Bool(value) => SettingValue::Bool(value),
        Value::Number(number) => match number.as_i64() {
            Some(value) => SettingValue::Integer(value),
            None => SettingValue::Number(number.as_f64().unwrap_or_default()),
        },
        Value::String(text) => SettingValue::Text(text),
        Value::Array(elements) if elements.iter().any(Value::is_array) => {
            SettingValue::Lists(elements.iter().map(integers).collect())
        }
        array @ Value::Array(_) => SettingValue::Integers(integers(&array)),
    };
    settings.push(Setting { name, value });
}

fn integers(value: &Value) -> Vec<i32> {
    let elements = value.as_array().into_iter().flatten().filter_map(Value::as_i64);
    elements.map(|element| i32::try_from(element).unwrap_or(i32::MAX)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_set_is_not_sent() {
        assert_eq!(TensorRtLlmConfig::default().settings(), []);
    }

    #[test]
    fn tables_become_dotted_names() {
        let config: TensorRtLlmConfig = toml::from_str(
            "max_beam_width = 2\ngpu_weights_percent = 1.0\nguided_decoding = false\n
             [kv_cache]\nuse_uvm = true\nmax_attention_window = [4096, 128]\n
             [decoding]\nmode = 'medusa'\nmedusa_choices = [[0], [0, 1]]\n[decoding.lookahead]\nwindow_size = 7\n",
        )
        .unwrap();
        let mut settings = config.settings();
        settings.sort_by(|a, b| a.name.cmp(&b.name));
        let settings: Vec<_> = settings.into_iter().map(|setting| (setting.name, setting.value)).collect();
        let named = |name: &str, value| (name.to_owned(), value);
        let expected = [
            named("decoding.lookahead.window_size", SettingValue::Integer(7)),
            named("decoding.medusa_choices", SettingValue::Lists(vec![vec![0], vec![0, 1]])),
            named("decoding.mode", SettingValue::Text("medusa".into())),
            named("gpu_weights_percent", SettingValue::Number(1.0)),
            named("kv_cache.max_attention_window", SettingValue::Integers(vec![4096, 128])),
            named("kv_cache.use_uvm", SettingValue::Bool(true)),
            named("max_beam_width", SettingValue::Integer(2)),
        ];
        assert_eq!(settings, expected);
    }

    #[test]
    fn a_name_that_does_not_exist_is_refused() {
        let error = toml::from_str::<TensorRtLlmConfig>("[kv_cache]\nhost_cache_sise = 1\n").unwrap_err();
        assert!(error.to_string().contains("host_cache_sise"), "{error}");
    }
}
