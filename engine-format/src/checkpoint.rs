//! `config.json` of a TensorRT-LLM checkpoint, which is also `pretrained_config` of an engine's `config.json`.
//!
//! Source: TensorRT-LLM 1.x, `models/modeling_utils.py` (`PretrainedConfig`), `models/llama/config.py`. Unknown keys are
//! harmless there; `sliding_window` is ours.

use serde_json::{Value, json};

use crate::error::{FormatError, Result};
use crate::json::Object;
use crate::model_config::{Architecture, ModelConfig, NORM_EPSILONS};
use crate::rope::{FACTORS, Rope, RopeScaling, THETAS};
use crate::shard::Mapping;

/// Name of the configuration inside a checkpoint directory, and inside an engine directory.
pub const CONFIG_FILE: &str = "config.json";

/// Name of a rank's weights inside a checkpoint directory.
pub fn rank_file(rank: usize) -> String {
    format!("rank{rank}.safetensors")
}

/// GPUs of one node, which upstream uses to place ranks.
const GPUS_PER_NODE: usize = 8;

/// The configuration as TensorRT-LLM's `PretrainedConfig` reads it.
pub fn to_json(config: &ModelConfig, mapping: Mapping) -> Value {
    json!({
        "architecture": config.architecture.name(),
        "dtype": "bfloat16",
        "logits_dtype": "float32",
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_position_embeddings,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_size": config.head_size,
        "qk_layernorm": false,
        "hidden_act": "silu",
        "intermediate_size": config.intermediate_size,
        "norm_epsilon": shortest(config.norm_epsilon),
        "position_embedding_type": "rope_gpt_neox",
        "rotary_embedding_dim": config.head_size,
        "rotary_base": config.rope.theta,
        "rotary_scaling": scaling_to_json(&config.rope.scaling),
        "attn_bias": config.attention_bias,
        "mlp_bias": false,
        "tie_word_embeddings": config.tie_word_embeddings,
        "use_parallel_embedding": false,
        "embedding_sharding_dim": 0,
        "residual_mlp": false,
        "sliding_window": config.sliding_window,
        "mapping": {
            "world_size": mapping.world_size(),
            "gpus_per_node": GPUS_PER_NODE,
            "cp_size": 1,
            "tp_size": mapping.tp_size,
            "pp_size": mapping.pp_size,
        },
        "quantization": { "quant_algo": null, "kv_cache_quant_algo": null },
    })
}

/// The decimal number that the configuration file had: `1e-5`, not `0.000009999999747378752`.
fn shortest(value: f32) -> f64 {
    value.to_string().parse().unwrap_or(f64::from(value))
}

fn scaling_to_json(scaling: &RopeScaling) -> Value {
    match scaling {
        RopeScaling::None => Value::Null,
        RopeScaling::Linear { factor } => {
            json!({ "rope_type": "linear", "type": "linear", "factor": factor })
        }
        RopeScaling::Llama3 { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } => json!({
            "rope_type": "llama3",
            "type": "llama3",
            "factor": factor,
            "low_freq_factor": low_freq_factor,
            "high_freq_factor": high_freq_factor,
            "original_max_position_embeddings": original_max_position_embeddings,
        }),
    }
}

/// Reads what [`to_json`] wrote. `path` is the file that holds `root`.
///
/// # Errors
/// Missing or contradictory fields, or a feature that this decoder does not have (quantization, MoE, …).
pub fn from_json(root: &Object<'_>) -> Result<(ModelConfig, Mapping)> {
    let path = root.path();
    let name = root.required_string("architecture")?;
    let architecture = Architecture::from_name(name).ok_or_else(|| FormatError::Unsupported {
        path: path.to_owned(),
        field: root.name("architecture"),
        value: name.to_owned(),
        supported: Architecture::names(),
    })?;
    let only = |field: &str, expected: &str| match root.required_string(field)? {
        found if found == expected => Ok(()),
        found => Err(FormatError::Unsupported {
            path: path.to_owned(),
            field: root.name(field),
            value: found.to_owned(),
            supported: expected.to_owned(),
        }),
    };
    only("dtype", "bfloat16")?;
    only("hidden_act", "silu")?;
    only("position_embedding_type", "rope_gpt_neox")?;
    if let Some(quantization) = root.object("quantization")?
        && let Some(algorithm) = quantization.string("quant_algo")?
    {
        return Err(FormatError::Unsupported {
            path: path.to_owned(),
            field: quantization.name("quant_algo"),
            value: algorithm.to_owned(),
            supported: "none: bfloat16 weights only".to_owned(),
        });
    }
    let heads = root.required_dimension("num_attention_heads")?;
    let max_position_embeddings = root.tokens("max_position_embeddings")?;
    let max_position_embeddings =
        max_position_embeddings.ok_or_else(|| root.error("max_position_embeddings", "is missing"))?;
    let config = ModelConfig {
        architecture,
        hidden_size: root.required_dimension("hidden_size")?,
        num_hidden_layers: root.required_dimension("num_hidden_layers")?,
        num_attention_heads: heads,
        num_key_value_heads: root.dimension("num_key_value_heads")?.unwrap_or(heads),
        head_size: root.required_dimension("head_size")?,
        intermediate_size: root.required_dimension("intermediate_size")?,
        vocab_size: root.required_dimension("vocab_size")?,
        max_position_embeddings,
        norm_epsilon: root.required_within("norm_epsilon", &NORM_EPSILONS)? as f32,
        attention_bias: root.boolean("attn_bias")?.unwrap_or(false),
        tie_word_embeddings: root.boolean("tie_word_embeddings")?.unwrap_or(false),
        sliding_window: root.tokens("sliding_window")?,
        rope: Rope {
            theta: root.required_within("rotary_base", &THETAS)?,
            scaling: scaling_from_json(root.object("rotary_scaling")?, max_position_embeddings)?,
        },
    };
    config.validate(path)?;
    let mapping = root.object("mapping")?.ok_or_else(|| root.error("mapping", "is missing"))?;
    let mapping = Mapping {
        tp_size: mapping.dimension("tp_size")?.unwrap_or(1),
        pp_size: mapping.dimension("pp_size")?.unwrap_or(1),
    };
    mapping.validate(&config)?;
    Ok((config, mapping))
}

/// Reads rotary scaling settings as Transformers and TensorRT-LLM spell them: `rope_type`, or `type` in older files. A model of
/// `max_position_embeddings` positions was made for as many before it was scaled, unless the settings say otherwise.
///
/// # Errors
/// A kind other than [`RopeScaling::SUPPORTED`], refused by name, or a parameter that is missing or out of range.
pub fn scaling_from_json(settings: Option<Object<'_>>, max_position_embeddings: usize) -> Result<RopeScaling> {
    let Some(settings) = settings else {
        return Ok(RopeScaling::None);
    };
    let kind = match settings.string("rope_type")? {
        Some(kind) => kind,
        None => settings.string("type")?.unwrap_or("default"),
    };
    let factor = |field: &str| settings.required_within(field, &FACTORS);
    match kind {
        "default" => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear { factor: factor("factor")? }),
        "llama3" => {
            let (low_freq_factor, high_freq_factor) = (factor("low_freq_factor")?, factor("high_freq_factor")?);
            // The frequencies are computed in fp32, where two numbers may be one.
            if high_freq_factor as f32 <= low_freq_factor as f32 {
                return Err(
                    settings.error("high_freq_factor", format!("must be above low_freq_factor ({low_freq_factor})"))
                );
            }
            let original = settings.tokens("original_max_position_embeddings")?;
            Ok(RopeScaling::Llama3 {
                factor: factor("factor")?,
                low_freq_factor,
                high_freq_factor,
                original_max_position_embeddings: original.unwrap_or(max_position_embeddings),
            })
        }
        other => Err(FormatError::Unsupported {
            path: settings.path().to_owned(),
            field: settings.name("rope_type"),
            value: other.to_owned(),
            supported: RopeScaling::SUPPORTED.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::model_config::tests::minitron;

    #[test]
    fn what_is_written_is_read_back() {
        let mut config = minitron();
        config.sliding_window = Some(4096);
        config.rope.scaling = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        };
        let mapping = Mapping { tp_size: 2, pp_size: 3 };
        let value = to_json(&config, mapping);
        let path = Path::new("config.json");
        let read = from_json(&Object::root(path, &value).unwrap()).unwrap();
        assert_eq!(read, (config, mapping));
        assert_eq!(value["norm_epsilon"], 1e-5);
    }

    #[test]
    fn unknown_scaling_is_refused_by_name() {
        let value = json!({ "rope_type": "yarn", "factor": 2.0 });
        let error =
            scaling_from_json(Some(Object::root(Path::new("c.json"), &value).unwrap()), 64).unwrap_err().to_string();
        assert!(error.contains("yarn") && error.contains("llama3"), "{error}");
    }

    #[test]
    fn scaling_that_divides_by_zero_is_refused() {
        let refused = |value: Value, field: &str| {
            let error = scaling_from_json(Some(Object::root(Path::new("c.json"), &value).unwrap()), 64).unwrap_err();
            assert!(error.to_string().contains(field), "{error}");
        };
        refused(json!({ "rope_type": "linear", "factor": 1e-300 }), "`factor` must be a number from 0.001");
        let mut llama3 = json!({
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 1.000_000_001,
            "original_max_position_embeddings": 8192,
        });
        refused(llama3.clone(), "`high_freq_factor` must be above");
        llama3["high_freq_factor"] = json!(4.0);
        llama3["factor"] = json!(0);
        refused(llama3, "`factor`");
    }
}
