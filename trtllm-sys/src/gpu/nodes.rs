//! What a network for TensorRT is made of.
//!
//! Numbers of types and operations are nvinfer1's (`NvInferRuntime.h`, `NvInfer.h` of TensorRT 10).

/// Type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum DataType {
    /// 32-bit floating point.
    Float = 0,
    /// 16-bit floating point.
    Half = 1,
    /// 8-bit integers.
    Int8 = 2,
    /// 32-bit integers.
    Int32 = 3,
    /// Truth values.
    Bool = 4,
    /// bfloat16.
    Bf16 = 7,
    /// 64-bit integers.
    Int64 = 8,
}

/// An operation on two tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum ElementWise {
    /// a + b.
    Sum = 0,
    /// a b.
    Prod = 1,
    /// a - b.
    Sub = 4,
    /// a / b.
    Div = 5,
    /// a to the power of b.
    Pow = 6,
}

/// An operation on each element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Unary {
    /// The square root.
    Sqrt = 2,
}

/// How an axis is reduced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Reduce {
    /// The mean.
    Avg = 4,
}

/// An activation function.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub enum Activation {
    /// 1 / (1 + exp(-x)).
    Sigmoid = 1,
}

/// An input of a network. Sizes of -1 are known at run time.
#[derive(Debug, Clone, Copy)]
pub struct NetworkInput<'a> {
    /// Its name.
    pub name: &'a str,
    /// Type of its elements.
    pub dtype: DataType,
    /// Its shape.
    pub shape: &'a [i64],
    /// A name for each dimension, or none.
    pub dimension_names: &'a [Option<&'a str>],
    /// The least, the best and the greatest shape of each optimization profile.
    pub profiles: &'a [[Vec<i64>; 3]],
}

/// What a plugin's field holds.
#[derive(Debug, Clone, Copy)]
pub enum PluginValues<'a> {
    /// 8-bit integers.
    Int8(&'a [i8]),
    /// 32-bit integers.
    Int32(&'a [i32]),
    /// 32-bit floating point.
    Float32(&'a [f32]),
}

/// A field of a plugin.
#[derive(Debug, Clone, Copy)]
pub struct PluginField<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it holds.
    pub values: PluginValues<'a>,
}

/// What a node does.
#[derive(Debug, Clone, Copy)]
pub enum NetworkOp<'a> {
    /// Slices of the first input along `axis`, by the indices in the second.
    Gather {
        /// The axis.
        axis: i32,
    },
    /// The product of two matrices.
    MatrixMultiply {
        /// Whether the second one is transposed.
        transpose: bool,
    },
    /// An operation on two tensors.
    ElementWise(ElementWise),
    /// An operation on each element.
    Unary(Unary),
    /// A reduction; the axes stay with size 1.
    Reduce {
        /// How.
        op: Reduce,
        /// A bit for each axis.
        axes: u32,
    },
    /// An activation function.
    Activation(Activation),
    /// The same numbers in the node's type.
    Cast,
    /// The same elements in another shape.
    Shuffle {
        /// The shape; -1 at most once.
        reshape: &'a [i64],
        /// The order of the axes afterwards.
        permutation: Option<&'a [i32]>,
    },
    /// Tensors one behind the other along `axis`.
    Concatenation {
        /// The axis.
        axis: i32,
    },
    /// A plugin of TensorRT's registry.
    Plugin {
        /// Its name.
        name: &'a str,
        /// Its version.
        version: &'a str,
        /// Its namespace.
        namespace: &'a str,
        /// Its fields.
        fields: &'a [PluginField<'a>],
    },
}

/// A node that is no constant.
#[derive(Debug, Clone, Copy)]
pub struct NetworkNode<'a> {
    /// Its name.
    pub name: &'a str,
    /// What it does.
    pub op: NetworkOp<'a>,
    /// Numbers of the tensors that it reads.
    pub inputs: &'a [u32],
    /// Type of what it makes; TensorRT has to agree.
    pub dtype: DataType,
    /// Shape of what it makes, -1 for what is known at run time; TensorRT has to agree.
    pub shape: &'a [i64],
}
