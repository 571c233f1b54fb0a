//! SwiGLU: silu(x fc^T) * (x gate^T), then the projection back.
//!
//! Source: TensorRT-LLM 1.x, `layers/mlp.py` (`GatedMLP`, `FusedGatedMLP`). Upstream's builder copies `gate` and `fc` into one weight and
//! cuts the product in two. Where the two follow each other in the rank's file they are one matrix as they are: one product
//! without a copy of the weights, cut by a reshape and two gathers, without shapes computed at run time. Elsewhere there are two
//! products, which are the same numbers. Between the products it is computed in fp32, so that the branch is rounded once and not
//! three times (sigmoid, silu, product): in bfloat16 throughout, logits would be further from the fp32 ones than Transformers' are.

use engine_format::lora::LoraModule;

use super::error::NetworkError;
use super::graph::Graph;
use super::linear::{all_reduce, cast, linear, product};
use super::lora::add_lora;
use super::ops::{ElementWise, Op, Value};
use super::rank::Rank;
use super::tensor::{DYNAMIC, DataType, TensorId};

/// Adds the MLP of the rank's layer `layer`, called `name`; the result is summed over the tensor-parallel ranks.
///
/// # Errors
/// [`NetworkError`] for an `x` that is no `[tokens, hidden]`.
pub fn mlp(
    graph: &mut Graph,
    rank: &Rank<'_>,
    name: &str,
    layer: usize,
    x: TensorId,
) -> Result<TensorId, NetworkError> {
    let hidden = rank.config.hidden_size;
    let width = rank.config.intermediate_size / rank.mapping.tp_size;
    let [fc, gate] = match rank.options.fused_mlp {
        true => both_halves(graph, rank, name, x, [width, hidden])?,
        false => [
            linear(graph, rank, &format!("{name}.fc"), x, [width, hidden])?,
            linear(graph, rank, &format!("{name}.gate"), x, [width, hidden])?,
        ],
    };
    let fc = add_lora(graph, rank, layer, LoraModule::MlpHTo4h, x, fc)?;
    let gate = add_lora(graph, rank, layer, LoraModule::MlpGate, x, gate)?;
    let fc = cast(graph, &format!("{name}.fc.to_float"), DataType::Float, fc)?;
    let sigmoid = graph.add(format!("{name}.fc.sigmoid"), Op::Sigmoid, &[fc])?;
    let silu = graph.add(format!("{name}.fc.silu"), Op::ElementWise(ElementWise::Prod), &[fc, sigmoid])?;
    let gate = cast(graph, &format!("{name}.gate.to_float"), DataType::Float, gate)?;
    let gated = graph.add(format!("{name}.inner"), Op::ElementWise(ElementWise::Prod), &[silu, gate])?;
    let gated = graph.add(format!("{name}.to_bf16"), Op::Cast(DataType::Bf16), &[gated])?;
    let partial = linear(graph, rank, &format!("{name}.proj"), gated, [hidden, width])?;
    let partial = add_lora(graph, rank, layer, LoraModule::Mlp4hToH, gated, partial)?;
    all_reduce(graph, rank, &format!("{name}.proj.all_reduce"), partial)
}

/// x times both matrices at once, `fc` first as in the file; each half is `[tokens, width]`.
fn both_halves(
    graph: &mut Graph,
    rank: &Rank<'_>,
    name: &str,
    x: TensorId,
    [width, hidden]: [usize; 2],
) -> Result<[TensorId; 2], NetworkError> {
    let fused = format!("{name}.fused_fc");
    let parts = ["fc", "gate"].map(|part| format!("{name}.{part}.weight"));
    let shape = vec![2 * width as i64, hidden as i64];
    let matrix = graph.constant(format!("{fused}.weight"), shape, Value::Neighbours(parts))?;
    let both = product(graph, rank, &fused, x, matrix)?;
    let halves = Op::Shuffle { reshape: vec![DYNAMIC, 2, width as i64], permutation: Vec::new() };
    let halves = graph.add(format!("{fused}.halves"), halves, &[both])?;
    let mut half = |part: &str, index| {
        let index = graph.constant(format!("{name}.{part}.index"), Vec::new(), Value::Integers(vec![index]))?;
        graph.add(format!("{name}.{part}"), Op::Gather(1), &[halves, index])
    };
    Ok([half("fc", 0)?, half("gate", 1)?])
}
