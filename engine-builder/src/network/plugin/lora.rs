//! Lora: for each sequence B A x of its own adapter, zeros without one.
//!
//! Source: TensorRT-LLM 1.x, `functional.py` (`lora_plugin`) and the creator in `cpp/tensorrt_llm/plugins/loraPlugin`, which takes what
//! is missing for zero and does not say so. Ranks, addresses, request types and context lengths are in the host's memory.

use super::field::{BF16_TYPE_ID, Field, FieldRow, FieldType};
use crate::network::tensor::{DataType, Tensor};

pub(super) const LORA: [FieldRow; 9] = [
    ("in_hidden_size", FieldType::Int32, None),
    ("transa", FieldType::Int32, Some(0.0)),
    ("transb", FieldType::Int32, Some(1.0)),
    ("num_lora_modules", FieldType::Int32, Some(1.0)),
    ("type_id", FieldType::Int32, Some(BF16_TYPE_ID)),
    ("remove_input_padding", FieldType::Int8, Some(1.0)),
    ("max_low_rank", FieldType::Int32, None),
    ("weight_index", FieldType::Int32, Some(0.0)),
    ("out_hidden_size_0", FieldType::Int32, None),
];

/// The fields for one module with so many inputs and outputs.
pub(super) fn fields(inputs: i64, outputs: i64, max_rank: usize) -> Vec<Field> {
    let value = |name: &str| match name {
        "in_hidden_size" => inputs as f64,
        "out_hidden_size_0" => outputs as f64,
        _ => max_rank as f64,
    };
    LORA.iter().map(|&(name, kind, fixed)| Field::new(name, kind, &[fixed.unwrap_or_else(|| value(name))])).collect()
}

/// Shape of the output, or what is wrong with the inputs: x, request types, ranks, addresses, context lengths.
pub(super) fn output_shape(fields: &[Field], inputs: &[&Tensor]) -> Result<Vec<i64>, String> {
    let rest = [DataType::Int32, DataType::Int32, DataType::Int64, DataType::Int32];
    if inputs.len() != 1 + rest.len() || inputs[1..].iter().zip(rest).any(|(tensor, dtype)| tensor.dtype != dtype) {
        return Err("it takes x, request types, ranks, addresses and context lengths".to_owned());
    }
    if inputs[3].shape.len() != 2 || inputs[3].shape[1] != 3 {
        return Err(format!("addresses are three for each sequence, not {:?}", inputs[3].shape));
    }
    let wanted = super::gpt_attention::integer(fields, "in_hidden_size")?;
    if inputs[0].shape[1] != wanted {
        return Err(format!("x has {} columns, not {wanted}", inputs[0].shape[1]));
    }
    Ok(vec![inputs[0].shape[0], super::gpt_attention::integer(fields, "out_hidden_size_0")?])
}
