//! SwiGLU: silu(x fc^T) * (x gate^T), then the projection back.
//!
//! Source: TensorRT-LLM 1.x, `layers/mlp.py` (`GatedMLP`). Upstream's builder stacks `gate` and `fc` into one weight and cuts
//! the product in two (`fuse_gate_mlp`); the two products are the same numbers without a copy of the weights and without
//! shapes computed at run time.

use super::decoder::Rank;
use super::graph::{Graph, NetworkError, TensorId};
use super::ops::{ElementWise, Op};

/// Adds the MLP called `name`; the result is summed over the tensor-parallel ranks.
///
/// # Errors
/// [`NetworkError`] for an `x` that is no `[tokens, hidden]`.
pub fn mlp(graph: &mut Graph, rank: &Rank<'_>, name: &str, x: TensorId) -> Result<TensorId, NetworkError> {
    let hidden = rank.config.hidden_size;
    let width = rank.config.intermediate_size / rank.mapping.tp_size;
    let fc = rank.linear(graph, &format!("{name}.fc"), x, [width, hidden])?;
    let sigmoid = graph.add(format!("{name}.sigmoid"), Op::Sigmoid, &[fc])?;
    let silu = graph.add(format!("{name}.silu"), Op::ElementWise(ElementWise::Prod), &[fc, sigmoid])?;
    let gate = rank.linear(graph, &format!("{name}.gate"), x, [width, hidden])?;
    let inner = graph.add(format!("{name}.inner"), Op::ElementWise(ElementWise::Prod), &[silu, gate])?;
    let out = rank.linear(graph, &format!("{name}.proj"), inner, [hidden, width])?;
    rank.all_reduce(graph, &format!("{name}.proj.all_reduce"), out)
}
