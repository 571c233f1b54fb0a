//! Linear layers of a rank: product, bias, and the sum over the tensor-parallel ranks.
//!
//! Source: TensorRT-LLM 1.x, `layers/linear.py` (`ColumnLinear`, `RowLinear`).

use super::error::NetworkError;
use super::graph::Graph;
use super::ops::{ElementWise, Op, Value};
use super::plugin::Plugin;
use super::rank::Rank;
use super::tensor::{DataType, TensorId};

/// Adds the weight matrix called `name`, of this shape.
pub(super) fn weight(graph: &mut Graph, name: &str, shape: [usize; 2]) -> Result<TensorId, NetworkError> {
    graph.constant(name.to_owned(), shape.map(|size| size as i64).to_vec(), Value::Weight(name.to_owned()))
}

/// x in this type; x itself where it has it.
pub(super) fn cast(graph: &mut Graph, name: &str, dtype: DataType, x: TensorId) -> Result<TensorId, NetworkError> {
    match graph.tensor(x).dtype == dtype {
        true => Ok(x),
        false => graph.add(name.to_owned(), Op::Cast(dtype), &[x]),
    }
}

/// x times the transposed matrix `weight`.
pub(super) fn product(
    graph: &mut Graph,
    rank: &Rank<'_>,
    name: &str,
    x: TensorId,
    weight: TensorId,
) -> Result<TensorId, NetworkError> {
    let op = match rank.options.gemm_plugin {
        true => Op::Plugin(Plugin::gemm()),
        false => Op::MatrixMultiply,
    };
    graph.add(name.to_owned(), op, &[x, weight])
}

/// x times the transposed weight `{name}.weight`, which has this shape.
pub(super) fn linear(
    graph: &mut Graph,
    rank: &Rank<'_>,
    name: &str,
    x: TensorId,
    shape: [usize; 2],
) -> Result<TensorId, NetworkError> {
    let matrix = weight(graph, &format!("{name}.weight"), shape)?;
    product(graph, rank, name, x, matrix)
}

/// x plus `{name}.bias`, which has `size` elements, in fp32.
pub(super) fn bias(graph: &mut Graph, name: &str, x: TensorId, size: usize) -> Result<TensorId, NetworkError> {
    let stored = format!("{name}.bias");
    let bias = graph.constant(stored.clone(), vec![1, size as i64], Value::Weight(stored))?;
    let bias = graph.add(format!("{name}.bias.to_float"), Op::Cast(DataType::Float), &[bias])?;
    let x = graph.add(format!("{name}.to_float"), Op::Cast(DataType::Float), &[x])?;
    graph.add(format!("{name}.biased"), Op::ElementWise(ElementWise::Sum), &[x, bias])
}

/// The sum of x over the tensor-parallel ranks; x itself where there is only one.
pub(super) fn all_reduce(
    graph: &mut Graph,
    rank: &Rank<'_>,
    name: &str,
    x: TensorId,
) -> Result<TensorId, NetworkError> {
    if rank.mapping.tp_size == 1 {
        return Ok(x);
    }
    let workspace = graph.input("all_reduce_workspace").ok_or_else(|| NetworkError::Input {
        input: "all_reduce_workspace".to_owned(),
        problem: "AllReduce reads it, and the network does not have it".to_owned(),
    })?;
    let inputs = [x, workspace.tensor];
    graph.add(name.to_owned(), Op::Plugin(Plugin::all_reduce(rank.tp_group())), &inputs)
}
