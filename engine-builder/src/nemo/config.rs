//! The model's configuration, of `model_config.yaml`.
//!
//! The file has hundreds of settings, most of them for training. Those that change the decoder are read, or have to be what this decoder
//! is; their defaults are NeMo's. What they do not say, the names and shapes of the tensors do, all of which are checked.

use std::path::Path;

use engine_format::json::{MAX_TOKENS, Object};
use engine_format::model_config::NORM_EPSILONS;
use engine_format::rope::{FACTORS, Rope, RopeScaling, THETAS};
use engine_format::{Architecture, FormatError, ModelConfig, Result};
use serde_json::Value;

/// Settings that have to be one of these, and what NeMo takes where they are missing.
const FIXED: [(&str, &str, &[&str]); 7] = [
    ("normalization", "layernorm", &["rmsnorm"]),
    ("activation", "gelu", &["fast-swiglu", "swiglu"]),
    ("position_embedding_type", "learned_absolute", &["rope"]),
    ("bias", "true", &["false"]),
    ("rotary_percentage", "1.0", &["1.0", "1"]),
    ("transformer_block_type", "pre_ln", &["pre_ln"]),
    ("mcore_gpt", "true", &["true"]),
];

/// Settings that change the decoder, but for these values; they may be missing.
const NEUTRAL: [(&str, &[&str]); 20] = [
    ("add_qkv_bias", &["false"]),
    ("attention_type", &["multihead"]),
    ("attn_logit_softcapping", &[]),
    ("embedding_scale", &["1.0", "1"]),
    ("apply_embedding_scaling", &["false"]),
    ("final_logit_softcapping", &[]),
    ("headscale", &["false"]),
    ("layernorm_zero_centered_gamma", &["false"]),
    ("moe_router_topk", &["0"]),
    ("multi_latent_attention", &["false"]),
    ("normalize_attention_scores", &["true"]),
    ("num_moe_experts", &["0"]),
    ("openai_gelu", &["false"]),
    ("peft", &[]),
    ("qk_layernorm", &["false"]),
    ("rotary_interleaved", &["false"]),
    ("softmax_scale", &[]),
    ("is_hybrid", &["false"]),
    ("virtual_pipeline_model_parallel_size", &["1"]),
    ("window_attn_skip_freq", &[]),
];

/// Rows of the embedding are a multiple of this for each rank, where a file does not say.
const DEFAULT_DIVISOR: usize = 128;

/// The base of rotary frequencies where a file does not say.
const DEFAULT_THETA: f64 = 10_000.0;

/// What is known beside the configuration.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// Rows of the embedding, which training fills up.
    pub rows: usize,
    /// Whether there is a head beside the embedding.
    pub has_head: bool,
    /// Tokens of the tokenizer, if there is one.
    pub tokens: Option<usize>,
}

/// Over how many ranks the weights are split: tensor-parallel, pipeline-parallel.
pub fn ranks(path: &Path, value: &Value) -> Result<(usize, usize)> {
    let root = Object::root(path, value)?;
    let size = |field| Ok(root.dimension(field)?.unwrap_or(1));
    Ok((size("tensor_model_parallel_size")?, size("pipeline_model_parallel_size")?))
}

/// Reads the configuration `value` of the file at `path`.
///
/// # Errors
/// A setting that is missing, out of range, contradicts another or would make another decoder; each by name.
pub fn parse(path: &Path, value: &Value, facts: Facts) -> Result<ModelConfig> {
    let root = Object::root(path, value)?;
    for (key, default, supported) in FIXED {
        require(&root, key, root.get(key).map_or_else(|| default.to_owned(), text), supported)?;
    }
    for (key, supported) in NEUTRAL {
        if let Some(value) = root.get(key) {
            require(&root, key, text(value), supported)?;
        }
    }
    let hidden_size = root.required_dimension("hidden_size")?;
    let num_attention_heads = root.required_dimension("num_attention_heads")?;
    let head_size = match root.dimension("kv_channels")? {
        Some(size) => size,
        None if hidden_size.is_multiple_of(num_attention_heads) => hidden_size / num_attention_heads,
        None => {
            let problem = "is missing, and hidden_size is no multiple of num_attention_heads";
            return Err(root.error("kv_channels", problem));
        }
    };
    let positions = match root.tokens("max_position_embeddings")? {
        Some(positions) => positions,
        None => root
            .tokens("encoder_seq_length")?
            .ok_or_else(|| root.error("max_position_embeddings", "is missing, and encoder_seq_length too"))?,
    };
    if root.boolean("share_embeddings_and_output_weights")? == Some(false) && !facts.has_head {
        let problem = "is false, but the weights have no `output_layer.weight`";
        return Err(root.error("share_embeddings_and_output_weights", problem));
    }
    let sliding_window = sliding_window(&root)?;
    let config = ModelConfig {
        // The file does not name the family. Both are the same decoder, and only Mistral's has windows.
        architecture: if sliding_window.is_some() { Architecture::Mistral } else { Architecture::Llama },
        hidden_size,
        num_hidden_layers: root.required_dimension("num_layers")?,
        num_attention_heads,
        num_key_value_heads: root.dimension("num_query_groups")?.unwrap_or(num_attention_heads),
        head_size,
        intermediate_size: root.required_dimension("ffn_hidden_size")?,
        vocab_size: vocab_size(&root, facts)?,
        max_position_embeddings: positions,
        norm_epsilon: root.within("layernorm_epsilon", &NORM_EPSILONS)?.unwrap_or(1e-5) as f32,
        attention_bias: false,
        tie_word_embeddings: !facts.has_head,
        sliding_window,
        rope: Rope { theta: root.within("rotary_base", &THETAS)?.unwrap_or(DEFAULT_THETA), scaling: scaling(&root)? },
    };
    config.validate(path)?;
    Ok(config)
}

/// A setting as text, as YAML has it.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn require(root: &Object<'_>, key: &str, value: String, supported: &[&str]) -> Result<()> {
    if supported.contains(&value.as_str()) {
        return Ok(());
    }
    let supported = if supported.is_empty() { "null".to_owned() } else { supported.join(", ") };
    Err(FormatError::Unsupported { path: root.path().to_owned(), field: root.name(key), value, supported })
}

/// The tokenizer's tokens where the embedding has them and no more rows than training fills up; otherwise the embedding's rows.
fn vocab_size(root: &Object<'_>, facts: Facts) -> Result<usize> {
    let divisor = root.dimension("make_vocab_size_divisible_by")?.unwrap_or(DEFAULT_DIVISOR);
    let ranks = root.dimension("tensor_model_parallel_size")?.unwrap_or(1);
    let multiple = divisor.saturating_mul(ranks);
    let is_filled_up = |tokens: usize| tokens > 0 && tokens.checked_next_multiple_of(multiple) == Some(facts.rows);
    Ok(facts.tokens.filter(|&tokens| is_filled_up(tokens)).unwrap_or(facts.rows))
}

/// `window_size: [W, 0]`, as NeMo's importers write the W of Transformers.
fn sliding_window(root: &Object<'_>) -> Result<Option<usize>> {
    let key = "window_size";
    let Some(value) = root.get(key) else { return Ok(None) };
    let window = match value.as_array().map(Vec::as_slice) {
        Some([before, after]) if after.as_i64() == Some(0) => before.as_u64(),
        _ => None,
    };
    let window = window.and_then(|window| usize::try_from(window).ok());
    let window = window.filter(|window| (1..=MAX_TOKENS).contains(window));
    window.map(Some).ok_or_else(|| root.error(key, format!("must be a window and 0, as in `[4096, 0]`, not `{value}`")))
}

fn scaling(root: &Object<'_>) -> Result<RopeScaling> {
    let (interpolation, llama3) = ("seq_len_interpolation_factor", "scale_positional_embedding");
    let factor = root.within(interpolation, &FACTORS)?.filter(|&factor| factor != 1.0);
    match (factor, root.boolean(llama3)?.unwrap_or(false)) {
        (None, false) => Ok(RopeScaling::None),
        (Some(factor), false) => Ok(RopeScaling::Linear { factor }),
        // NeMo has these numbers in its code.
        (None, true) => Ok(RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        }),
        (Some(_), true) => Err(root.error(interpolation, format!("contradicts {llama3}: positions are scaled twice"))),
    }
}
