//! `adapter_config.json` of a LoRA adapter.
//!
//! Source: PEFT, `src/peft/tuners/lora/config.py` (huggingface/peft `00a4d080`) and the field list of its current
//! documentation; scaling as in `LoraLayer.update_layer`, patterns as in `peft.utils.get_pattern_key`.

#![forbid(unsafe_code)]

use std::ops::RangeInclusive;
use std::path::Path;

use serde_json::Value;

use crate::error::{FormatError, Result};
use crate::json::Object;

/// Values of alpha that are accepted; usual ones are once or twice the rank.
const ALPHAS: RangeInclusive<f64> = 0.0..=1e6;

/// Ways to initialize that leave the base model as it is; the others train against a changed one.
const INITIALIZATIONS: [&str; 3] = ["gaussian", "eva", "orthogonal"];

/// Fields that have to be absent, null, false or empty, and what to do about an adapter that uses them.
const UNSUPPORTED: [(&str, &str); 13] = [
    ("use_dora", "its magnitudes need the base model's weights: merge the adapter into the model"),
    ("modules_to_save", "a request cannot replace modules: train without it, or merge the adapter into the model"),
    ("trainable_token_indices", "a request cannot change the embedding: merge the adapter into the model"),
    ("target_parameters", "only projections can be adapted: merge the adapter into the model"),
    ("lora_bias", "TensorRT-LLM's LoRA has no bias: merge the adapter into the model"),
    ("fan_in_fan_out", "this model's projections are stored as (out, in): is the adapter one for another model?"),
    ("layer_replication", "it makes another model: merge the adapter into the model"),
    ("alora_invocation_tokens", "TensorRT-LLM adapts all tokens of a request"),
    ("arrow_config", "TensorRT-LLM applies one adapter to a request"),
    ("use_qalora", "its A does not have the width of the projection's input: merge the adapter into the model"),
    ("use_bdlora", "block-diagonal matrices are not read: merge the adapter into the model"),
    ("monteclora_config", "sampled adapters are not read: merge the adapter into the model"),
    ("kasa_config", "it has a third factor between A and B: merge the adapter into the model"),
];

/// What the mathematics of a LoRA adapter depends on.
///
/// A projection's output grows by `scaling * B (A x)`.
#[derive(Debug, Clone, PartialEq)]
pub struct PeftConfig {
    /// Rank where no pattern says otherwise.
    rank: usize,
    /// Alpha where no pattern says otherwise.
    alpha: f64,
    /// Whether alpha is divided by the rank's square root, and not by the rank.
    rank_stabilized: bool,
    /// Ranks and alphas of some projections; of several that match, the first holds.
    rank_pattern: Vec<(String, usize)>,
    alpha_pattern: Vec<(String, f64)>,
}

impl PeftConfig {
    /// Reads the content of `adapter_config.json`; `path` is named in errors.
    ///
    /// # Errors
    /// Another kind of adapter than LoRA; a rank or an alpha that is missing or out of range; biases, DoRA, modules that
    /// were trained whole, and what else TensorRT-LLM cannot do by request, each by the field's name.
    pub fn parse(path: &Path, value: &Value) -> Result<Self> {
        let root = Object::root(path, value)?;
        let unsupported = |field: &str, value: String, supported: &str| {
            let (field, supported) = (field.to_owned(), supported.to_owned());
            Err(FormatError::Unsupported { path: path.to_owned(), field, value, supported })
        };
        let kind = root.required_string("peft_type")?;
        if kind != "LORA" {
            return unsupported("peft_type", kind.to_owned(), "LORA");
        }
        match root.string("bias")? {
            None | Some("none") => {}
            Some(bias) => return unsupported("bias", bias.to_owned(), "none; or merge the adapter into the model"),
        }
        match root.get("init_lora_weights") {
            None | Some(Value::Bool(_)) => {}
            Some(Value::String(name)) if INITIALIZATIONS.contains(&name.as_str()) => {}
            Some(other) => {
                let supported = format!(
                    "true, false, {}; others change the base model: save with `path_initial_model_for_weight_conversion`",
                    INITIALIZATIONS.join(", ")
                );
                return unsupported("init_lora_weights", other.to_string(), &supported);
            }
        }
        for (field, reason) in UNSUPPORTED {
            if root.get(field).is_some_and(is_used) {
                return Err(root.error(field, format!("asks for what is not supported: {reason}")));
            }
        }
        Ok(Self {
            rank: root.required_dimension("r")?,
            alpha: root.required_within("lora_alpha", &ALPHAS)?,
            rank_stabilized: root.boolean("use_rslora")?.unwrap_or(false),
            rank_pattern: pattern(&root, "rank_pattern", |object, key| object.required_dimension(key))?,
            alpha_pattern: pattern(&root, "alpha_pattern", |object, key| object.required_within(key, &ALPHAS))?,
        })
    }

    /// Rank of the projection called `module` (`model.layers.0.self_attn.q_proj`); from 1.
    pub fn rank(&self, module: &str) -> usize {
        find(&self.rank_pattern, module).unwrap_or(self.rank)
    }

    /// What B is multiplied with; finite.
    pub fn scaling(&self, module: &str) -> f32 {
        let rank = self.rank(module) as f64;
        let alpha = find(&self.alpha_pattern, module).unwrap_or(self.alpha);
        (alpha / if self.rank_stabilized { rank.sqrt() } else { rank }) as f32
    }
}

fn is_used(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    }
}

/// The entries of a pattern field. Keys are regular expressions to PEFT; those that are plain names mean the same here.
fn pattern<T>(
    root: &Object<'_>,
    field: &str,
    read: impl Fn(&Object<'_>, &str) -> Result<T>,
) -> Result<Vec<(String, T)>> {
    let Some(object) = root.object(field)? else { return Ok(Vec::new()) };
    let entry = |key: &str| {
        let name = key.strip_prefix('^').unwrap_or(key);
        if name.is_empty() || !name.chars().all(|letter| letter.is_ascii_alphanumeric() || "._".contains(letter)) {
            return Err(object.error(key, "is a regular expression: write modules' names, one by one, or their ends"));
        }
        Ok((key.to_owned(), read(&object, key)?))
    };
    object.fields().map(entry).collect()
}

/// The value of the first key that is `module` or its last parts; after `^`, only all of it.
fn find<T: Copy>(pattern: &[(String, T)], module: &str) -> Option<T> {
    let matches = |key: &str| match key.strip_prefix('^') {
        Some(key) => module == key,
        None => module.strip_suffix(key).is_some_and(|rest| rest.is_empty() || rest.ends_with('.')),
    };
    pattern.iter().find(|(key, _)| matches(key)).map(|&(_, value)| value)
}
