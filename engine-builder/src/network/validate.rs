//! Everything that can be said about a network before TensorRT sees it: what it would refuse is refused here, by name.

use std::collections::{BTreeMap, BTreeSet};

use super::error::NetworkError;
use super::graph::{Graph, Input, Profile};
use super::ops::{self, Op, Value};
use super::options::Release;
use super::tensor::DYNAMIC;

/// Checks that every operation works out, that plugins have the fields of `release`, that profiles hold, and that every weight
/// is there: `weight_shape` gives the shape of the rank's bfloat16 tensor of that name.
///
/// # Errors
/// [`NetworkError`] with the first node, field, input or weight that is invalid.
pub fn validate(
    graph: &Graph,
    release: Release,
    weight_shape: impl Fn(&str) -> Option<Vec<usize>>,
) -> Result<(), NetworkError> {
    let mut names = BTreeSet::new();
    for input in &graph.inputs {
        check_profiles(graph, input)?;
        if !names.insert(input.name.as_str()) {
            return refuse_input(input, "there are two of this name".to_owned());
        }
    }
    check_dimension_names(graph)?;
    for node in &graph.nodes {
        let refuse = |problem: String| Err(NetworkError::Node { node: node.name.clone(), problem });
        if !names.insert(&node.name) {
            return refuse("there are two of this name".to_owned());
        }
        if node.inputs.iter().any(|&input| input >= node.output) {
            return refuse("it reads what is made after it".to_owned());
        }
        if let Op::Plugin(plugin) = &node.op {
            plugin.check_fields(release, &node.name)?;
        }
        let inputs: Vec<_> = node.inputs.iter().map(|&id| graph.tensor(id)).collect();
        let output = graph.tensor(node.output);
        match ops::infer(&node.op, &inputs) {
            Ok(inferred) if inferred == *output => {}
            Ok(inferred) => {
                return refuse(format!(
                    "it makes {} {:?}, not {} {:?}",
                    inferred.dtype.name(),
                    inferred.shape,
                    output.dtype.name(),
                    output.shape
                ));
            }
            Err(problem) => return refuse(problem),
        }
        match &node.op {
            Op::Constant { shape, value: Value::Weight(weight) } => check_weight(weight, shape, weight_shape(weight))?,
            Op::Constant { shape, value: Value::Neighbours(weights) } => {
                let half = [shape[0] / 2, shape[1]];
                for weight in weights {
                    check_weight(weight, &half, weight_shape(weight))?;
                }
            }
            _ => {}
        }
    }
    match graph.outputs.is_empty() {
        true => Err(NetworkError::Model("network: it has no outputs".to_owned())),
        false => Ok(()),
    }
}

/// Checks a weight against the checkpoint, where a vector, which is a matrix of one row in the network, has one dimension.
fn check_weight(weight: &str, shape: &[i64], stored: Option<Vec<usize>>) -> Result<(), NetworkError> {
    let refuse = |problem: String| Err(NetworkError::Weight { weight: weight.to_owned(), problem });
    let Some(stored) = stored else {
        return refuse("is not in the rank's checkpoint".to_owned());
    };
    let as_stored: Vec<usize> = match shape {
        [1, rest @ ..] if stored.len() == rest.len() => rest.iter().map(|&size| size as usize).collect(),
        all => all.iter().map(|&size| size as usize).collect(),
    };
    match as_stored == stored {
        true => Ok(()),
        false => refuse(format!("has shape {stored:?} in the checkpoint, but {as_stored:?} in the network")),
    }
}

fn refuse_input(input: &Input, problem: String) -> Result<(), NetworkError> {
    Err(NetworkError::Input { input: input.name.clone(), problem })
}

fn check_profiles(graph: &Graph, input: &Input) -> Result<(), NetworkError> {
    let shape = &graph.tensor(input.tensor).shape;
    if input.profiles.is_empty() || graph.inputs.iter().any(|other| other.profiles.len() != input.profiles.len()) {
        return refuse_input(input, "it has no profile, or not as many as other inputs".to_owned());
    }
    for profile in &input.profiles {
        let ranks = [input.dimensions.len(), profile.min.len(), profile.opt.len(), profile.max.len()];
        if ranks.iter().any(|&rank| rank != shape.len()) {
            return refuse_input(input, format!("its profile is not of the {} dimensions that it has", shape.len()));
        }
        for (axis, &size) in shape.iter().enumerate() {
            let (min, opt, max) = (profile.min[axis], profile.opt[axis], profile.max[axis]);
            let name = input.dimensions[axis];
            if !(1 <= min && min <= opt && opt <= max) {
                return refuse_input(
                    input,
                    format!("its profile cannot hold in dimension `{name}`: {min} to {max}, best {opt}"),
                );
            }
            if size != DYNAMIC && (min, max) != (size, size) {
                return refuse_input(input, format!("dimension `{name}` is {size}, but its profile is {min} to {max}"));
            }
            if max > i64::from(i32::MAX) {
                return refuse_input(input, format!("dimension `{name}` of {max} is more than TensorRT takes"));
            }
        }
    }
    Ok(())
}

/// Dimensions of one name have one size at run time, so their ranges are the same in each profile.
fn check_dimension_names(graph: &Graph) -> Result<(), NetworkError> {
    let mut ranges = BTreeMap::new();
    for input in &graph.inputs {
        for (axis, &name) in input.dimensions.iter().enumerate() {
            let of_profile = |profile: &Profile| (profile.min[axis], profile.opt[axis], profile.max[axis]);
            let range: Vec<_> = input.profiles.iter().map(of_profile).collect();
            let (first, known) = ranges.entry(name).or_insert_with(|| (input.name.as_str(), range.clone()));
            if *known != range {
                let problem = format!("dimension `{name}` has another profile than that of `{first}`");
                return refuse_input(input, problem);
            }
        }
    }
    Ok(())
}
