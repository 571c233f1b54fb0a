//! The tables in `[tensorrt_llm]`, named for TensorRT-LLM's classes.

use serde::{Deserialize, Serialize};

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
