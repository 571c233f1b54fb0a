//! A network as data: numbered tensors, and the nodes that make them.

use super::error::NetworkError;
use super::ops::{self, Op, Value};
use super::tensor::{DataType, Tensor, TensorId};

/// The shapes that an engine is made for: it takes those from `min` to `max` and is fastest at `opt`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// The least shape.
    pub min: Vec<i64>,
    /// The shape that tactics are chosen for.
    pub opt: Vec<i64>,
    /// The greatest shape.
    pub max: Vec<i64>,
}

/// An input of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Its name, by which TensorRT-LLM's runtime fills it.
    pub name: String,
    /// The tensor that nodes read.
    pub tensor: TensorId,
    /// Names of its dimensions; sizes of one name are equal at run time.
    pub dimensions: Vec<&'static str>,
    /// The shapes that the engine takes, one for each of its optimization profiles.
    pub profiles: Vec<Profile>,
}

/// One operation.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its name, unlike any other's.
    pub name: String,
    /// What it does.
    pub op: Op,
    /// What it reads.
    pub inputs: Vec<TensorId>,
    /// What it makes.
    pub output: TensorId,
}

/// An output of the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its name, by which TensorRT-LLM's runtime finds it.
    pub name: &'static str,
    /// Which tensor it is.
    pub tensor: TensorId,
}

/// The network of one rank.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    /// A name for people to read.
    pub name: String,
    /// Every tensor: the inputs' first, then one of each node.
    pub tensors: Vec<Tensor>,
    /// The inputs, in the order in which they are declared.
    pub inputs: Vec<Input>,
    /// The operations, each after those that it reads from.
    pub nodes: Vec<Node>,
    /// The outputs.
    pub outputs: Vec<Output>,
}

impl Graph {
    /// A network without anything.
    pub fn new(name: String) -> Self {
        Self { name, tensors: Vec::new(), inputs: Vec::new(), nodes: Vec::new(), outputs: Vec::new() }
    }

    /// The tensor with this number.
    pub fn tensor(&self, id: TensorId) -> &Tensor {
        &self.tensors[id.0]
    }

    /// The input of this name.
    pub fn input(&self, name: &str) -> Option<&Input> {
        self.inputs.iter().find(|input| input.name == name)
    }

    /// Adds a tensor, and returns its number.
    pub(super) fn add_tensor(&mut self, dtype: DataType, shape: Vec<i64>) -> TensorId {
        self.tensors.push(Tensor { dtype, shape });
        TensorId(self.tensors.len() - 1)
    }

    /// Adds an operation, and returns its output.
    ///
    /// # Errors
    /// [`NetworkError::Node`] for inputs that do not fit the operation or each other.
    pub fn add(&mut self, name: String, op: Op, inputs: &[TensorId]) -> Result<TensorId, NetworkError> {
        let tensors: Vec<_> = inputs.iter().map(|&id| self.tensor(id)).collect();
        match ops::infer(&op, &tensors) {
            Ok(Tensor { dtype, shape }) => {
                let output = self.add_tensor(dtype, shape);
                self.nodes.push(Node { name, op, inputs: inputs.to_vec(), output });
                Ok(output)
            }
            Err(problem) => Err(NetworkError::Node { node: name, problem }),
        }
    }

    /// Adds a constant.
    ///
    /// # Errors
    /// [`NetworkError::Node`] for a value of another size than the shape has.
    pub fn constant(&mut self, name: String, shape: Vec<i64>, value: Value) -> Result<TensorId, NetworkError> {
        self.add(name, Op::Constant { shape, value }, &[])
    }
}
