//! The plugins between ranks: AllReduce, AllGather, Send, Recv.
//!
//! Source: TensorRT-LLM 1.x, the creators in `cpp/tensorrt_llm/plugins/ncclPlugin`.

use super::field::{BF16_TYPE_ID, FieldRow, FieldType};

/// AllReduceStrategy: AUTO, by the size of the message and by what connects the GPUs; NCCL where they do not see each other's memory.
/// It reads the workspace that the ranks share.
const STRATEGY_AUTO: f64 = 3.0;

/// The sum over a group of ranks.
pub(super) const ALL_REDUCE: [FieldRow; 8] = [
    ("group", FieldType::Int32, None),
    ("type_id", FieldType::Int32, Some(BF16_TYPE_ID)),
    ("strategy", FieldType::Int8, Some(STRATEGY_AUTO)),
    // AllReduceFusionOp: none; the four below belong to fusions.
    ("fusion_op", FieldType::Int8, Some(0.0)),
    ("eps", FieldType::Float32, Some(1e-5)),
    ("affine", FieldType::Int8, Some(0.0)),
    ("bias", FieldType::Int8, Some(0.0)),
    ("scale", FieldType::Int8, Some(0.0)),
];

/// The tensors of a group of ranks, one below the other.
pub(super) const ALL_GATHER: [FieldRow; 2] =
    [("group", FieldType::Int32, None), ("type_id", FieldType::Int32, Some(BF16_TYPE_ID))];

/// To one rank.
pub(super) const SEND: [FieldRow; 2] =
    [("tgt_rank", FieldType::Int32, None), ("type_id", FieldType::Int32, Some(BF16_TYPE_ID))];

/// From one rank.
pub(super) const RECV: [FieldRow; 2] =
    [("src_rank", FieldType::Int32, None), ("type_id", FieldType::Int32, Some(BF16_TYPE_ID))];
