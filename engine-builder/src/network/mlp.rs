//! SwiGLU: silu(x fc^T) * (x gate^T), then the projection back.
//!
//! Source: TensorRT-LLM 1.x, `layers/mlp.py` (`GatedMLP`). Upstream's builder stacks `gate` and `fc` into one weight and cuts
//! the product in two (`fuse_gate_mlp`); the two products are the same numbers without a copy of the weights and without
//! shapes computed at run time. Between the products it is computed in fp32, so that the branch is rounded once and not three times
//! (sigmoid, silu, product): in bfloat16 throughout, logits would be further from the fp32 ones than Transformers' are.

use super::error::NetworkError;
use super::graph::Graph;
use super::linear::{all_reduce, linear};
use super::ops::{ElementWise, Op};
use super::rank::Rank;
use super::tensor::{DataType, TensorId};

/// Adds the MLP called `name`; the result is summed over the tensor-parallel ranks.
///
/// # Errors
/// [`NetworkError`] for an `x` that is no `[tokens, hidden]`.
pub fn mlp(graph: &mut Graph, rank: &Rank<'_>, name: &str, x: TensorId) -> Result<TensorId, NetworkError> {
    let hidden = rank.config.hidden_size;
    let width = rank.config.intermediate_size / rank.mapping.tp_size;
    let branch = |graph: &mut Graph, part: &str| {
        let name = format!("{name}.{part}");
        let product = linear(graph, rank, &name, x, [width, hidden])?;
        graph.add(format!("{name}.to_float"), Op::Cast(DataType::Float), &[product])
    };
    let fc = branch(graph, "fc")?;
    let sigmoid = graph.add(format!("{name}.sigmoid"), Op::Sigmoid, &[fc])?;
    let silu = graph.add(format!("{name}.silu"), Op::ElementWise(ElementWise::Prod), &[fc, sigmoid])?;
    let gate = branch(graph, "gate")?;
    let gated = graph.add(format!("{name}.inner"), Op::ElementWise(ElementWise::Prod), &[silu, gate])?;
    let gated = graph.add(format!("{name}.to_bf16"), Op::Cast(DataType::Bf16), &[gated])?;
    let partial = linear(graph, rank, &format!("{name}.proj"), gated, [hidden, width])?;
    all_reduce(graph, rank, &format!("{name}.proj.all_reduce"), partial)
}
