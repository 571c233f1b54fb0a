//! Fields: what a plugin's creator reads, each by name and of exactly one type.

/// Type of a field's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldType {
    /// 8-bit integers.
    Int8,
    /// 32-bit integers.
    Int32,
    /// 32-bit floating point.
    Float32,
}

impl FieldType {
    /// nvinfer1's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Int8 => "INT8",
            Self::Int32 => "INT32",
            Self::Float32 => "FLOAT32",
        }
    }
}

/// What a field holds.
#[derive(Debug, Clone, PartialEq)]
pub enum FieldValues {
    /// 8-bit integers.
    Int8(Vec<i8>),
    /// 32-bit integers.
    Int32(Vec<i32>),
    /// 32-bit floating point.
    Float32(Vec<f32>),
}

impl FieldValues {
    /// Their type.
    pub const fn kind(&self) -> FieldType {
        match self {
            Self::Int8(_) => FieldType::Int8,
            Self::Int32(_) => FieldType::Int32,
            Self::Float32(_) => FieldType::Float32,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Self::Int8(values) => values.len(),
            Self::Int32(values) => values.len(),
            Self::Float32(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A field of a plugin.
#[derive(Debug, Clone, PartialEq)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it holds.
    pub values: FieldValues,
}

/// nvinfer1's number of bfloat16, which plugins take as `type_id`.
pub(super) const BF16_TYPE_ID: f64 = 7.0;

impl Field {
    /// A field of this type; the type holds every value that a table or a rank gives.
    pub(super) fn new(name: &'static str, kind: FieldType, values: &[f64]) -> Self {
        let values = match kind {
            FieldType::Int8 => FieldValues::Int8(values.iter().map(|&value| value as i8).collect()),
            FieldType::Int32 => FieldValues::Int32(values.iter().map(|&value| value as i32).collect()),
            FieldType::Float32 => FieldValues::Float32(values.iter().map(|&value| value as f32).collect()),
        };
        Self { name, values }
    }
}

/// A row of a plugin's table: name, type, and the value that is the same on every rank; `None` where each rank has its own.
pub(super) type FieldRow = (&'static str, FieldType, Option<f64>);

/// The fields of a table, with `rank_values` where the table has none.
pub(super) fn fields(table: &[FieldRow], rank_values: &[f64]) -> Vec<Field> {
    let values = |value: &Option<f64>| value.map_or_else(|| rank_values.to_vec(), |value| vec![value]);
    table.iter().map(|(name, kind, value)| Field::new(name, *kind, &values(value))).collect()
}
