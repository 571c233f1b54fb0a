//! What only TensorRT-LLM's executor can be told: the `[tensorrt_llm]` table of a configuration file.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use trtllm_sys::gpu::{Setting, SettingValue};

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
    /// How long no response may come while requests wait for some, in seconds; then all of them end with an error.
    #[serde(skip_serializing)]
    pub stall_timeout: u64,
    /// How long cancelled requests may take to end at shutdown, in seconds; then they end with an error.
    #[serde(skip_serializing)]
    pub shutdown_timeout: u64,
    /// Whether what TensorRT-LLM logs goes to `tracing` (target `tensorrt_llm`). It logs through C++'s `std::cout` and
    /// `std::cerr`, so everything that this process writes through them goes there too. Programs of this project set it.
    #[serde(skip)]
    pub capture_log: bool,
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
            capture_log: false,
        }
    }
}

/// A table of the configuration: fields that may be set.
macro_rules! table {
    ($(#[$about:meta])* $name:ident { $($(#[$field_about:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_about])* pub $field: Option<$type>,)*
        }
    };
}

table! {
    /// `SchedulerConfig`.
    Scheduler {
        /// Whose context is computed first where not all fits into an iteration.
        context_chunking_policy: ContextChunkingPolicy,
        /// `DynamicBatchConfig`.
        dynamic_batch: DynamicBatch,
    }
}

table! {
    /// `DynamicBatchConfig`: lets the executor lower its own limits.
    DynamicBatch {
        /// Of sequences.
        enable_batch_size_tuning: bool,
        /// Of tokens.
        enable_max_num_tokens_tuning: bool,
        /// Iterations that it looks back.
        dynamic_batch_moving_average_window: u32,
    }
}

table! {
    /// `KvCacheConfig`.
    KvCache {
        /// Whether blocks that agree in part are reused too.
        enable_partial_reuse: bool,
        /// Whether such blocks are copied.
        copy_on_partial_reuse: bool,
        /// Attention window of each layer, in tokens; repeated where there are fewer than layers.
        max_attention_window: Vec<u32>,
        /// First tokens that stay in every window.
        sink_token_length: u32,
        /// Bytes of host memory for blocks that leave the GPU.
        host_cache_size: u64,
        /// Whether such blocks come back to the GPU before they are used.
        onboard_blocks: bool,
        /// Blocks below this priority do not go to host memory.
        secondary_offload_min_priority: u32,
        /// Events that are kept until they are taken; none without.
        event_buffer_max_size: u64,
        /// Whether the cache is in unified memory (from 1.1).
        use_uvm: bool,
        /// Bytes of GPU memory at most (from 1.2).
        max_gpu_total_bytes: u64,
    }
}

table! {
    /// `ExtendedRuntimePerfKnobConfig`.
    ExtendedRuntimePerfKnob {
        /// Whether attention over long sequences is split.
        multi_block_mode: bool,
        /// Whether context attention adds up in fp32.
        enable_context_fmha_fp32_acc: bool,
        /// Whether CUDA graphs are used for generation.
        cuda_graph_mode: bool,
        /// How many of them are kept.
        cuda_graph_cache_size: u32,
    }
}

table! {
    /// `PeftCacheConfig`.
    PeftCache {
        /// Adapter module-layers in host memory.
        num_host_module_layer: u32,
        /// Adapter module-layers in GPU memory.
        num_device_module_layer: u32,
        /// Rank that pages are laid out for.
        optimal_adapter_size: u32,
        /// Highest rank.
        max_adapter_size: u32,
        /// Threads that take adapters in.
        num_put_workers: u32,
        /// Threads that bring adapters to the GPU.
        num_ensure_workers: u32,
        /// CUDA streams for that.
        num_copy_streams: u32,
        /// Pages of a block in host memory.
        max_pages_per_block_host: u32,
        /// Pages of a block in GPU memory.
        max_pages_per_block_device: u32,
        /// Share of free GPU memory.
        device_cache_percent: f64,
        /// Bytes of host memory.
        host_cache_size: u64,
    }
}

table! {
    /// `DecodingConfig`.
    Decoding {
        /// How tokens are found.
        mode: DecodingMode,
        /// `LookaheadDecodingConfig`.
        lookahead: Lookahead,
        /// Paths of the Medusa tree, each the choices from its root.
        medusa_choices: Vec<Vec<u32>>,
        /// `EagleConfig`.
        eagle: Eagle,
    }
}

table! {
    /// `LookaheadDecodingConfig`.
    Lookahead {
        /// Positions looked ahead.
        window_size: u32,
        /// Tokens of an n-gram.
        ngram_size: u32,
        /// N-grams verified in a step.
        verification_set_size: u32,
    }
}

table! {
    /// `EagleConfig`.
    Eagle {
        /// Paths of the tree.
        choices: Vec<Vec<u32>>,
        /// Whether drafts are taken where they are the best token, rather than by typical acceptance.
        greedy_sampling: bool,
        /// Of typical acceptance, from 0 to 1.
        posterior_threshold: f64,
        /// Whether the tree grows with the probabilities.
        use_dynamic_tree: bool,
        /// Branches of such a tree.
        dynamic_tree_max_top_k: u32,
    }
}

table! {
    /// `ParallelConfig`.
    Parallel {
        /// Who starts the ranks. Without: what started this process, where that was `mpirun` or `srun`; else an orchestrator,
        /// where the engine has several ranks.
        communication_mode: CommunicationMode,
        /// GPU of each rank of a node.
        device_ids: Vec<u32>,
        /// MPI ranks that take part.
        participant_ids: Vec<u32>,
        /// An orchestrator's worker program. Without: `executorWorker` of the TensorRT-LLM that is loaded.
        worker_executable_path: String,
        /// Whether an orchestrator starts its workers, rather than finding them under `mpirun`.
        spawn_processes: bool,
    }
}

/// Whose context is computed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContextChunkingPolicy {
    /// Of the oldest request.
    FirstComeFirstServed,
    /// Of all a little.
    EqualProgress,
}

/// How tokens are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecodingMode {
    /// As each request asks.
    Auto,
    /// By top-k.
    TopK,
    /// By top-p.
    TopP,
    /// By both.
    TopKTopP,
    /// By beam search.
    BeamSearch,
    /// Drafted by Medusa heads.
    Medusa,
    /// Drafted by lookahead.
    Lookahead,
    /// Drafted by a recurrent drafter inside the engine (ReDrafter).
    ExplicitDraftTokens,
    /// Drafted outside.
    ExternalDraftTokens,
    /// Drafted by Eagle.
    Eagle,
}

/// Who starts the ranks of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommunicationMode {
    /// `mpirun` or Slurm has started one process for each; the first takes requests, the others serve it.
    Leader,
    /// This process, which stays free of GPUs, starts a worker for each.
    Orchestrator,
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
