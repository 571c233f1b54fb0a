//! Gemm: a matrix product, the second matrix transposed.
//!
//! Source: TensorRT-LLM 1.x, the creator in `cpp/tensorrt_llm/plugins/gemmPlugin`.

use super::field::{BF16_TYPE_ID, FieldRow, FieldType};

pub(super) const GEMM: [FieldRow; 8] = [
    ("transa", FieldType::Int32, Some(0.0)),
    ("transb", FieldType::Int32, Some(1.0)),
    ("pad_lda", FieldType::Int32, Some(0.0)),
    ("pad_ldb", FieldType::Int32, Some(0.0)),
    ("pad_ldc", FieldType::Int32, Some(0.0)),
    ("type_id", FieldType::Int32, Some(BF16_TYPE_ID)),
    ("use_fp8", FieldType::Int32, Some(0.0)),
    ("alpha", FieldType::Float32, Some(1.0)),
];
