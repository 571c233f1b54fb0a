//! SwiGLU: silu(x fc^T) * (x gate^T), then the projection back.
//!
//! Source: TensorRT-LLM 1.x, `layers/mlp.py` (`GatedMLP`). Upstream's builder stacks `gate` and `fc` into one weight and cuts
//! the product in two (`fuse_gate_mlp`); the two products are the same numbers without a copy of the weights and without
//! shapes computed at run time. Between the products it is computed in fp32, so that the branch is rounded once and not three times
//! (sigmoid, silu, product): in bfloat16 throughout, logits would be further from the fp32 ones than Transformers' are.

use super::decoder::Rank;
use super::graph::{DataType, Graph, NetworkError, TensorId};
use super::ops::{ElementWise, Op};

/// Adds the MLP called `name`; the result is summed over the tensor-parallel ranks.
///
/// # Errors
/// [`NetworkError`] for an `x` that is no `[tokens, hidden]`.
pub fn mlp(graph: &mut Graph, rank: &Rank<'_>, name: &str, x: TensorId) -> Result<TensorId, NetworkError> {
    let hidden = rank.config.hidden_size;
    let width = rank.config.intermediate_size / rank.mapping.tp_size;
    let wide = |graph: &mut Graph, part: &str| {
        let name = format!("{name}.{part}");
        let product = rank.linear(graph, &name, x, [width, hidden])?;
        graph.add(format!("{name}.to_float"), Op::Cast(DataType::Float), &[product])
    };
    let fc = wide(graph, "fc")?;
    let sigmoid = graph.add(format!("{name}.sigmoid"), Op::Sigmoid, &[fc])?;
    let silu = graph.add(format!("{name}.silu"), Op::ElementWise(ElementWise::Prod), &[fc, sigmoid])?;
    let gate = wide(graph, "gate")?;
    let inner = graph.add(format!("{name}.inner"), Op::ElementWise(ElementWise::Prod), &[silu, gate])?;
    let inner = graph.add(format!("{name}.to_bf16"), Op::Cast(DataType::Bf16), &[inner])?;
    let out = rank.linear(graph, &format!("{name}.proj"), inner, [hidden, width])?;
    rank.all_reduce(graph, &format!("{name}.proj.all_reduce"), out)
}
