//! Attention: QKV projection, TensorRT-LLM's GPTAttention plugin with its paged KV cache, output projection.
//!
//! Source: TensorRT-LLM 1.x, `layers/attention.py` and `functional.py` (`gpt_attention`).

use engine_format::Weight;

use super::decoder::Rank;
use super::graph::{DataType, Graph, NetworkError, TensorId};
use super::ops::Op;
use super::plugin::{ATTENTION_INPUTS, AttentionInput, Plugin};
use super::rope::RotaryTables;

/// Adds the attention of the rank's layer `layer`, called `name`; the result is summed over the tensor-parallel ranks.
///
/// # Errors
/// [`NetworkError`] for an `x` that is no `[tokens, hidden]`.
pub fn attention(
    graph: &mut Graph,
    rank: &Rank<'_>,
    name: &str,
    layer: usize,
    x: TensorId,
    tables: RotaryTables,
) -> Result<TensorId, NetworkError> {
    let shard = |weight: Weight| rank.shape_of(weight);
    let [rows, columns] = shard(Weight::Qkv(rank.first_layer()));
    let mut qkv = rank.linear(graph, &format!("{name}.qkv"), x, [rows, columns])?;
    if rank.config.attention_bias {
        let biased = rank.bias(graph, &format!("{name}.qkv"), qkv, rows)?;
        qkv = graph.add(format!("{name}.qkv.to_bf16"), Op::Cast(DataType::Bf16), &[biased])?;
    }
    let mut inputs = Vec::new();
    for input in ATTENTION_INPUTS {
        inputs.push(match input {
            AttentionInput::Qkv => qkv,
            AttentionInput::RotaryInvFreq => tables.inv_freq,
            AttentionInput::RotaryCosSin => tables.cos_sin,
            AttentionInput::Network(input, ..) => {
                let found = graph.input(input).ok_or_else(|| NetworkError::Input {
                    input: (*input).to_owned(),
                    problem: "GPTAttention reads it, and the network does not have it".to_owned(),
                })?;
                found.tensor
            }
        });
    }
    let plugin = Plugin::gpt_attention(rank, layer);
    let context = graph.add(name.to_owned(), Op::Plugin(plugin), &inputs)?;
    let [rows, columns] = shard(Weight::Dense(rank.first_layer()));
    let dense = format!("{name}.dense");
    let out = rank.linear(graph, &dense, context, [rows, columns])?;
    let out = rank.all_reduce(graph, &format!("{dense}.all_reduce"), out)?;
    match rank.config.attention_bias {
        true => rank.bias(graph, &dense, out, rows),
        false => Ok(out),
    }
}
