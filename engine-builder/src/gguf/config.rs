//! The model's configuration, of a file's metadata.
//!
//! Keys begin with the architecture, as in `llama.block_count`; their meaning is llama.cpp's. Whatever could change the decoder and is
//! not understood is refused by its key.

use std::path::Path;

use engine_format::json::Object;
use engine_format::model_config::NORM_EPSILONS;
use engine_format::rope::{FACTORS, Rope, RopeScaling, THETAS};
use engine_format::{Architecture, FormatError, ModelConfig, Result};
use serde_json::{Map, Value};

/// Names of architectures that are this decoder, and their families. Mistral's older models are `llama`.
const ARCHITECTURES: [(&str, Architecture); 2] = [("llama", Architecture::Llama), ("mistral3", Architecture::Mistral)];

/// The key that names the architecture.
const ARCHITECTURE: &str = "general.architecture";

/// The key that lists the tokens.
pub(super) const TOKENS: &str = "tokenizer.ggml.tokens";

/// The base of rotary frequencies where a file has none, as in llama.cpp.
const DEFAULT_THETA: f64 = 10_000.0;

/// Keys of an architecture that are read.
const READ: [&str; 16] = [
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "vocab_size",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.sliding_window",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
];

/// Keys of an architecture that change nothing.
const PUT_ASIDE: [&str; 3] = ["tensor_data_layout", "rope.scaling.original_context_length", "rope.scaling.finetuned"];

/// Keys of an architecture that change the decoder, but for one value.
const NEUTRAL: [(&str, f64); 5] = [
    ("expert_count", 0.0),
    ("expert_used_count", 0.0),
    ("attention.temperature_scale", 0.0),
    ("rope.scaling.attn_factor", 1.0),
    ("logit_scale", 0.0),
];

/// What the tensors say about a model.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Whether there is a head beside the embedding.
    pub has_head: bool,
    /// Whether there are biases of attention's projections.
    pub has_biases: bool,
    /// What each pair's frequency is divided by; [`ROPE_FACTORS`].
    pub rope_factors: Option<Vec<f32>>,
}

/// The tensor of factors of rotary frequencies.
pub const ROPE_FACTORS: &str = "rope_freqs.weight";

/// Reads the configuration of the file at `path`.
///
/// # Errors
/// A key that is missing, out of range, contradicts another or is not understood; each by name.
pub fn parse(path: &Path, metadata: &Map<String, Value>, facts: &Facts) -> Result<ModelConfig> {
    let value = Value::Object(uniform(metadata));
    let root = Object::root(path, &value)?;
    let name = root.required_string(ARCHITECTURE)?;
    let Some(&(name, architecture)) = ARCHITECTURES.iter().find(|(known, _)| *known == name) else {
        let known = ARCHITECTURES.map(|(name, _)| name).join(", ");
        return Err(unsupported(path, ARCHITECTURE, name, &known));
    };
    let key = |suffix: &str| format!("{name}.{suffix}");
    refuse_unknown(path, name, metadata)?;
    let hidden_size = root.required_dimension(&key("embedding_length"))?;
    let num_attention_heads = root.required_dimension(&key("attention.head_count"))?;
    let positions = key("context_length");
    let max_position_embeddings = root.tokens(&positions)?.ok_or_else(|| root.error(&positions, "is missing"))?;
    let head_size = head_size(&root, name, hidden_size, num_attention_heads)?;
    for (key, what) in [(key("vocab_size"), "it"), (TOKENS.to_owned(), "its length")] {
        if let Some(size) = root.dimension(&key)?.filter(|&size| size != facts.vocab_size) {
            let problem = format!("contradicts token_embd.weight: {what} is {size}, not {}", facts.vocab_size);
            return Err(root.error(&key, problem));
        }
    }
    let epsilon = root.required_within(&key("attention.layer_norm_rms_epsilon"), &NORM_EPSILONS)? as f32;
    let theta = root.within(&key("rope.freq_base"), &THETAS)?.unwrap_or(DEFAULT_THETA);
    let window = key("attention.sliding_window");
    let no_window = root.get(&window).and_then(Value::as_u64) == Some(0);
    let config = ModelConfig {
        architecture,
        hidden_size,
        num_hidden_layers: root.required_dimension(&key("block_count"))?,
        num_attention_heads,
        num_key_value_heads: root.dimension(&key("attention.head_count_kv"))?.unwrap_or(num_attention_heads),
        head_size,
        intermediate_size: root.required_dimension(&key("feed_forward_length"))?,
        vocab_size: facts.vocab_size,
        max_position_embeddings,
        norm_epsilon: epsilon,
        attention_bias: facts.has_biases,
        tie_word_embeddings: !facts.has_head,
        sliding_window: if no_window { None } else { root.tokens(&window)? },
        rope: Rope { theta, scaling: scaling(&root, name, theta, head_size, facts)? },
    };
    config.validate(path)?;
    Ok(config)
}

/// The architecture that a file names, for people.
pub(super) fn architecture(metadata: &Map<String, Value>) -> &str {
    metadata.get(ARCHITECTURE).and_then(Value::as_str).unwrap_or_default()
}

fn unsupported(path: &Path, field: &str, value: &str, supported: &str) -> FormatError {
    FormatError::Unsupported {
        path: path.to_owned(),
        field: field.to_owned(),
        value: value.to_owned(),
        supported: supported.to_owned(),
    }
}

/// The metadata, with one number where a key has the same number for every layer. Of the tokenizer's, which are long, there is the
/// number of tokens only.
fn uniform(metadata: &Map<String, Value>) -> Map<String, Value> {
    let one = |value: &Value| match value {
        Value::Array(values) => match values.split_first() {
            Some((first, rest)) if first.is_number() && rest.iter().all(|value| value == first) => first.clone(),
            _ => value.clone(),
        },
        _ => value.clone(),
    };
    let of_model = metadata.iter().filter(|(key, _)| !key.starts_with("tokenizer."));
    let tokens = metadata.get(TOKENS).and_then(Value::as_array).map(|tokens| (TOKENS.to_owned(), tokens.len().into()));
    of_model.map(|(key, value)| (key.clone(), one(value))).chain(tokens).collect()
}

/// Refuses every key of the architecture that may mean something and is not understood.
fn refuse_unknown(path: &Path, name: &str, metadata: &Map<String, Value>) -> Result<()> {
    for (key, value) in metadata {
        let Some(suffix) = key.strip_prefix(name).and_then(|rest| rest.strip_prefix('.')) else { continue };
        let neutral = NEUTRAL.iter().find(|(known, _)| *known == suffix).map(|(_, neutral)| *neutral);
        let is_known = READ.contains(&suffix) || PUT_ASIDE.contains(&suffix);
        let is_causal = suffix == "attention.causal" && *value == Value::Bool(true);
        if is_known || is_causal || (neutral.is_some() && value.as_f64() == neutral) {
            continue;
        }
        let supported = neutral.map_or_else(|| "no such key".to_owned(), |neutral| neutral.to_string());
        return Err(unsupported(path, key, &engine_format::json::brief(value), &supported));
    }
    Ok(())
}

fn head_size(root: &Object<'_>, name: &str, hidden_size: usize, heads: usize) -> Result<usize> {
    let key = format!("{name}.attention.key_length");
    let head_size = match root.dimension(&key)? {
        Some(size) => size,
        None if hidden_size.is_multiple_of(heads) => hidden_size / heads,
        None => {
            let problem =
                format!("is missing, and embedding_length {hidden_size} is no multiple of head_count {heads}");
            return Err(root.error(&key, problem));
        }
    };
    for suffix in ["attention.value_length", "rope.dimension_count"] {
        let key = format!("{name}.{suffix}");
        if let Some(size) = root.dimension(&key)?.filter(|&size| size != head_size) {
            return Err(unsupported(root.path(), &key, &size.to_string(), &format!("{head_size}, as keys have")));
        }
    }
    Ok(head_size)
}

/// How rotary frequencies are stretched: by one factor, or as a tensor of factors says.
fn scaling(root: &Object<'_>, name: &str, theta: f64, head_size: usize, facts: &Facts) -> Result<RopeScaling> {
    let key = |suffix: &str| format!("{name}.rope.{suffix}");
    let kind = key("scaling.type");
    let factor = match root.within(&key("scaling.factor"), &(0.0..=*FACTORS.end()))? {
        Some(factor) => Some(factor),
        None => root.within(&key("scale_linear"), &(0.0..=*FACTORS.end()))?,
    };
    let linear = match root.string(&kind)? {
        Some("none") => None,
        // In llama.cpp a factor of 0 is none, and one without a kind is linear.
        Some("linear") | None => factor.filter(|&factor| factor != 0.0 && factor != 1.0),
        Some(other) => {
            return Err(unsupported(root.path(), &kind, other, "none, linear; llama3, by rope_freqs.weight"));
        }
    };
    if let Some(factor) = linear.filter(|factor| !FACTORS.contains(factor)) {
        return Err(root.error(&key("scaling.factor"), format!("is {factor}, which is too small")));
    }
    let llama3 = match &facts.rope_factors {
        Some(factors) => llama3(root.path(), theta, head_size, factors)?,
        None => RopeScaling::None,
    };
    match (linear, llama3) {
        (None, scaling) => Ok(scaling),
        (Some(factor), RopeScaling::None) => Ok(RopeScaling::Linear { factor }),
        (Some(_), _) => {
            Err(root.error(&kind, format!("contradicts {ROPE_FACTORS}: frequencies are scaled in two ways")))
        }
    }
}

/// The scaling that divides frequencies by `factors`. The file has neither the kind nor its settings, so those are tried that
/// Llama 3.1 to 3.3 have.
fn llama3(path: &Path, theta: f64, head_size: usize, factors: &[f32]) -> Result<RopeScaling> {
    let refuse = |problem: &str| FormatError::tensor(path, ROPE_FACTORS, problem);
    if factors.len() != head_size / 2 {
        return Err(refuse("has not a factor for each pair of a head's elements"));
    }
    let factor = factors.iter().copied().fold(1.0, f32::max);
    if factors.iter().all(|&factor| factor == 1.0) {
        return Ok(RopeScaling::None);
    }
    let unknown = || refuse("has factors that are not those of Llama 3 (low 1, high 4, of 8192 positions)");
    if !FACTORS.contains(&f64::from(factor)) {
        return Err(unknown());
    }
    let scaling = RopeScaling::Llama3 {
        factor: f64::from(factor),
        low_freq_factor: 1.0,
        high_freq_factor: 4.0,
        original_max_position_embeddings: 8192,
    };
    let plain = Rope { theta, scaling: RopeScaling::None }.inverse_frequencies(head_size);
    let scaled = Rope { theta, scaling: scaling.clone() }.inverse_frequencies(head_size);
    // The factors were rounded to fp32 on their way, from frequencies that were, too.
    let is_near = |(factor, (plain, scaled)): (&f32, (&f32, &f32))| (factor * scaled / plain - 1.0).abs() < 1e-4;
    let all = factors.iter().zip(plain.iter().zip(&scaled)).all(is_near);
    if all { Ok(scaling) } else { Err(unknown()) }
}
