//! What TensorRT-LLM's runtime would put into the inputs of a step, and the step itself on every rank.

use std::collections::HashMap;
use std::rc::Rc;

use crate::attention::Cache;
use crate::interpreter::{Arithmetic, Rank, Tensors, evaluate};
use crate::plan::{Plan, Tensor};
use trtllm::engine_format::LoraAdapter;
use trtllm::engine_format::lora::LoraModule;

/// A request of a step.
pub(crate) struct Part {
    /// Which sequence it is.
    pub(crate) sequence: usize,
    /// The prompt's tokens, or the one that was generated last.
    pub(crate) tokens: Vec<u32>,
    /// Tokens that are in the cache.
    pub(crate) past: usize,
    pub(crate) is_context: bool,
}

/// The ranks of a model, by pipeline stage.
pub(crate) struct Model {
    stages: Vec<Vec<Rank>>,
    window: usize,
    arithmetic: Arithmetic,
    /// Rank and addresses of both halves by the name of the input with the ranks, and the sequences that have the adapter.
    adapter: HashMap<String, [i64; 3]>,
    adapted: Vec<usize>,
}

const TOKENS_PER_BLOCK: usize = 32;

impl Model {
    pub(crate) fn new(plans: Vec<Plan>, tp_size: usize, window: Option<usize>, arithmetic: Arithmetic) -> Self {
        let mut stages = Vec::new();
        let mut plans = plans.into_iter().peekable();
        while plans.peek().is_some() {
            let ranks =
                plans.by_ref().take(tp_size).map(|plan| Rank { plan, cache: Cache::new(), adapters: Vec::new() });
            stages.push(ranks.collect());
        }
        let (adapter, adapted) = (HashMap::new(), Vec::new());
        Self { stages, window: window.unwrap_or(1 << 20), arithmetic, adapter, adapted }
    }

    /// Gives these sequences an adapter: each rank takes its part of the rows, as TensorRT-LLM's LoraCache does.
    pub(crate) fn adapt(&mut self, adapter: &LoraAdapter, sequences: &[usize]) {
        self.adapted = sequences.to_vec();
        for ranks in &mut self.stages {
            let tp_size = ranks.len();
            for (tp_rank, rank) in ranks.iter_mut().enumerate() {
                for layer in rank.plan.layers.iter().filter(|layer| layer.kind == "Plugin:Lora") {
                    let (module, number) = layer.inputs[2].split_once("_lora_ranks_").unwrap();
                    let id = module.parse::<LoraModule>().unwrap().id();
                    let number: i32 = number.parse().unwrap();
                    let Some(row) = adapter.config.iter().position(|row| row[..2] == [id, number]) else { continue };
                    let low = adapter.config[row][2] as usize;
                    let (inputs, outputs) =
                        (layer.scalar("in_hidden_size") as usize, layer.scalar("out_hidden_size_0") as usize);
                    // attn_dense and mlp_4h_to_h are cut along their inputs, all others along their outputs.
                    let by_inputs = id == 4 || id == 6;
                    let width = if by_inputs { inputs * tp_size } else { inputs };
                    let numbers = adapter.weights[row * adapter.columns..].iter();
                    let mut numbers = numbers.map(|&bits| f32::from_bits(u32::from(bits) << 16));
                    let a: Vec<f32> = numbers.by_ref().take(low * width).collect();
                    let first = if by_inputs { tp_rank * inputs } else { 0 };
                    rank.adapters.push(a.chunks_exact(width).flat_map(|row| row[first..][..inputs].to_vec()).collect());
                    let first = if by_inputs { 0 } else { tp_rank * outputs };
                    rank.adapters.push(numbers.skip(first * low).take(outputs * low).collect());
                    let address = rank.adapters.len() as i64 - 1;
                    self.adapter.insert(layer.inputs[2].clone(), [low as i64, address, address + 1]);
                }
            }
        }
    }

    /// The rows of logits of a step: of each request's last token, or of every token where the network gathers them all.
    pub(crate) fn step(&mut self, parts: &[Part]) -> Vec<Vec<f32>> {
        let tokens: usize = parts.iter().map(|part| part.tokens.len()).sum();
        let mut hidden: Option<Tensor> = None;
        let last = self.stages.len() - 1;
        for (index, ranks) in self.stages.iter_mut().enumerate() {
            let mut inputs = attention_inputs(parts, layers(&ranks[0].plan), self.window);
            if index == 0 {
                let ids = parts.iter().flat_map(|part| part.tokens.iter().map(|&id| i64::from(id))).collect();
                insert(&mut inputs, "input_ids", Tensor::integers("INT32", &[tokens], ids));
            } else {
                insert(&mut inputs, "hidden_states_input", hidden.take().unwrap());
            }
            if ranks[0].plan.has_input("last_token_ids") {
                let mut end = 0;
                let ends = parts.iter().map(|part| {
                    end += part.tokens.len() as i64;
                    end
                });
                let ends: Vec<i64> = ends.collect();
                insert(&mut inputs, "last_token_ids", Tensor::integers("INT32", &[parts.len()], ends));
            }
            if ranks.len() > 1 {
                let pointers = 7 * ranks.len() + 3;
                let workspace = Tensor::integers("INT64", &[pointers], vec![0; pointers]);
                insert(&mut inputs, "all_reduce_workspace", workspace);
            }
            let names: Vec<_> = ranks[0].plan.inputs.iter().filter(|(name, _)| name.contains("_lora_ranks_")).collect();
            for (name, _) in names {
                let of = |part: &Part| match self.adapter.get(name) {
                    Some(&adapter) if self.adapted.contains(&part.sequence) => adapter,
                    _ => [0; 3],
                };
                let low = parts.iter().map(|part| of(part)[0]).collect();
                let addresses = parts.iter().flat_map(|part| [of(part)[1], of(part)[2], 0]).collect();
                insert(&mut inputs, name, Tensor::integers("INT32", &[parts.len()], low));
                let name = name.replace("_lora_ranks_", "_lora_weights_pointers_");
                insert(&mut inputs, &name, Tensor::integers("INT64", &[parts.len(), 3], addresses));
            }
            let mut outputs = evaluate(ranks, &inputs, self.arithmetic);
            if index == last {
                let logits = outputs.swap_remove(0).remove("logits").unwrap();
                assert_eq!(logits.dtype, "FLOAT");
                return logits.floats().chunks_exact(logits.shape[1]).map(<[f32]>::to_vec).collect();
            }
            hidden = outputs.swap_remove(0).remove("hidden_states_output");
        }
        unreachable!("the last stage returns")
    }
}

fn insert(inputs: &mut Tensors, name: &str, tensor: Tensor) {
    inputs.insert(name.to_owned(), Rc::new(tensor));
}

fn layers(plan: &Plan) -> usize {
    plan.layers.iter().filter(|layer| layer.kind == "Plugin:GPTAttention").count()
}

fn attention_inputs(parts: &[Part], layers: usize, window: usize) -> Tensors {
    let count = parts.len();
    let each = |value: &dyn Fn(&Part) -> usize| parts.iter().map(|part| value(part) as i64).collect::<Vec<_>>();
    let lengths = each(&|part| part.past + part.tokens.len());
    let context_lengths = each(&|part| if part.is_context { part.tokens.len() } else { part.past });
    let blocks = lengths.iter().map(|&length| (length as usize).div_ceil(TOKENS_PER_BLOCK)).max().unwrap();
    // Keys and values have offsets of their own; neighbours in a sequence are nowhere near each other.
    let offset = |sequence: usize, which: usize, block: usize| ((sequence * 97 + block * 31 + 7) * 2 + which) as i64;
    let offsets: Vec<i64> = parts
        .iter()
        .flat_map(|part| {
            (0..2).flat_map(move |which| (0..blocks).map(move |block| offset(part.sequence, which, block)))
        })
        .collect();
    let mapping = (0..layers).flat_map(|layer| [0, layer as i64]).collect();
    let mut inputs: Tensors = HashMap::new();
    let mut int32 = |name: &str, shape: &[usize], data: Vec<i64>| {
        insert(&mut inputs, name, Tensor::integers("INT32", shape, data));
    };
    int32("sequence_length", &[count], lengths);
    int32("host_past_key_value_lengths", &[count], each(&|part| part.past));
    int32("host_request_types", &[count], each(&|part| usize::from(!part.is_context)));
    int32("context_lengths", &[count], context_lengths.clone());
    int32("host_context_lengths", &[count], context_lengths);
    int32("host_max_attention_window_sizes", &[layers], vec![window as i64; layers]);
    int32("host_sink_token_length", &[1], vec![0]);
    int32("cache_indirection", &[count, 1, 1], vec![0; count]);
    int32("kv_cache_block_offsets", &[1, count, 2, blocks], offsets.clone());
    int32("host_kv_cache_block_offsets", &[1, count, 2, blocks], offsets);
    int32("host_kv_cache_pool_mapping", &[layers, 2], mapping);
    let mut int64 = |name: &str, shape: &[usize], data: Vec<i64>| {
        insert(&mut inputs, name, Tensor::integers("INT64", shape, data));
    };
    int64("host_kv_cache_pool_pointers", &[1, 2], vec![0, 0]);
    int64("host_runtime_perf_knobs", &[16], vec![-1; 16]);
    int64("host_context_progress", &[1], vec![0]);
    inputs
}
