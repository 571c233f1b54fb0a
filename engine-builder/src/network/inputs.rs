//! The network's inputs, and the shapes that an engine takes.
//!
//! Source: TensorRT-LLM 1.x, `models/generation_mixin.py` (`prepare_basic_inputs`, `prepare_attention_inputs`) for names, types,
//! dimensions and profiles; `runtime/tllmRuntime.cpp` and `batch_manager/transformerBuffers.cpp` for what fills them. `position_ids`
//! is left out: nothing in a network with rotary embedding reads it, and the runtime fills what an engine has. Inputs whose
//! names begin with `host_` are plain inputs too: only the plugin knows that their memory is the host's.

use super::graph::{Graph, Input, Profile};
use super::lora::{pointers_input, ranks_input};
use super::options::TOKENS_PER_BLOCK;
use super::rank::Rank;
use super::tensor::{DYNAMIC, DataType};

/// One dimension of an input.
#[derive(Clone, Copy)]
struct Dim {
    name: &'static str,
    /// Its least, best and greatest size in every optimization profile; `None` for the tokens of a step, in which they differ.
    sizes: Option<[usize; 3]>,
}

const fn dim(name: &'static str, min: usize, opt: usize, max: usize) -> Dim {
    Dim { name, sizes: Some([min, opt, max]) }
}

/// The tokens of a step.
const TOKENS: Dim = Dim { name: "num_tokens", sizes: None };

const fn fixed(name: &'static str, size: usize) -> Dim {
    dim(name, size, size, size)
}

/// From 1 to `max`, best in the middle.
const fn up_to(name: &'static str, max: usize) -> Dim {
    dim(name, 1, max.div_ceil(2), max)
}

/// Pointers in `all_reduce_workspace` at most. Releases differ in how many there are: 4 for each rank and one, or 7 and three.
const MAX_WORKSPACE_POINTERS: usize = 4096;

/// Number of the knobs in `host_runtime_perf_knobs`.
const PERF_KNOBS: usize = 16;

/// Declares every input of the rank.
pub(super) fn add_inputs(graph: &mut Graph, rank: &Rank<'_>) {
    use DataType::{Bf16, Int32, Int64};
    let options = rank.options;
    let (batch, beams, length) = (options.limits.max_batch_size, options.max_beam_width, options.limits.max_seq_len);
    let layers = rank.num_layers();
    // Beams share all blocks of a sequence but the last one, which each beam writes to.
    let cached_tokens = if beams > 1 { length + TOKENS_PER_BLOCK } else { length };
    let blocks = |tokens: usize| tokens.div_ceil(TOKENS_PER_BLOCK);

    let token_ranges = options.token_ranges();
    let sequences = up_to("batch_size_beam_width", batch * beams);
    let pools = |name| dim(name, 1, 1, layers);
    let block_offsets = [
        pools("num_kv_cache_pools"),
        sequences,
        fixed("kv", 2),
        dim("max_blocks_per_seq", 1, blocks(cached_tokens.div_ceil(2)), blocks(cached_tokens)),
    ];

    let mut input = |name: &str, dtype, dims: &[Dim]| add_input(graph, name, dtype, dims, &token_ranges);
    if rank.is_first() {
        input("input_ids", Int32, &[TOKENS]);
    } else {
        input("hidden_states_input", Bf16, &[TOKENS, fixed("hidden_size", rank.config.hidden_size)]);
    }
    if rank.is_last() && !options.gather_context_logits {
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
    let tp_size = rank.mapping.tp_size;
    if tp_size > 1 {
        input("all_reduce_workspace", Int64, &[dim("all_reduce_size", 1, 7 * tp_size + 3, MAX_WORKSPACE_POINTERS)]);
    }
    let cache = [up_to("batch_size_cache", batch), up_to("beam_width", beams), up_to("max_seq_len", length)];
    input("cache_indirection", Int32, &cache);
    for module in options.lora.into_iter().flat_map(|lora| lora.modules.iter()) {
        for layer in (0..layers).map(|layer| rank.first_layer() + layer) {
            input(&ranks_input(module, layer), Int32, &[sequences]);
            input(&pointers_input(module, layer), Int64, &[sequences, fixed("in_out_scales", 3)]);
        }
    }
}

fn add_input(graph: &mut Graph, name: &str, dtype: DataType, dims: &[Dim], token_ranges: &[[usize; 3]]) {
    // A dimension whose profile has one size is dynamic all the same unless the network fixes it: the number of KV cache
    // pools is 1 where a rank has one layer, and dynamic as it is with more.
    let shape = dims.iter().map(|dim| match dim.sizes {
        Some([size, ..]) if FIXED.contains(&dim.name) => size as i64,
        _ => DYNAMIC,
    });
    let tensor = graph.add_tensor(dtype, shape.collect());
    let profile = |tokens: &[usize; 3]| {
        let sizes = |which: usize| dims.iter().map(|dim| dim.sizes.unwrap_or(*tokens)[which] as i64).collect();
        Profile { min: sizes(0), opt: sizes(1), max: sizes(2) }
    };
    let profiles = token_ranges.iter().map(profile).collect();
    let name = name.to_owned();
    graph.inputs.push(Input { name, tensor, dimensions: dims.iter().map(|dim| dim.name).collect(), profiles });
}

/// Dimensions whose size the network fixes.
const FIXED: [&str; 10] = [
    "in_out_scales",
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
