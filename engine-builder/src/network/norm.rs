//! RMSNorm in fp32, whatever type x has: x / sqrt(mean(x^2) + epsilon) times gamma, rounded to bfloat16 once.
//!
//! Source: TensorRT-LLM 1.x, `functional.py` (`rms_norm`), without its plugin. There, and in Transformers' `MistralRMSNorm`, gamma comes
//! after the rounding, in bfloat16, which rounds twice.

use super::error::NetworkError;
use super::graph::Graph;
use super::linear::cast;
use super::ops::{ElementWise, Op, Value};
use super::tensor::{DataType, TensorId};

/// Adds the norm called `name`, whose weight is `{name}.weight`, of the residual stream `x`.
///
/// # Errors
/// [`NetworkError`] for an `x` that is no `[tokens, hidden]`.
pub fn rms_norm(
    graph: &mut Graph,
    name: &str,
    x: TensorId,
    hidden_size: usize,
    epsilon: f32,
) -> Result<TensorId, NetworkError> {
    let scalar = |graph: &mut Graph, part: &str, value| {
        graph.constant(format!("{name}.{part}"), vec![1, 1], Value::Floats(vec![value]))
    };
    let x = cast(graph, &format!("{name}.to_float"), DataType::Float, x)?;
    let weight = format!("{name}.weight");
    let gamma = graph.constant(weight.clone(), vec![1, hidden_size as i64], Value::Weight(weight))?;
    let two = scalar(graph, "two", 2.0)?;
    let square = graph.add(format!("{name}.square"), Op::ElementWise(ElementWise::Pow), &[x, two])?;
    let mean_square = graph.add(format!("{name}.mean"), Op::Mean, &[square])?;
    let epsilon = scalar(graph, "epsilon", epsilon)?;
    let sum = graph.add(format!("{name}.variance"), Op::ElementWise(ElementWise::Sum), &[mean_square, epsilon])?;
    let root = graph.add(format!("{name}.sqrt"), Op::Sqrt, &[sum])?;
    let normalized = graph.add(format!("{name}.normal"), Op::ElementWise(ElementWise::Div), &[x, root])?;
    let gamma = graph.add(format!("{name}.weight.to_float"), Op::Cast(DataType::Float), &[gamma])?;
    let scaled = graph.add(format!("{name}.scaled"), Op::ElementWise(ElementWise::Prod), &[normalized, gamma])?;
    graph.add(name.to_owned(), Op::Cast(DataType::Bf16), &[scaled])
}
