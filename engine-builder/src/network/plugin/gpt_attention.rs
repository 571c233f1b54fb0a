//! GPTAttention: attention with rotary embedding over a paged KV cache and packed tokens.
//!
//! Source: TensorRT-LLM 1.x, `gptAttentionPlugin.cpp` and its creator in `cpp/tensorrt_llm/plugins/gptAttentionPlugin`.

use engine_format::rope::RopeScaling;

use super::field::{BF16_TYPE_ID, Field, FieldType, FieldValues};
use crate::network::options::TOKENS_PER_BLOCK;
use crate::network::rank::Rank;
use crate::network::tensor::{DataType, Tensor};

/// What the fields depend on.
struct Settings {
    layer: usize,
    num_heads: usize,
    num_kv_heads: usize,
    num_kv_heads_origin: usize,
    head_size: usize,
    rope_theta: f64,
    rope_scale_type: i8,
    rope_scale: f64,
    max_positions: usize,
    tp_size: usize,
    tp_rank: usize,
    max_context_length: usize,
}

/// A field of the plugin: its name, its type, and how its value follows from the settings.
struct FieldSpec {
    name: &'static str,
    kind: FieldType,
    value: fn(&Settings) -> f64,
}

const fn int8(name: &'static str, value: fn(&Settings) -> f64) -> FieldSpec {
    FieldSpec { name, kind: FieldType::Int8, value }
}

const fn int32(name: &'static str, value: fn(&Settings) -> f64) -> FieldSpec {
    FieldSpec { name, kind: FieldType::Int32, value }
}

const fn float32(name: &'static str, value: fn(&Settings) -> f64) -> FieldSpec {
    FieldSpec { name, kind: FieldType::Float32, value }
}

/// Every field, in upstream's order.
static FIELDS: [FieldSpec; 58] = [
    int32("layer_idx", |a| a.layer as f64),
    int32("num_heads", |a| a.num_heads as f64),
    int32("vision_start", |_| -1.0),
    int32("vision_length", |_| -1.0),
    int32("num_kv_heads", |a| a.num_kv_heads as f64),
    int32("num_kv_heads_origin", |a| a.num_kv_heads_origin as f64),
    int32("head_size", |a| a.head_size as f64),
    int32("unidirectional", |_| 1.0),
    float32("q_scaling", |_| 1.0),
    float32("attn_logit_softcapping_scale", |_| 0.0),
    // PositionEmbeddingType: rope_gpt_neox, two halves of a head.
    int8("position_embedding_type", |_| 2.0),
    int32("rotary_embedding_dim", |a| a.head_size as f64),
    float32("rotary_embedding_base", |a| a.rope_theta),
    int8("rotary_embedding_scale_type", |a| f64::from(a.rope_scale_type)),
    float32("rotary_embedding_scale", |a| a.rope_scale),
    float32("rotary_embedding_short_m_scale", |_| 1.0),
    float32("rotary_embedding_long_m_scale", |_| 1.0),
    int32("rotary_embedding_max_positions", |a| a.max_positions as f64),
    // For long RoPE only, which no supported model has: upstream's default.
    int32("rotary_embedding_original_max_positions", |_| 1024.0),
    int32("tp_size", |a| a.tp_size as f64),
    int32("tp_rank", |a| a.tp_rank as f64),
    int8("unfuse_qkv_gemm", |_| 0.0),
    // ContextFMHAType: enabled, sums in the precision that the kernel chooses.
    int8("context_fmha_type", |_| 1.0),
    int32("kv_cache_quant_mode", |_| 0.0),
    int8("remove_input_padding", |_| 1.0),
    // AttentionMaskType: causal; a sliding window is an input.
    int32("mask_type", |_| 1.0),
    int32("block_sparse_block_size", |_| 64.0),
    // The creator advertises INT32, its parser reads INT8.
    int8("block_sparse_homo_head_pattern", |_| 0.0),
    int32("block_sparse_num_local_blocks", |_| 16.0),
    int32("block_sparse_vertical_stride", |_| 8.0),
    int32("paged_kv_cache", |_| 1.0),
    int32("tokens_per_block", |_| TOKENS_PER_BLOCK as f64),
    int32("type_id", |_| BF16_TYPE_ID),
    int32("max_context_length", |a| a.max_context_length as f64),
    // A bias is added before the plugin, as an operation of its own.
    int8("qkv_bias_enabled", |_| 0.0),
    int8("do_cross_attention", |_| 0.0),
    int32("max_distance", |_| 0.0),
    int8("pos_shift_enabled", |_| 0.0),
    int8("dense_context_fmha", |_| 0.0),
    int8("use_paged_context_fmha", |_| 1.0),
    int8("use_fp8_context_fmha", |_| 0.0),
    int8("has_full_attention_mask", |_| 0.0),
    int32("use_cache", |_| 1.0),
    int8("is_spec_decoding_enabled", |_| 0.0),
    int8("spec_decoding_is_generation_length_variable", |_| 0.0),
    int32("spec_decoding_max_generation_length", |_| 1.0),
    int8("is_mla_enabled", |_| 0.0),
    int32("q_lora_rank", |_| 0.0),
    int32("kv_lora_rank", |_| 0.0),
    int32("qk_nope_head_dim", |_| 0.0),
    int32("qk_rope_head_dim", |_| 0.0),
    int32("v_head_dim", |_| 0.0),
    int8("fuse_fp4_quant", |_| 0.0),
    int8("skip_attn", |_| 0.0),
    int32("cp_size", |_| 1.0),
    int32("cp_rank", |_| 0.0),
    int32("cp_group", |_| 0.0),
    int8("use_logn_scaling", |_| 0.0),
];

/// Name and type of every field, in upstream's order.
pub(super) fn wanted_fields() -> Vec<(&'static str, FieldType)> {
    FIELDS.iter().map(|spec| (spec.name, spec.kind)).collect()
}

/// The fields for the rank's layer `layer`.
pub(super) fn fields(rank: &Rank<'_>, layer: usize) -> Vec<Field> {
    let (config, tp_size) = (rank.config, rank.mapping.tp_size);
    // RotaryScalingType, and the factor beside it.
    let (rope_scale_type, rope_scale) = match config.rope.scaling {
        RopeScaling::None => (0, 1.0),
        RopeScaling::Linear { factor } => (1, factor),
        RopeScaling::Llama3 { factor, .. } => (4, factor),
    };
    let settings = Settings {
        layer,
        num_heads: config.num_attention_heads / tp_size,
        num_kv_heads: config.num_key_value_heads.div_ceil(tp_size),
        num_kv_heads_origin: config.num_key_value_heads,
        head_size: config.head_size,
        rope_theta: config.rope.theta,
        rope_scale_type,
        rope_scale,
        max_positions: config.max_position_embeddings,
        tp_size,
        tp_rank: rank.tp_rank,
        max_context_length: rank.options.limits.max_seq_len,
    };
    FIELDS.iter().map(|spec| Field::new(spec.name, spec.kind, &[(spec.value)(&settings)])).collect()
}

/// An input of GPTAttention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttentionInput {
    /// Queries, keys and values, `[tokens, (heads + 2 * kv_heads) * head_size]`, bfloat16.
    Qkv,
    /// A network input: its name and type.
    Network(&'static str, DataType),
    /// `rotary_inv_freq`.
    RotaryInvFreq,
    /// `rotary_cos_sin`.
    RotaryCosSin,
}

/// The inputs of GPTAttention with a paged KV cache and packed tokens, in order.
pub const ATTENTION_INPUTS: [AttentionInput; 17] = {
    use AttentionInput::{Network, Qkv, RotaryCosSin, RotaryInvFreq};
    use DataType::{Int32, Int64};
    [
        Qkv,
        Network("sequence_length", Int32),
        Network("host_past_key_value_lengths", Int32),
        Network("host_max_attention_window_sizes", Int32),
        Network("host_sink_token_length", Int32),
        Network("context_lengths", Int32),
        Network("cache_indirection", Int32),
        Network("host_request_types", Int32),
        Network("kv_cache_block_offsets", Int32),
        Network("host_kv_cache_block_offsets", Int32),
        Network("host_kv_cache_pool_pointers", Int64),
        Network("host_kv_cache_pool_mapping", Int32),
        RotaryInvFreq,
        RotaryCosSin,
        Network("host_context_lengths", Int32),
        Network("host_runtime_perf_knobs", Int64),
        Network("host_context_progress", Int64),
    ]
};

/// Shape of the output, `[tokens, heads * head_size]`, or what is wrong with the inputs.
pub(super) fn output_shape(fields: &[Field], inputs: &[&Tensor]) -> Result<Vec<i64>, String> {
    check_inputs(inputs)?;
    let qkv = inputs[0];
    let (heads, kv_heads) = (integer(fields, "num_heads")?, integer(fields, "num_kv_heads")?);
    let head_size = integer(fields, "head_size")?;
    let columns = (heads + 2 * kv_heads) * head_size;
    if qkv.shape[1] != columns {
        return Err(format!("queries, keys and values have {} columns, not {columns}", qkv.shape[1]));
    }
    Ok(vec![qkv.shape[0], heads * head_size])
}

pub(super) fn integer(fields: &[Field], name: &str) -> Result<i64, String> {
    let values = fields.iter().find(|field| field.name == name).map(|field| &field.values);
    let value = match values {
        Some(FieldValues::Int32(values)) => values.first(),
        _ => None,
    };
    value.map(|&value| i64::from(value)).ok_or_else(|| format!("field `{name}` is missing"))
}

fn check_inputs(inputs: &[&Tensor]) -> Result<(), String> {
    if inputs.len() != ATTENTION_INPUTS.len() {
        return Err(format!("it takes {} inputs, not {}", ATTENTION_INPUTS.len(), inputs.len()));
    }
    for (tensor, input) in inputs.iter().zip(ATTENTION_INPUTS) {
        let (name, dtype) = match input {
            AttentionInput::Qkv => ("qkv", DataType::Bf16),
            AttentionInput::Network(name, dtype) => (name, dtype),
            AttentionInput::RotaryInvFreq => ("rotary_inv_freq", DataType::Float),
            AttentionInput::RotaryCosSin => ("rotary_cos_sin", DataType::Float),
        };
        if tensor.dtype != dtype {
            return Err(format!("`{name}` is {}, not {}", tensor.dtype.name(), dtype.name()));
        }
    }
    Ok(())
}
