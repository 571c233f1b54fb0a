//! A network for people and programs: text, JSON, Graphviz.

use serde_json::{Value as Json, json};

use super::graph::{Graph, Node, Profile};
use super::ops::{Op, Value};
use super::plugin::{FieldValues, PLUGIN_NAMESPACE, PLUGIN_VERSION, Plugin};
use super::tensor::{DYNAMIC, TensorId};

/// How a network is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A line for each input, node and output.
    Text,
    /// One object.
    Json,
    /// A graph in Graphviz' language.
    Dot,
}

/// The most elements of a constant that are printed.
const MAX_PRINTED_ELEMENTS: usize = 256;

/// The network as text in this format.
pub fn print(graph: &Graph, format: Format) -> String {
    match format {
        Format::Text => text(graph),
        Format::Json => format!("{:#}\n", to_json(graph)),
        Format::Dot => dot(graph),
    }
}

/// `%0` of a node, the name of an input.
fn reference(graph: &Graph, id: TensorId) -> String {
    match graph.inputs.get(id.0) {
        Some(input) => input.name.clone(),
        None => format!("%{}", id.0 - graph.inputs.len()),
    }
}

/// The name of the layer that nvinfer1 makes of an operation.
fn layer_kind(op: &Op) -> String {
    match op {
        Op::Constant { .. } => "Constant".into(),
        Op::Gather(_) => "Gather".into(),
        Op::MatrixMultiply => "MatrixMultiply".into(),
        Op::ElementWise(_) => "ElementWise".into(),
        Op::Sqrt => "Unary".into(),
        Op::Mean => "Reduce".into(),
        Op::Sigmoid => "Activation".into(),
        Op::Cast(_) => "Cast".into(),
        Op::Shuffle { .. } => "Shuffle".into(),
        Op::Concatenation(_) => "Concatenation".into(),
        Op::Plugin(plugin) => format!("Plugin:{}", plugin.name),
    }
}

fn fields(plugin: &Plugin) -> Json {
    let to_json = |values: &FieldValues| match values {
        FieldValues::Int8(values) => json!(values),
        FieldValues::Int32(values) => json!(values),
        FieldValues::Float32(values) => json!(values),
    };
    plugin.fields.iter().map(|field| json!([field.name, field.values.kind().name(), to_json(&field.values)])).collect()
}

/// The network as one object, in the order and the terms of nvinfer1's calls.
pub fn to_json(graph: &Graph) -> Json {
    let inputs = graph.inputs.iter().map(|input| {
        let tensor = graph.tensor(input.tensor);
        let dims: serde_json::Map<_, _> =
            input.dimensions.iter().enumerate().map(|(axis, &name)| (axis.to_string(), json!(name))).collect();
        let profile = |profile: &Profile| json!({ "min": profile.min, "opt": profile.opt, "max": profile.max });
        json!({
            "name": input.name,
            "dtype": tensor.dtype.name(),
            "shape": tensor.shape,
            "dims": dims,
            "profiles": input.profiles.iter().map(profile).collect::<Vec<_>>(),
        })
    });
    let outputs = graph.outputs.iter().map(|output| {
        let tensor = graph.tensor(output.tensor);
        json!([output.name, tensor.dtype.name(), tensor.shape, reference(graph, output.tensor)])
    });
    json!({
        "name": graph.name,
        "flags": ["STRONGLY_TYPED"],
        "inputs": inputs.collect::<Vec<_>>(),
        "layers": graph.nodes.iter().map(|node| layer(graph, node)).collect::<Vec<_>>(),
        "outputs": outputs.collect::<Vec<_>>(),
    })
}

fn layer(graph: &Graph, node: &Node) -> Json {
    let output = graph.tensor(node.output);
    let mut layer = json!({
        "id": reference(graph, node.output),
        "name": node.name,
        "kind": layer_kind(&node.op),
        "in": node.inputs.iter().map(|&id| reference(graph, id)).collect::<Vec<_>>(),
        "dtype": output.dtype.name(),
        "shape": output.shape,
    });
    let parameters = match &node.op {
        Op::Constant { value, .. } => match value {
            Value::Weight(name) => json!({ "of": name, "value": null }),
            Value::Neighbours(names) => json!({ "of": names.join("+"), "value": null }),
            Value::Floats(numbers) if numbers.len() <= MAX_PRINTED_ELEMENTS => {
                json!({ "of": node.name, "value": numbers })
            }
            Value::Integers(numbers) if numbers.len() <= MAX_PRINTED_ELEMENTS => {
                json!({ "of": node.name, "value": numbers })
            }
            Value::Floats(_) | Value::Integers(_) => json!({ "of": node.name, "value": null }),
        },
        Op::Gather(axis) => json!({ "axis": axis, "mode": "DEFAULT" }),
        Op::MatrixMultiply => json!({ "opA": "NONE", "opB": "TRANSPOSE" }),
        Op::ElementWise(op) => json!({ "op": op.name() }),
        Op::Sqrt => json!({ "op": "SQRT" }),
        Op::Mean => json!({ "op": "AVG", "axes": 1 << (output.shape.len() - 1), "keep": true }),
        Op::Sigmoid => json!({ "op": "SIGMOID" }),
        Op::Cast(dtype) => json!({ "to": dtype.name() }),
        Op::Shuffle { reshape, permutation } => {
            let permutation = (!permutation.is_empty()).then_some(permutation);
            json!({ "reshape": reshape, "permutation": permutation })
        }
        Op::Concatenation(axis) => json!({ "axis": axis }),
        Op::Plugin(plugin) => {
            json!({ "version": PLUGIN_VERSION, "namespace": PLUGIN_NAMESPACE, "fields": fields(plugin) })
        }
    };
    if let (Some(layer), Json::Object(parameters)) = (layer.as_object_mut(), parameters) {
        layer.extend(parameters);
    }
    layer
}

/// What a node does, in a word or two.
fn summary(op: &Op) -> String {
    match op {
        Op::Constant { value: Value::Weight(_), .. } => "weight".into(),
        Op::Constant { value: Value::Neighbours(_), .. } => "two weights".into(),
        Op::Constant { value: Value::Floats(numbers), .. } if numbers.len() == 1 => format!("{:e}", numbers[0]),
        Op::Constant { value: Value::Integers(numbers), .. } if numbers.len() == 1 => numbers[0].to_string(),
        Op::Constant { .. } => "table".into(),
        Op::Gather(0) => "gather".into(),
        Op::Gather(axis) => format!("gather on axis {axis}"),
        Op::MatrixMultiply => "matmul".into(),
        Op::ElementWise(op) => op.name().to_lowercase(),
        Op::Sqrt => "sqrt".into(),
        Op::Mean => "mean".into(),
        Op::Sigmoid => "sigmoid".into(),
        Op::Cast(dtype) => format!("cast to {}", dtype.name()),
        Op::Shuffle { reshape, permutation } if permutation.is_empty() => format!("reshape to {reshape:?}"),
        Op::Shuffle { reshape, permutation } => format!("reshape to {reshape:?}, permute {permutation:?}"),
        Op::Concatenation(axis) => format!("concatenate on axis {axis}"),
        Op::Plugin(plugin) => plugin.name.into(),
    }
}

fn shape(shape: &[i64]) -> String {
    let sizes: Vec<_> =
        shape.iter().map(|&size| if size == DYNAMIC { "?".to_owned() } else { size.to_string() }).collect();
    format!("[{}]", sizes.join(", "))
}

fn text(graph: &Graph) -> String {
    let mut lines = vec![format!("network {}", graph.name), String::new(), "inputs".to_owned()];
    for input in &graph.inputs {
        let tensor = graph.tensor(input.tensor);
        let dim = |(name, size): (&&str, &i64)| match *size {
            DYNAMIC => (*name).to_owned(),
            size => format!("{name} = {size}"),
        };
        let dims: Vec<_> = input.dimensions.iter().zip(&tensor.shape).map(dim).collect();
        let mut profiles = input.profiles.clone();
        profiles.dedup();
        let range = |profile: &Profile| match profile.min == profile.max {
            true => String::new(),
            false => format!("  from {} to {}, best {}", shape(&profile.min), shape(&profile.max), shape(&profile.opt)),
        };
        let ranges: Vec<_> = profiles.iter().map(range).collect();
        let ranges = ranges.join(";");
        lines.push(format!("  {:<32} {:<6} [{}]{ranges}", input.name, tensor.dtype.name(), dims.join(", ")));
    }
    lines.extend([String::new(), "nodes".to_owned()]);
    let width = graph.nodes.iter().map(|node| node.name.len()).max().unwrap_or(0);
    for node in &graph.nodes {
        let output = graph.tensor(node.output);
        let inputs: Vec<_> = node.inputs.iter().map(|&id| reference(graph, id)).collect();
        let arguments = if inputs.is_empty() { String::new() } else { format!(" ({})", inputs.join(", ")) };
        let id = reference(graph, node.output);
        let (dtype, shape) = (output.dtype.name(), shape(&output.shape));
        lines.push(format!(
            "  {id:<6} {:<width$}  {dtype:<5} {shape:<14}  {}{arguments}",
            node.name,
            summary(&node.op)
        ));
    }
    lines.extend([String::new(), "outputs".to_owned()]);
    for output in &graph.outputs {
        let tensor = graph.tensor(output.tensor);
        let from = reference(graph, output.tensor);
        lines.push(format!("  {} {} {} = {from}", output.name, tensor.dtype.name(), shape(&tensor.shape)));
    }
    lines.iter().map(|line| format!("{}\n", line.trim_end())).collect()
}

fn dot(graph: &Graph) -> String {
    let mut lines = vec![
        "digraph network {".to_owned(),
        format!("  label={:?}; rankdir=TB; node [fontname=\"sans-serif\", fontsize=10];", graph.name),
    ];
    for input in &graph.inputs {
        let tensor = graph.tensor(input.tensor);
        lines.push(format!(
            "  {:?} [shape=ellipse, label=\"{}\\n{} {}\"];",
            input.name,
            input.name,
            tensor.dtype.name(),
            shape(&tensor.shape)
        ));
    }
    for node in &graph.nodes {
        let output = graph.tensor(node.output);
        let style = match node.op {
            Op::Constant { .. } => "shape=note, color=gray",
            Op::Plugin(_) => "shape=box, style=bold",
            _ => "shape=box",
        };
        let id = reference(graph, node.output);
        let (dtype, shape) = (output.dtype.name(), shape(&output.shape));
        lines.push(format!("  {id:?} [{style}, label=\"{}\\n{}\\n{dtype} {shape}\"];", node.name, summary(&node.op)));
        lines.extend(node.inputs.iter().map(|&input| format!("  {:?} -> {id:?};", reference(graph, input))));
    }
    for output in &graph.outputs {
        let name = format!("output {}", output.name);
        lines.push(format!("  {name:?} [shape=ellipse, style=bold, label={:?}];", output.name));
        lines.push(format!("  {:?} -> {name:?};", reference(graph, output.tensor)));
    }
    lines.push("}".to_owned());
    lines.iter().map(|line| format!("{line}\n")).collect()
}
