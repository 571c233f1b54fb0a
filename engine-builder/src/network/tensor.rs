//! Tensors of a network: type, shape, number.

/// Type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DataType {
    /// 32-bit floating point.
    Float,
    /// 32-bit integers.
    Int32,
    /// bfloat16.
    Bf16,
    /// 64-bit integers.
    Int64,
}

impl DataType {
    /// The name that nvinfer1 has for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Float => "FLOAT",
            Self::Int32 => "INT32",
            Self::Bf16 => "BF16",
            Self::Int64 => "INT64",
        }
    }
}

/// A size that is known only at run time.
pub const DYNAMIC: i64 = -1;

/// Number of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TensorId(pub usize);

/// A tensor's type and shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Type of its elements.
    pub dtype: DataType,
    /// Its shape; [`DYNAMIC`] for what is known at run time.
    pub shape: Vec<i64>,
}
