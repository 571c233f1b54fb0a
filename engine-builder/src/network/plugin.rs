//! TensorRT-LLM's plugins: their fields and inputs, a table for each release.
//!
//! Source: TensorRT-LLM 1.x, `functional.py` (what upstream's Python gives) and the plugins' creators in `cpp/tensorrt_llm/plugins`
//! (what they read: each field by name, of exactly this type; a missing one is refused). Attention is
//! `gptAttentionPlugin.cpp`. The three releases read the same fields; `docs/network.md` says how far that could be checked.

use engine_format::rope::RopeScaling;

use super::decoder::{Rank, TOKENS_PER_BLOCK};
use super::graph::{DYNAMIC, DataType, NetworkError, Tensor};

/// A release of TensorRT-LLM whose plugins are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Release {
    /// 1.0.
    V1_0,
    /// 1.1.
    V1_1,
    /// 1.2, the last one that has TensorRT engines.
    V1_2,
}

impl Release {
    /// Every release, oldest first.
    pub const ALL: [Self; 3] = [Self::V1_0, Self::V1_1, Self::V1_2];

    /// Major and minor version.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V1_0 => "1.0",
            Self::V1_1 => "1.1",
            Self::V1_2 => "1.2",
        }
    }

    /// The release of a version such as `1.2.1`.
    pub fn of_version(version: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|release| {
            let rest = version.strip_prefix(release.name());
            rest.is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_digit()))
        })
    }
}

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

/// A plugin with its fields.
#[derive(Debug, Clone, PartialEq)]
pub struct Plugin {
    /// Its name in TensorRT's registry.
    pub name: &'static str,
    /// Its fields, in upstream's order.
    pub fields: Vec<Field>,
}

/// The version that every plugin has in the registry.
pub const PLUGIN_VERSION: &str = "1";

/// The namespace that every plugin has in the registry.
pub const PLUGIN_NAMESPACE: &str = "tensorrt_llm";

/// nvinfer1's number of bfloat16, which plugins take as `type_id`.
const BF16_TYPE_ID: f64 = 7.0;

/// What the fields of attention depend on.
pub struct Attention {
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

/// A field that a plugin wants.
pub struct FieldSpec<T: 'static> {
    /// Its name.
    pub name: &'static str,
    /// Type of its elements.
    pub kind: FieldType,
    /// What it is.
    value: fn(&T) -> f64,
}

const fn int8<T>(name: &'static str, value: fn(&T) -> f64) -> FieldSpec<T> {
    FieldSpec { name, kind: FieldType::Int8, value }
}

const fn int32<T>(name: &'static str, value: fn(&T) -> f64) -> FieldSpec<T> {
    FieldSpec { name, kind: FieldType::Int32, value }
}

const fn float32<T>(name: &'static str, value: fn(&T) -> f64) -> FieldSpec<T> {
    FieldSpec { name, kind: FieldType::Float32, value }
}

/// The fields of GPTAttention, in upstream's order.
pub static ATTENTION_FIELDS: [FieldSpec<Attention>; 58] = [
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
    // Of long RoPE only, which is none of ours: upstream's default.
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

/// AllReduceStrategy: NCCL, which needs no workspace shared among the ranks.
const STRATEGY_NCCL: f64 = 0.0;

/// The fields of AllReduce, Send, Recv, AllGather and Gemm; those of a rank's own are given where `None` stands.
type Row = (&'static str, FieldType, Option<f64>);

const ALL_REDUCE: [Row; 8] = [
    ("group", FieldType::Int32, None),
    ("type_id", FieldType::Int32, Some(BF16_TYPE_ID)),
    ("strategy", FieldType::Int8, Some(STRATEGY_NCCL)),
    // AllReduceFusionOp: none; the four below belong to fusions.
    ("fusion_op", FieldType::Int8, Some(0.0)),
    ("eps", FieldType::Float32, Some(1e-5)),
    ("affine", FieldType::Int8, Some(0.0)),
    ("bias", FieldType::Int8, Some(0.0)),
    ("scale", FieldType::Int8, Some(0.0)),
];
const ALL_GATHER: [Row; 2] = [("group", FieldType::Int32, None), ("type_id", FieldType::Int32, Some(BF16_TYPE_ID))];
const SEND: [Row; 2] = [("tgt_rank", FieldType::Int32, None), ("type_id", FieldType::Int32, Some(BF16_TYPE_ID))];
const RECV: [Row; 2] = [("src_rank", FieldType::Int32, None), ("type_id", FieldType::Int32, Some(BF16_TYPE_ID))];
const GEMM: [Row; 8] = [
    ("transa", FieldType::Int32, Some(0.0)),
    ("transb", FieldType::Int32, Some(1.0)),
    ("pad_lda", FieldType::Int32, Some(0.0)),
    ("pad_ldb", FieldType::Int32, Some(0.0)),
    ("pad_ldc", FieldType::Int32, Some(0.0)),
    ("type_id", FieldType::Int32, Some(BF16_TYPE_ID)),
    ("use_fp8", FieldType::Int32, Some(0.0)),
    ("alpha", FieldType::Float32, Some(1.0)),
];

/// The fields that a plugin of this release wants, by name and type, in upstream's order; `None` for a plugin that it has not.
pub fn wanted_fields(_release: Release, plugin: &str) -> Option<Vec<(&'static str, FieldType)>> {
    let plain = |rows: &[Row]| rows.iter().map(|&(name, kind, _)| (name, kind)).collect();
    Some(match plugin {
        "GPTAttention" => ATTENTION_FIELDS.iter().map(|field| (field.name, field.kind)).collect(),
        "AllReduce" => plain(&ALL_REDUCE),
        "AllGather" => plain(&ALL_GATHER),
        "Send" => plain(&SEND),
        "Recv" => plain(&RECV),
        "Gemm" => plain(&GEMM),
        _ => return None,
    })
}

fn field(name: &'static str, kind: FieldType, values: &[f64]) -> Field {
    let values = match kind {
        FieldType::Int8 => FieldValues::Int8(values.iter().map(|&value| value as i8).collect()),
        FieldType::Int32 => FieldValues::Int32(values.iter().map(|&value| value as i32).collect()),
        FieldType::Float32 => FieldValues::Float32(values.iter().map(|&value| value as f32).collect()),
    };
    Field { name, values }
}

fn fields(rows: &[Row], own: &[f64]) -> Vec<Field> {
    rows.iter()
        .map(|&(name, kind, value)| match value {
            Some(value) => field(name, kind, &[value]),
            None => field(name, kind, own),
        })
        .collect()
}

impl Plugin {
    /// Attention of the rank's layer `layer`.
    pub fn gpt_attention(rank: &Rank<'_>, layer: usize) -> Self {
        let (config, tp_size) = (rank.config, rank.mapping.tp_size);
        // RotaryScalingType, and the factor beside it.
        let (rope_scale_type, rope_scale) = match config.rope.scaling {
            RopeScaling::None => (0, 1.0),
            RopeScaling::Linear { factor } => (1, factor),
            RopeScaling::Llama3 { factor, .. } => (4, factor),
        };
        let attention = Attention {
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
        let fields =
            ATTENTION_FIELDS.iter().map(|spec| field(spec.name, spec.kind, &[(spec.value)(&attention)])).collect();
        Self { name: "GPTAttention", fields }
    }

    /// The sum over the ranks of `group`.
    pub fn all_reduce(group: Vec<i32>) -> Self {
        Self { name: "AllReduce", fields: fields(&ALL_REDUCE, &numbers(&group)) }
    }

    /// What the ranks of `group` have, one below the other.
    pub fn all_gather(group: Vec<i32>) -> Self {
        Self { name: "AllGather", fields: fields(&ALL_GATHER, &numbers(&group)) }
    }

    /// To the rank `target`.
    pub fn send(target: usize) -> Self {
        Self { name: "Send", fields: fields(&SEND, &[target as f64]) }
    }

    /// From the rank `source`.
    pub fn recv(source: usize) -> Self {
        Self { name: "Recv", fields: fields(&RECV, &[source as f64]) }
    }

    /// A matrix product, the second matrix transposed.
    pub fn gemm() -> Self {
        Self { name: "Gemm", fields: fields(&GEMM, &[]) }
    }

    fn integer(&self, name: &str) -> Option<i64> {
        let field = self.fields.iter().find(|field| field.name == name)?;
        match &field.values {
            FieldValues::Int32(values) => values.first().map(|&value| i64::from(value)),
            _ => None,
        }
    }

    /// Checks the fields against the release's table.
    ///
    /// # Errors
    /// [`NetworkError::Field`] with the first that is missing, unknown, or of another type or length.
    pub fn check_fields(&self, release: Release, node: &str) -> Result<(), NetworkError> {
        let refuse = |field: &str, problem: String| {
            Err(NetworkError::Field { node: node.to_owned(), plugin: self.name, field: field.to_owned(), problem })
        };
        let Some(wanted) = wanted_fields(release, self.name) else {
            let problem = format!("TensorRT-LLM {} has no plugin {}", release.name(), self.name);
            return Err(NetworkError::Node { node: node.to_owned(), problem });
        };
        for &(name, kind) in &wanted {
            let Some(field) = self.fields.iter().find(|field| field.name == name) else {
                return refuse(name, format!("is missing: TensorRT-LLM {} wants it", release.name()));
            };
            if field.values.kind() != kind {
                return refuse(name, format!("is {}, not {}", field.values.kind().name(), kind.name()));
            }
            let is_list = name == "group";
            if field.values.is_empty() || !is_list && field.values.len() > 1 {
                return refuse(name, format!("has {} values, not one", field.values.len()));
            }
        }
        match self.fields.iter().find(|field| wanted.iter().all(|&(name, _)| name != field.name)) {
            Some(field) => refuse(field.name, format!("is unknown to TensorRT-LLM {}", release.name())),
            None => Ok(()),
        }
    }

    /// Type and shape of what comes out, or what does not fit.
    pub(super) fn infer(&self, inputs: &[&Tensor]) -> Result<Tensor, String> {
        let made = |shape| Ok(Tensor { dtype: DataType::Bf16, shape });
        let first = inputs.first().ok_or("it has no inputs")?;
        if first.dtype != DataType::Bf16 || first.shape.len() != 2 {
            return Err(format!("it takes a BF16 matrix, not {} {:?}", first.dtype.name(), first.shape));
        }
        match (self.name, inputs) {
            ("GPTAttention", _) => {
                check_attention_inputs(inputs)?;
                let size = |name| self.integer(name).ok_or_else(|| format!("field `{name}` is missing"));
                let (heads, kv_heads, head) = (size("num_heads")?, size("num_kv_heads")?, size("head_size")?);
                let columns = (heads + 2 * kv_heads) * head;
                if first.shape[1] != columns {
                    return Err(format!("queries, keys and values have {} columns, not {columns}", first.shape[1]));
                }
                made(vec![first.shape[0], heads * head])
            }
            ("Gemm", &[a, b]) if b.dtype == DataType::Bf16 && b.shape.len() == 2 && a.shape[1] == b.shape[1] => {
                made(vec![a.shape[0], b.shape[0]])
            }
            ("Gemm", &[a, b]) => {
                Err(format!("matrices of shapes {:?} and {:?} transposed do not multiply", a.shape, b.shape))
            }
            ("AllReduce" | "Send" | "Recv", [x]) => made(x.shape.clone()),
            ("AllGather", [x]) => made(vec![DYNAMIC, x.shape[1]]),
            (_, inputs) => Err(format!("it does not take {} inputs", inputs.len())),
        }
    }
}

fn numbers(group: &[i32]) -> Vec<f64> {
    group.iter().map(|&rank| f64::from(rank)).collect()
}

fn check_attention_inputs(inputs: &[&Tensor]) -> Result<(), String> {
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
