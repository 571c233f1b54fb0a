//! A network as data, repeated call by call on nvinfer1.

use engine_format::Mapping;
use trtllm_sys::gpu::{
    Activation, DataType as GpuDataType, ElementWise as GpuElementWise, GpuError, GpuNetwork, NetworkInput,
    NetworkNode, NetworkOp, PluginField, PluginValues, Reduce, Unary,
};

use crate::error::{BuildError, Result};
use crate::network::graph::{Graph, Node, Profile};
use crate::network::ops::{ElementWise, Op, Value};
use crate::network::plugin::{FieldValues, PLUGIN_NAMESPACE, PLUGIN_VERSION, Plugin};
use crate::network::{DataType, NetworkError, RankNetwork};
use crate::source::{PartView, Source};

/// Adds every input, node and output of `network` to `gpu_network`. Weights are read where `checkpoint`, which is split by
/// `mapping`, is mapped.
///
/// # Errors
/// [`BuildError::TensorRt`] for a call that nvinfer1 refuses, [`NetworkError::Weight`] for a weight that cannot be used.
pub(super) fn replay<'w>(
    network: &'w RankNetwork,
    checkpoint: &'w Source,
    mapping: Mapping,
    gpu_network: &mut GpuNetwork<'w>,
) -> Result<()> {
    let failed = |source| BuildError::TensorRt { rank: network.rank, source };
    let graph = &network.graph;
    // nvinfer1's number of each of the graph's tensors.
    let mut gpu_tensors = Vec::with_capacity(graph.tensors.len());
    for input in &graph.inputs {
        let tensor = graph.tensor(input.tensor);
        let names: Vec<_> = input.dimensions.iter().map(|&name| Some(name)).collect();
        let profile = |profile: &Profile| [profile.min.clone(), profile.opt.clone(), profile.max.clone()];
        let profiles: Vec<_> = input.profiles.iter().map(profile).collect();
        let described = NetworkInput {
            name: &input.name,
            dtype: data_type(tensor.dtype),
            shape: &tensor.shape,
            dimension_names: &names,
            profiles: &profiles,
        };
        gpu_tensors.push(gpu_network.add_input(&described).map_err(failed)?);
    }
    for node in &graph.nodes {
        let output = graph.tensor(node.output);
        let gpu_tensor = match &node.op {
            Op::Constant { shape, value } => {
                let (bytes, weight) = constant(value, checkpoint, mapping, network.rank)?;
                gpu_network.add_constant(&node.name, data_type(output.dtype), shape, bytes, weight)
            }
            _ => add_node(gpu_network, graph, node, &gpu_tensors),
        };
        gpu_tensors.push(gpu_tensor.map_err(failed)?);
    }
    for output in &graph.outputs {
        gpu_network.mark_output(gpu_tensors[output.tensor.0], output.name).map_err(failed)?;
    }
    Ok(())
}

/// A constant's bytes where they are, in the mapped checkpoint or in the graph, and the weight's name.
fn constant<'w>(
    value: &'w Value,
    checkpoint: &'w Source,
    mapping: Mapping,
    rank: usize,
) -> Result<(&'w [u8], Option<&'w str>)> {
    match value {
        Value::Floats(numbers) => Ok((bytemuck::cast_slice(numbers), None)),
        Value::Integers(numbers) => Ok((bytemuck::cast_slice(numbers), None)),
        Value::Weight(name) => {
            let view = tensor(checkpoint, mapping, rank, name)?;
            let elements = view.as_bf16(0..view.row_count()).ok_or_else(|| unusable(name))?;
            Ok((bytemuck::cast_slice(elements), Some(name)))
        }
        Value::Neighbours([first, second]) => {
            let view = tensor(checkpoint, mapping, rank, first)?;
            let elements =
                view.followed_by(&tensor(checkpoint, mapping, rank, second)?).ok_or_else(|| unusable(first))?;
            Ok((bytemuck::cast_slice(elements), Some(first)))
        }
    }
}

/// The rank's tensor of this name.
fn tensor<'w>(checkpoint: &'w Source, mapping: Mapping, rank: usize, name: &str) -> Result<PartView<'w>> {
    let problem = || "is not in the rank's checkpoint".to_owned();
    let missing = || NetworkError::Weight { weight: name.to_owned(), problem: problem() };
    Ok(checkpoint.rank_tensor(mapping, rank, name)?.ok_or_else(missing)?)
}

fn unusable(name: &str) -> NetworkError {
    let problem = "is not bfloat16 at an even place in its file: write the checkpoint again".to_owned();
    NetworkError::Weight { weight: name.to_owned(), problem }
}

const fn data_type(dtype: DataType) -> GpuDataType {
    match dtype {
        DataType::Float => GpuDataType::Float,
        DataType::Int32 => GpuDataType::Int32,
        DataType::Bf16 => GpuDataType::Bf16,
        DataType::Int64 => GpuDataType::Int64,
    }
}

/// Adds an operation other than a constant.
fn add_node(
    gpu_network: &mut GpuNetwork<'_>,
    graph: &Graph,
    node: &Node,
    gpu_tensors: &[u32],
) -> std::result::Result<u32, GpuError> {
    let output = graph.tensor(node.output);
    let axes: Vec<i32>;
    let fields: Vec<PluginField<'_>>;
    let op = match &node.op {
        Op::Constant { .. } => return Err(GpuError::Network { message: format!("`{}` is a constant", node.name) }),
        Op::Gather(axis) => NetworkOp::Gather { axis: *axis as i32 },
        Op::MatrixMultiply => NetworkOp::MatrixMultiply { transpose: true },
        Op::ElementWise(op) => NetworkOp::ElementWise(match op {
            ElementWise::Sum => GpuElementWise::Sum,
            ElementWise::Prod => GpuElementWise::Prod,
            ElementWise::Sub => GpuElementWise::Sub,
            ElementWise::Div => GpuElementWise::Div,
            ElementWise::Pow => GpuElementWise::Pow,
        }),
        Op::Sqrt => NetworkOp::Unary(Unary::Sqrt),
        Op::Mean => NetworkOp::Reduce { op: Reduce::Avg, axes: 1 << (output.shape.len() - 1) },
        Op::Sigmoid => NetworkOp::Activation(Activation::Sigmoid),
        Op::Cast(_) => NetworkOp::Cast,
        Op::Shuffle { reshape, permutation } => {
            axes = permutation.iter().map(|&axis| axis as i32).collect();
            NetworkOp::Shuffle { reshape, permutation: (!axes.is_empty()).then_some(axes.as_slice()) }
        }
        Op::Concatenation(axis) => NetworkOp::Concatenation { axis: *axis as i32 },
        Op::Plugin(plugin) => {
            fields = plugin_fields(plugin);
            NetworkOp::Plugin {
                name: plugin.name,
                version: PLUGIN_VERSION,
                namespace: PLUGIN_NAMESPACE,
                fields: &fields,
            }
        }
    };
    let inputs: Vec<_> = node.inputs.iter().map(|id| gpu_tensors[id.0]).collect();
    gpu_network.add_node(&NetworkNode {
        name: &node.name,
        op,
        inputs: &inputs,
        dtype: data_type(output.dtype),
        shape: &output.shape,
    })
}

fn plugin_fields(plugin: &Plugin) -> Vec<PluginField<'_>> {
    fn values(values: &FieldValues) -> PluginValues<'_> {
        match values {
            FieldValues::Int8(values) => PluginValues::Int8(values),
            FieldValues::Int32(values) => PluginValues::Int32(values),
            FieldValues::Float32(values) => PluginValues::Float32(values),
        }
    }
    plugin.fields.iter().map(|field| PluginField { name: field.name, values: values(&field.values) }).collect()
}
