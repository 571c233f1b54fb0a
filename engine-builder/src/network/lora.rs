//! LoRA: what the adapter of each request adds to a product.
//!
//! Source: TensorRT-LLM 1.x, `layers/lora.py`, `layers/attention.py`, `layers/linear.py` and `functional.py` (`lora_plugin`) for where the
//! plugin stands; `models/generation_mixin.py` for its inputs; `batch_manager/loraBuffers.cpp` and `runtime/loraManager.cpp` for what fills
//! them: three host pointers and a rank for each sequence, zeros where a request has no adapter or the adapter has no such
//! row. The plugin sets its output to zero first, so these sequences get nothing added.

use engine_format::lora::LoraModule;

use super::error::NetworkError;
use super::graph::Graph;
use super::ops::{ElementWise, Op};
use super::plugin::Plugin;
use super::rank::Rank;
use super::tensor::TensorId;

/// The engine's part in LoRA: how large an adapter may be, and what it may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoraOptions {
    /// The largest rank of an adapter.
    pub max_rank: usize,
    /// What adapters may change.
    pub modules: LoraModules,
}

/// A set of modules. Queries, keys and values are one product, so it has all three or none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LoraModules(u8);

impl LoraModules {
    /// Whether `module` is one of them.
    pub const fn contains(self, module: LoraModule) -> bool {
        self.0 & (1 << module as u8) != 0
    }

    /// They, by ascending id.
    pub fn iter(self) -> impl Iterator<Item = LoraModule> {
        LoraModule::ALL.into_iter().filter(move |&module| self.contains(module))
    }
}

impl FromIterator<LoraModule> for LoraModules {
    fn from_iter<I: IntoIterator<Item = LoraModule>>(modules: I) -> Self {
        let bits = |modules: &[LoraModule]| modules.iter().fold(0, |bits, &module| bits | 1 << module as u8);
        let set = modules.into_iter().fold(0, |set, module| set | bits(&[module]));
        let qkv = bits(&QKV);
        Self(if set & qkv == 0 { set } else { set | qkv })
    }
}

const QKV: [LoraModule; 3] = [LoraModule::AttnQ, LoraModule::AttnK, LoraModule::AttnV];

/// Name of the input with the ranks of a module's adapters in this layer of the whole model, `[sequences]`.
pub(super) fn ranks_input(module: LoraModule, layer: usize) -> String {
    format!("{}_lora_ranks_{layer}", module.name())
}

/// Name of the input with the addresses of A, of B and of DoRA's magnitudes, `[sequences, 3]`.
pub(super) fn pointers_input(module: LoraModule, layer: usize) -> String {
    format!("{}_lora_weights_pointers_{layer}", module.name())
}

/// `product`, which is `[tokens, outputs]`, with what the adapters of `module` make of `x` added. `layer` counts from 0 on the rank.
pub(super) fn add_lora(
    graph: &mut Graph,
    rank: &Rank<'_>,
    layer: usize,
    module: LoraModule,
    x: TensorId,
    product: TensorId,
) -> Result<TensorId, NetworkError> {
    let Some(options) = rank.options.lora.filter(|lora| lora.modules.contains(module)) else { return Ok(product) };
    let columns = graph.tensor(product).shape[1];
    let delta = delta(graph, rank, layer, module, options.max_rank, x, columns)?;
    let name = format!("transformer.layers.{layer}.{}_lora.added", module.name());
    graph.add(name, Op::ElementWise(ElementWise::Sum), &[product, delta])
}

/// The product of queries, keys and values with what their adapters make of `x` added; each has so many `columns`.
pub(super) fn add_qkv_lora(
    graph: &mut Graph,
    rank: &Rank<'_>,
    layer: usize,
    x: TensorId,
    product: TensorId,
    columns: [usize; 3],
) -> Result<TensorId, NetworkError> {
    let Some(options) = rank.options.lora.filter(|lora| lora.modules.contains(LoraModule::AttnQ)) else {
        return Ok(product);
    };
    let mut deltas = Vec::new();
    for (module, columns) in QKV.into_iter().zip(columns) {
        deltas.push(delta(graph, rank, layer, module, options.max_rank, x, columns as i64)?);
    }
    let name = |part: &str| format!("transformer.layers.{layer}.attn_qkv_lora.{part}");
    let delta = graph.add(name("joined"), Op::Concatenation(1), &deltas)?;
    graph.add(name("added"), Op::ElementWise(ElementWise::Sum), &[product, delta])
}

/// B A x of each sequence's adapter, or zeros.
fn delta(
    graph: &mut Graph,
    rank: &Rank<'_>,
    layer: usize,
    module: LoraModule,
    max_rank: usize,
    x: TensorId,
    columns: i64,
) -> Result<TensorId, NetworkError> {
    let of_model = rank.first_layer() + layer;
    let names = [
        "host_request_types".to_owned(),
        ranks_input(module, of_model),
        pointers_input(module, of_model),
        "host_context_lengths".to_owned(),
    ];
    let mut inputs = vec![x];
    for name in names {
        let found = graph.input(&name).map(|input| input.tensor);
        let problem = || "the Lora plugin reads it, and the network does not have it".to_owned();
        inputs.push(found.ok_or_else(|| NetworkError::Input { input: name, problem: problem() })?);
    }
    let plugin = Plugin::lora(graph.tensor(x).shape[1], columns, max_rank);
    graph.add(format!("transformer.layers.{layer}.{}_lora", module.name()), Op::Plugin(plugin), &inputs)
}
