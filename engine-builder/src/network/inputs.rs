//! The network's inputs, and the shapes that an engine takes.
//!
//! Source: TensorRT-LLM 1.x, `models/generation_mixin.py` (`prepare_basic_inputs`, `prepare_attention_inputs`) for names, types,
//! dimensions and profiles; `runtime/tllmRuntime.cpp` and `batch_manager/transformerBuffers.cpp` for what fills them. `position_ids`
//! is left out: nothing in a network with rotary embedding reads it, and the runtime fills what an engine has. Inputs whose
//! names begin with `host_` are plain inputs too: only the plugin knows that their memory is the host's.

use super::decoder::{NetworkOptions, TOKENS_PER_BLOCK};
use super::graph::{DYNAMIC, DataType, Graph, Input, Profile};

/// What the inputs of one rank depend on.
pub(super) struct Inputs {
    pub(super) options: NetworkOptions,
    pub(super) hidden_size: usize,
    pub(super) num_layers: usize,
    pub(super) is_first: bool,
    pub(super) is_last: bool,
}

/// One dimension: its name, and the sizes of the profile.
#[derive(Clone, Copy)]
struct Dim(&'static str, [usize; 3]);

const fn fixed(name: &'static str, size: usize) -> Dim {
    Dim(name, [size; 3])
}

/// From 1 to `most`, best in the middle.
const fn up_to(name: &'static str, most: usize) -> Dim {
    Dim(name, [1, most.div_ceil(2), most])
}

/// Number of the knobs in `host_runtime_perf_knobs`.
const PERF_KNOBS: usize = 16;

impl NetworkOptions {
    /// Tokens of a step at most: no more than all sequences have.
    pub fn max_num_tokens(&self) -> usize {
        self.limits.max_num_tokens.min(self.limits.max_seq_len.saturating_mul(self.limits.max_batch_size))
    }

    /// Tokens of the step that tactics are chosen for: a token of each sequence, unless something else was asked for.
    pub fn best_num_tokens(&self) -> usize {
        let sequences = self.limits.max_batch_size * self.max_beam_width;
        self.opt_num_tokens.unwrap_or(sequences).min(self.max_num_tokens())
    }
}

/// Declares every input of the rank.
pub(super) fn add_inputs(graph: &mut Graph, rank: &Inputs) {
    use DataType::{Bf16, Int32, Int64};
    let options = rank.options;
    let (batch, beams, length) = (options.limits.max_batch_size, options.max_beam_width, options.limits.max_seq_len);
    let layers = rank.num_layers;
    // Beams share blocks but for the last one, which each writes to.
    let cached = if beams > 1 { length + TOKENS_PER_BLOCK } else { length };
    let blocks = |tokens: usize| tokens.div_ceil(TOKENS_PER_BLOCK);

    let tokens = Dim("num_tokens", [1, options.best_num_tokens(), options.max_num_tokens()]);
    let sequences = up_to("batch_size_beam_width", batch * beams);
    let pools = |name| Dim(name, [1, 1, layers]);
    let block_offsets = [
        pools("num_kv_cache_pools"),
        sequences,
        fixed("kv", 2),
        Dim("max_blocks_per_seq", [1, blocks(cached.div_ceil(2)), blocks(cached)]),
    ];

    let mut input = |name, dtype, dims: &[Dim]| add_input(graph, name, dtype, dims);
    if rank.is_first {
        input("input_ids", Int32, &[tokens]);
    } else {
        input("hidden_states_input", Bf16, &[tokens, fixed("hidden_size", rank.hidden_size)]);
    }
    if rank.is_last && !options.gather_context_logits {
        input("last_token_ids", Int32, &[up_to("batch_size_last_token_ids", batch * beams)]);
    }
    input("kv_cache_block_offsets", Int32, &block_offsets);
    input("host_kv_cache_block_offsets", Int32, &block_offsets);
    input("host_kv_cache_pool_pointers", Int64, &[pools("num_pools_layers"), fixed("num_pools_kv", 2)]);
    input("host_kv_cache_pool_mapping", Int32, &[fixed("pools_mapping", layers), fixed("layer_cache_pool_locator", 2)]);
    input("sequence_length", Int32, &[sequences]);
    input("host_request_types", Int32, &[sequences]);
    input("host_past_key_value_lengths", Int32, &[sequences]);
    input("context_lengths", Int32, &[sequences]);
    input("host_runtime_perf_knobs", Int64, &[fixed("perf_knob_size", PERF_KNOBS)]);
    input("host_context_progress", Int64, &[fixed("context_progress_size", 1)]);
    input("host_context_lengths", Int32, &[sequences]);
    input("host_max_attention_window_sizes", Int32, &[fixed("num_layers", layers)]);
    input("host_sink_token_length", Int32, &[fixed("scalar", 1)]);
    let cache = [up_to("batch_size_cache", batch), up_to("beam_width", beams), up_to("max_seq_len", length)];
    input("cache_indirection", Int32, &cache);
}

fn add_input(graph: &mut Graph, name: &'static str, dtype: DataType, dims: &[Dim]) {
    // A dimension that the profile lets vary is open; `kv_cache_block_offsets` of a rank with one layer has one pool, and the
    // dimension is open all the same, as it is with more.
    let is_fixed = |dim: &Dim| dim.1[0] == dim.1[2] && FIXED.contains(&dim.0);
    let shape = dims.iter().map(|dim| if is_fixed(dim) { dim.1[0] as i64 } else { DYNAMIC }).collect();
    let tensor = graph.add_tensor(dtype, shape);
    let sizes = |which: usize| dims.iter().map(|dim| dim.1[which] as i64).collect();
    let profile = Profile { min: sizes(0), opt: sizes(1), max: sizes(2) };
    graph.inputs.push(Input { name, tensor, dimensions: dims.iter().map(|dim| dim.0).collect(), profile });
}

/// Dimensions whose size is the network's.
const FIXED: [&str; 9] = [
    "kv",
    "hidden_size",
    "num_pools_kv",
    "pools_mapping",
    "layer_cache_pool_locator",
    "perf_knob_size",
    "context_progress_size",
    "num_layers",
    "scalar",
];
