//! The operations, as nvinfer1 has them, and the type and shape of what each computes.
//!
//! Source: TensorRT 10, `NvInfer.h` (`INetworkDefinition`); a strongly typed network never converts by itself.

use super::plugin::Plugin;
use super::tensor::{DYNAMIC, DataType, Tensor};

/// What a constant holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// The tensor of this name in the rank's checkpoint, bfloat16.
    Weight(String),
    /// Two tensors of the rank's checkpoint, bfloat16, whose rows are one matrix: the second follows the first in the file.
    Neighbours([String; 2]),
    /// These numbers.
    Floats(Vec<f32>),
    /// These numbers.
    Integers(Vec<i32>),
}

/// An operation on two tensors of one type and rank, whose sizes are equal or 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElementWise {
    /// a + b.
    Sum,
    /// a b.
    Prod,
    /// a - b.
    Sub,
    /// a / b.
    Div,
    /// a to the power of b.
    Pow,
}

impl ElementWise {
    /// nvinfer1's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sum => "SUM",
            Self::Prod => "PROD",
            Self::Sub => "SUB",
            Self::Div => "DIV",
            Self::Pow => "POW",
        }
    }
}

/// An operation.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// A constant; weights are bfloat16.
    Constant {
        /// Its shape.
        shape: Vec<i64>,
        /// Its elements.
        value: Value,
    },
    /// Parts of the first input along this axis, by the indices in the second; a scalar index leaves the axis out.
    Gather(usize),
    /// The product of two matrices, the second one transposed.
    MatrixMultiply,
    /// An operation on two tensors.
    ElementWise(ElementWise),
    /// The square root.
    Sqrt,
    /// The mean over the last axis, which stays with size 1.
    Mean,
    /// 1 / (1 + exp(-x)).
    Sigmoid,
    /// The same numbers in another type.
    Cast(DataType),
    /// The same elements in another shape, and then in another order of the axes.
    Shuffle {
        /// The new shape; at most one size is [`DYNAMIC`], and follows from the others.
        reshape: Vec<i64>,
        /// For each axis of the output, the axis of the reshaped tensor; empty for the same order.
        permutation: Vec<usize>,
    },
    /// Tensors one behind the other along this axis.
    Concatenation(usize),
    /// One of TensorRT-LLM's plugins.
    Plugin(Plugin),
}

/// Type and shape of the output of `op`, or what is wrong with its inputs.
pub(super) fn infer(op: &Op, inputs: &[&Tensor]) -> Result<Tensor, String> {
    let tensor = |dtype, shape| Ok(Tensor { dtype, shape });
    match (op, inputs) {
        (Op::Constant { shape, value }, []) => {
            let volume: i64 = shape.iter().product();
            let (dtype, count) = match value {
                Value::Weight(_) | Value::Neighbours(_) => (DataType::Bf16, volume),
                Value::Floats(numbers) => (DataType::Float, numbers.len() as i64),
                Value::Integers(numbers) => (DataType::Int32, numbers.len() as i64),
            };
            if shape.iter().any(|&size| size < 1) || count != volume {
                return Err(format!("a constant of shape {shape:?} has {count} elements"));
            }
            tensor(dtype, shape.clone())
        }
        (Op::Gather(axis), [data, indices]) => {
            if indices.dtype != DataType::Int32 {
                return Err(format!("indices are INT32, not {}", indices.dtype.name()));
            }
            if *axis >= data.shape.len() {
                return Err(format!("{:?} has no axis {axis}", data.shape));
            }
            tensor(data.dtype, [&data.shape[..*axis], &indices.shape, &data.shape[axis + 1..]].concat())
        }
        (Op::MatrixMultiply, [a, b]) => {
            same_type(a, b)?;
            match (a.shape.as_slice(), b.shape.as_slice()) {
                (&[rows, inner], &[columns, other_inner]) if inner == other_inner => {
                    tensor(a.dtype, vec![rows, columns])
                }
                _ => Err(format!("matrices of shapes {:?} and {:?} transposed do not multiply", a.shape, b.shape)),
            }
        }
        (Op::ElementWise(_), [a, b]) => {
            same_type(a, b)?;
            let broadcast = |(&a, &b): (&i64, &i64)| match (a, b) {
                _ if a == b || b == 1 => Some(a),
                (1, b) => Some(b),
                _ => None,
            };
            let shape: Option<Vec<i64>> = a.shape.iter().zip(&b.shape).map(broadcast).collect();
            match shape {
                Some(shape) if a.shape.len() == b.shape.len() => tensor(a.dtype, shape),
                _ => Err(format!("shapes {:?} and {:?} do not broadcast", a.shape, b.shape)),
            }
        }
        (Op::Sqrt | Op::Sigmoid, [x]) => {
            if matches!(x.dtype, DataType::Int32 | DataType::Int64) {
                return Err(format!("it takes floating-point numbers, not {}", x.dtype.name()));
            }
            tensor(x.dtype, x.shape.clone())
        }
        (Op::Mean, [x]) => {
            let mut shape = x.shape.clone();
            *shape.last_mut().ok_or("a scalar has no last axis")? = 1;
            tensor(x.dtype, shape)
        }
        (Op::Cast(dtype), [x]) => tensor(*dtype, x.shape.clone()),
        (Op::Shuffle { reshape, permutation }, [x]) => {
            let shape = reshaped(&x.shape, reshape)?;
            let mut axes = permutation.clone();
            axes.sort_unstable();
            if !permutation.is_empty() && !axes.iter().copied().eq(0..shape.len()) {
                return Err(format!("{permutation:?} is no order of {} axes", shape.len()));
            }
            let shape = match permutation.is_empty() {
                true => shape,
                false => permutation.iter().map(|&axis| shape[axis]).collect(),
            };
            tensor(x.dtype, shape)
        }
        (Op::Concatenation(axis), [first, rest @ ..]) => {
            let mut shape = first.shape.clone();
            for part in rest {
                same_type(first, part)?;
                let alike = |(index, (a, b)): (usize, (&i64, &i64))| index == *axis || a == b;
                let pairs = first.shape.iter().zip(&part.shape).enumerate();
                if first.shape.len() != part.shape.len() || *axis >= shape.len() || !pairs.into_iter().all(alike) {
                    return Err(format!("{:?} and {:?} do not join on axis {axis}", first.shape, part.shape));
                }
                shape[*axis] =
                    if shape[*axis] < 0 || part.shape[*axis] < 0 { DYNAMIC } else { shape[*axis] + part.shape[*axis] };
            }
            tensor(first.dtype, shape)
        }
        (Op::Plugin(plugin), inputs) => plugin.infer(inputs),
        (_, inputs) => Err(format!("it does not take {} inputs", inputs.len())),
    }
}

fn same_type(a: &Tensor, b: &Tensor) -> Result<(), String> {
    if a.dtype == b.dtype {
        return Ok(());
    }
    Err(format!("a strongly typed network does not mix {} and {}", a.dtype.name(), b.dtype.name()))
}

/// The shape that `from` takes when it is reshaped, as far as that is known before run time.
fn reshaped(from: &[i64], to: &[i64]) -> Result<Vec<i64>, String> {
    let known_elements = |shape: &[i64]| shape.iter().filter(|&&size| size != DYNAMIC).product::<i64>();
    let dynamic_sizes = |shape: &[i64]| shape.iter().filter(|&&size| size == DYNAMIC).count();
    match (dynamic_sizes(from), dynamic_sizes(to)) {
        (0, 0) if known_elements(from) == known_elements(to) => Ok(to.to_vec()),
        (0, 1) if known_elements(to) > 0 && known_elements(from) % known_elements(to) == 0 => {
            let inferred = known_elements(from) / known_elements(to);
            Ok(to.iter().map(|&size| if size == DYNAMIC { inferred } else { size }).collect())
        }
        (1.., 1) => Ok(to.to_vec()),
        _ => Err(format!("shape {from:?} cannot become {to:?}")),
    }
}
