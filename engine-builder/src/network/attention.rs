//! Attention: QKV projection, TensorRT-LLM's GPTAttention plugin with its paged KV cache, output projection.
//!
//! Source: TensorRT-LLM 1.x, `layers/attention.py` and `functional.py` (`gpt_attention`).

use engine_format::Weight;
use engine_format::lora::LoraModule;

use super::error::NetworkError;
use super::graph::Graph;
use super::linear::{all_reduce, bias, linear};
use super::lora::{add_lora, add_qkv_lora};
use super::ops::Op;
use super::plugin::{ATTENTION_INPUTS, AttentionInput, Plugin};
use super::rank::Rank;
use super::rope::RotaryTables;
use super::tensor::{DataType, TensorId};

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
    // Every layer's weights have the same shapes.
    let qkv_shape = rank.shape_of(Weight::Qkv(rank.first_layer()));
    let dense_shape = rank.shape_of(Weight::Dense(rank.first_layer()));

    let qkv_name = format!("{name}.qkv");
    let mut qkv = linear(graph, rank, &qkv_name, x, qkv_shape)?;
    let query = dense_shape[1];
    let key = (qkv_shape[0] - query) / 2;
    qkv = add_qkv_lora(graph, rank, layer, x, qkv, [query, key, key])?;
    if rank.config.attention_bias {
        let biased = bias(graph, &qkv_name, qkv, qkv_shape[0])?;
        qkv = graph.add(format!("{qkv_name}.to_bf16"), Op::Cast(DataType::Bf16), &[biased])?;
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
    let context = graph.add(name.to_owned(), Op::Plugin(Plugin::gpt_attention(rank, layer)), &inputs)?;

    let dense_name = format!("{name}.dense");
    let partial = linear(graph, rank, &dense_name, context, dense_shape)?;
    let partial = add_lora(graph, rank, layer, LoraModule::AttnDense, context, partial)?;
    let dense = all_reduce(graph, rank, &format!("{dense_name}.all_reduce"), partial)?;
    match rank.config.attention_bias {
        true => bias(graph, &dense_name, dense, dense_shape[0]),
        false => Ok(dense),
    }
}
