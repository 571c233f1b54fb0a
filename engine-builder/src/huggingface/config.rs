//! `config.json` of a Transformers model, in the spelling of version 4 or 5.
//!
//! What an absent field means follows Transformers' `MistralConfig` and `LlamaConfig`. Sizes are never guessed: a file
//! without them is refused, and so is every feature that this decoder does not have.

use std::path::Path;

use engine_format::checkpoint::scaling_from_json;
use engine_format::json::{self, Object};
use engine_format::model_config::NORM_EPSILONS;
use engine_format::model_files::{self, Table};
use engine_format::rope::{Rope, RopeScaling, THETAS};
use engine_format::{Architecture, FormatError, ModelConfig, Result};
use serde_json::Value;

/// Name of the file.
pub const CONFIG_FILE: &str = "config.json";

/// What an absent field means, where the families agree.
const DEFAULT_ROPE_THETA: f64 = 10_000.0;
const DEFAULT_NORM_EPSILON: f64 = 1e-6;

/// Reads `config.json` of the model directory `dir`.
///
/// # Errors
/// [`FormatError`] that names the file and Transformers' name of the field.
pub fn read(dir: &Path) -> Result<ModelConfig> {
    let path = dir.join(CONFIG_FILE);
    let value = json::read_file(&path, "a model directory needs one")?;
    parse(&path, &value)
}

/// Reads the configuration `value`, the content of the file at `path`.
///
/// # Errors
/// As [`read`].
pub fn parse(path: &Path, value: &Value) -> Result<ModelConfig> {
    let root = Object::root(path, value)?;
    let architecture = architecture(&root)?;
    refuse(&model_files::CONFIG, &root)?;
    let hidden_size = root.required_dimension("hidden_size")?;
    let num_attention_heads = root.required_dimension("num_attention_heads")?;
    let max_position_embeddings = root.tokens("max_position_embeddings")?.unwrap_or(default_positions(architecture));
    let attention_bias = root.boolean("attention_bias")?.unwrap_or(false);
    let config = ModelConfig {
        architecture,
        hidden_size,
        num_hidden_layers: root.required_dimension("num_hidden_layers")?,
        num_attention_heads,
        num_key_value_heads: key_value_heads(&root, value, architecture, num_attention_heads)?,
        head_size: head_size(&root, hidden_size, num_attention_heads)?,
        intermediate_size: root.required_dimension("intermediate_size")?,
        vocab_size: root.required_dimension("vocab_size")?,
        max_position_embeddings,
        norm_epsilon: root.within("rms_norm_eps", &NORM_EPSILONS)?.unwrap_or(DEFAULT_NORM_EPSILON) as f32,
        // Mistral's projections have no biases in Transformers, whatever the file says.
        attention_bias: attention_bias && architecture == Architecture::Llama,
        tie_word_embeddings: root.boolean("tie_word_embeddings")?.unwrap_or(false),
        sliding_window: sliding_window(&root, value, architecture)?,
        rope: rope(&root, max_position_embeddings)?,
    };
    config.validate(path)?;
    Ok(config)
}

/// Whether the field is in the file, be it null.
fn is_present(value: &Value, field: &str) -> bool {
    value.get(field).is_some()
}

fn unsupported(object: &Object<'_>, field: &str, value: impl ToString, supported: impl Into<String>) -> FormatError {
    FormatError::Unsupported {
        path: object.path().to_owned(),
        field: object.name(field),
        value: value.to_string(),
        supported: supported.into(),
    }
}

/// The first of `architectures`, or what `model_type` stands for where a file has no `architectures`.
fn architecture(root: &Object<'_>) -> Result<Architecture> {
    let listed = match root.get("architectures") {
        None => None,
        Some(Value::Array(names)) => match names.first() {
            None => None,
            Some(Value::String(name)) => Some(name.as_str()),
            Some(_) => return Err(root.error("architectures", "must be a list of names")),
        },
        Some(_) => return Err(root.error("architectures", "must be a list of names")),
    };
    if let Some(name) = listed {
        return Architecture::from_name(name)
            .ok_or_else(|| unsupported(root, "architectures", name, Architecture::names()));
    }
    match root.string("model_type")? {
        Some("mistral") => Ok(Architecture::Mistral),
        Some("llama") => Ok(Architecture::Llama),
        Some(other) => Err(unsupported(root, "model_type", other, "mistral, llama")),
        None => Err(root.error("architectures", "is missing")),
    }
}

/// Refuses, by name, what would make the decoder compute something else, as the table of fields says.
fn refuse(table: &Table, object: &Object<'_>) -> Result<()> {
    let Some((field, value, supported)) = table.refusal(|field| object.get(field)) else { return Ok(()) };
    let method = value.get("quant_method").unwrap_or(value);
    let value = method.as_str().map_or_else(|| json::brief(method), str::to_owned);
    Err(unsupported(object, field, value, supported))
}

/// `LlamaConfig`'s and `MistralConfig`'s own defaults.
const fn default_positions(architecture: Architecture) -> usize {
    match architecture {
        Architecture::Mistral => 4096 * 32,
        Architecture::Llama => 2048,
    }
}

/// Null means as many as query heads; so does an absent field, except that `MistralConfig` then has 8.
fn key_value_heads(root: &Object<'_>, value: &Value, architecture: Architecture, heads: usize) -> Result<usize> {
    let field = "num_key_value_heads";
    let default = match architecture {
        Architecture::Mistral if !is_present(value, field) => 8,
        Architecture::Mistral | Architecture::Llama => heads,
    };
    Ok(root.dimension(field)?.unwrap_or(default))
}

fn head_size(root: &Object<'_>, hidden_size: usize, heads: usize) -> Result<usize> {
    if let Some(size) = root.dimension("head_dim")? {
        return Ok(size);
    }
    if !hidden_size.is_multiple_of(heads) {
        let problem =
            format!("({hidden_size}) must be a multiple of num_attention_heads ({heads}) where head_dim is not given");
        return Err(root.error("hidden_size", problem));
    }
    Ok(hidden_size / heads)
}

/// The window of every layer. Null means none; absent means the family's default. `LlamaForCausalLM` has none, whatever
/// its file says.
fn sliding_window(root: &Object<'_>, value: &Value, architecture: Architecture) -> Result<Option<usize>> {
    let Some(default) = architecture.default_sliding_window() else {
        check_layer_types(root, None)?;
        return Ok(None);
    };
    let field = "sliding_window";
    let window = match root.tokens(field)? {
        None if !is_present(value, field) => Some(default),
        window => window,
    };
    check_layer_types(root, window)?;
    Ok(window)
}

/// `layer_types`, where a file has it, must say of every layer what the window says.
fn check_layer_types(root: &Object<'_>, window: Option<usize>) -> Result<()> {
    let field = "layer_types";
    let Some(types) = root.get(field) else {
        return Ok(());
    };
    let types = types.as_array().ok_or_else(|| root.error(field, "must be a list of names"))?;
    let expected = match window {
        Some(_) => "sliding_attention",
        None => "full_attention",
    };
    match types.iter().find(|kind| kind.as_str() != Some(expected)) {
        None => Ok(()),
        Some(kind) => Err(unsupported(
            root,
            field,
            kind,
            format!(
                "{expected} in every layer, as sliding_window ({}) says",
                window.map_or("none".to_owned(), |window| window.to_string())
            ),
        )),
    }
}

/// Version 4 spells `rope_theta` and `rope_scaling`, version 5 `rope_parameters` with the base inside; where both are
/// there, Transformers reads `rope_scaling`.
fn rope(root: &Object<'_>, max_position_embeddings: usize) -> Result<Rope> {
    let is_filled = |field: &&str| match root.get(field) {
        Some(Value::Object(settings)) => !settings.is_empty(),
        Some(_) => true,
        None => false,
    };
    let field = ["rope_scaling", "rope_parameters"].into_iter().find(is_filled);
    let settings = field.map(|field| root.object(field)).transpose()?.flatten();
    let mut theta = root.within("rope_theta", &THETAS)?;
    if let Some(settings) = &settings {
        refuse(&model_files::ROPE, settings)?;
        theta = settings.within("rope_theta", &THETAS)?.or(theta);
    }
    let theta = theta.unwrap_or(DEFAULT_ROPE_THETA);
    let mut scaling = scaling_from_json(settings, max_position_embeddings)?;
    if let RopeScaling::Llama3 { original_max_position_embeddings, .. } = &mut scaling
        && let Some(outside) = root.tokens("original_max_position_embeddings")?
    {
        *original_max_position_embeddings = outside;
    }
    Ok(Rope { theta, scaling })
}
