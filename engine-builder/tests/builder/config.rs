//! `config.json`: what Transformers means by it, and what is refused.

use std::path::Path;

use engine_builder::huggingface::config::parse;
use engine_format::rope::RopeScaling;
use engine_format::{Architecture, FormatError, ModelConfig};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::Model;

fn read(config: &Value) -> Result<ModelConfig, FormatError> {
    parse(Path::new("dir/config.json"), config)
}

/// The tiny model's configuration with some fields set; a `"-"` removes one.
fn with(changes: Value) -> Value {
    let mut config = Model::tiny().config;
    let fields = config.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        if value == "-" {
            fields.remove(name);
        } else {
            fields.insert(name.clone(), value.clone());
        }
    }
    config
}

fn accepted(changes: Value) -> ModelConfig {
    read(&with(changes)).unwrap()
}

#[test]
fn absent_fields_mean_what_transformers_means() {
    let absent = json!({
        "num_key_value_heads": "-", "rms_norm_eps": "-", "rope_theta": "-", "sliding_window": "-",
        "max_position_embeddings": "-", "tie_word_embeddings": "-", "hidden_act": "-", "head_dim": "-",
        "hidden_size": 32, "num_attention_heads": 8, "torch_dtype": "-",
    });
    let mistral = accepted(absent.clone());
    assert_eq!(mistral.num_key_value_heads, 8);
    assert_eq!(mistral.max_position_embeddings, 131_072);
    assert_eq!(mistral.sliding_window, Some(4096));
    assert_eq!(mistral.norm_epsilon, 1e-6);
    assert_eq!(mistral.rope.theta, 10_000.0);
    assert_eq!(mistral.head_size, 4);
    assert!(!mistral.tie_word_embeddings && !mistral.attention_bias);
}

#[test]
fn llama_has_its_own_defaults() {
    let llama = accepted(json!({
        "architectures": ["LlamaForCausalLM"], "num_key_value_heads": "-",
        "max_position_embeddings": "-", "sliding_window": 16,
    }));
    assert_eq!(llama.architecture, Architecture::Llama);
    assert_eq!(llama.num_key_value_heads, 4);
    assert_eq!(llama.max_position_embeddings, 2048);
    assert_eq!(llama.sliding_window, None);
}

#[test]
fn null_is_not_always_absent() {
    let config = accepted(json!({ "num_key_value_heads": null, "head_dim": null }));
    assert_eq!(config.num_key_value_heads, 4);
    assert_eq!(config.head_size, 6);
    assert_eq!(config.sliding_window, None);
    let window = |changes| accepted(changes).sliding_window;
    assert_eq!(window(json!({ "sliding_window": 9 })), Some(9));
    assert_eq!(
        window(json!({ "sliding_window": 9, "layer_types": ["sliding_attention", "sliding_attention"] })),
        Some(9)
    );
    assert_eq!(window(json!({ "layer_types": ["full_attention", "full_attention"] })), None);
}

#[test]
fn the_family_may_be_in_model_type_only() {
    for (name, expected) in [("mistral", Architecture::Mistral), ("llama", Architecture::Llama)] {
        let config = accepted(json!({ "architectures": "-", "model_type": name }));
        assert_eq!(config.architecture, expected);
        let config = accepted(json!({ "architectures": [], "model_type": name }));
        assert_eq!(config.architecture, expected);
    }
}

#[test]
fn rope_is_read_in_both_spellings() {
    let llama3 = json!({
        "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    });
    let four = accepted(json!({ "rope_theta": 5e5, "rope_scaling": llama3 }));
    let mut parameters = llama3.clone();
    parameters["rope_theta"] = json!(5e5);
    let five = accepted(json!({ "rope_theta": "-", "rope_parameters": parameters }));
    assert_eq!(four.rope, five.rope);
    assert_eq!(four.rope.theta, 5e5);
    assert!(matches!(four.rope.scaling, RopeScaling::Llama3 { .. }));
    let linear = accepted(json!({ "rope_scaling": { "type": "linear", "factor": 4.0 } }));
    assert_eq!(linear.rope.scaling, RopeScaling::Linear { factor: 4.0 });
    let empty = json!({ "rope_scaling": {}, "rope_parameters": { "rope_theta": 7.0, "rope_type": "default" } });
    let empty = accepted(empty);
    assert_eq!((empty.rope.theta, empty.rope.scaling), (7.0, RopeScaling::None));
}

#[test]
fn what_is_refused_is_refused_by_name() {
    let cases = [
        (json!({ "architectures": ["MixtralForCausalLM"] }), "MixtralForCausalLM"),
        (json!({ "architectures": "-", "model_type": "gpt2" }), "gpt2"),
        (json!({ "architectures": "-", "model_type": "-" }), "`architectures` is missing"),
        (json!({ "architectures": [7] }), "`architectures` must be a list"),
        (json!({ "architectures": "MistralForCausalLM" }), "`architectures` must be a list"),
        (json!({ "hidden_act": "gelu" }), "`gelu`"),
        (json!({ "mlp_bias": true }), "`mlp_bias`"),
        (json!({ "quantization_config": { "quant_method": "gptq" } }), "`gptq`"),
        (json!({ "quantization_config": {} }), "`quantization_config`"),
        (json!({ "rope_scaling": { "rope_type": "yarn", "factor": 2.0 } }), "`yarn`"),
        (json!({ "rope_scaling": { "type": "dynamic", "factor": 2.0 } }), "`dynamic`"),
        (json!({ "rope_scaling": { "type": "linear" } }), "`rope_scaling.factor` is missing"),
        (json!({ "rope_scaling": 3 }), "`rope_scaling` must be an object"),
        (json!({ "rope_parameters": { "full_attention": { "rope_theta": 1e4 } } }), "`rope_parameters.full_attention`"),
        (json!({ "partial_rotary_factor": 0.5 }), "`partial_rotary_factor`"),
        (json!({ "rope_parameters": { "partial_rotary_factor": 0.5 } }), "`rope_parameters.partial_rotary_factor`"),
        (json!({ "rope_theta": -1.0 }), "`rope_theta`"),
        (json!({ "rope_theta": 1e300 }), "`rope_theta`"),
        (json!({ "rms_norm_eps": 0.0 }), "`rms_norm_eps`"),
        (json!({ "rms_norm_eps": 1e-60 }), "`rms_norm_eps`"),
        (json!({ "hidden_size": "-" }), "`hidden_size` is missing"),
        (json!({ "hidden_size": 0 }), "`hidden_size`"),
        (json!({ "hidden_size": -4 }), "`hidden_size`"),
        (json!({ "hidden_size": "24" }), "`hidden_size`"),
        (json!({ "vocab_size": "-" }), "`vocab_size` is missing"),
        (json!({ "intermediate_size": "-" }), "`intermediate_size` is missing"),
        (json!({ "num_hidden_layers": 0 }), "`num_hidden_layers`"),
        (json!({ "num_attention_heads": 5, "head_dim": "-" }), "`hidden_size` (24)"),
        (json!({ "num_key_value_heads": 3 }), "`num_key_value_heads`"),
        (json!({ "head_dim": 5 }), "`head_dim`"),
        (json!({ "sliding_window": 0 }), "`sliding_window`"),
        (json!({ "layer_types": ["sliding_attention"] }), "`layer_types`"),
        (json!({ "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"] }), "full_attention"),
        (json!({ "layer_types": "full_attention" }), "`layer_types` must be a list"),
        (json!({ "tie_word_embeddings": "yes" }), "`tie_word_embeddings`"),
    ];
    for (changes, word) in cases {
        let error = read(&with(changes.clone())).expect_err(&changes.to_string()).to_string();
        assert!(error.contains(word), "{changes}: {error}");
        assert!(error.contains("dir/config.json"), "{error}");
    }
}

/// A value of any kind, with numbers near the limits of each type.
fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0u64..70).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec!["silu", "linear", "llama3", "yarn", "mistral", "MistralForCausalLM", ""])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let keys = prop::sample::select(vec!["rope_type", "type", "factor", "rope_theta", "x"]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            prop::collection::vec((keys, inner), 0..4)
                .prop_map(|fields| fields.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_configuration_panics_and_what_is_accepted_holds(
        changes in prop::collection::vec((0usize..32, any_value()), 0..4),
        removed in prop::collection::vec(0usize..32, 0..2),
    ) {
        const EXTRA: [&str; 12] = [
            "rope_scaling", "rope_parameters", "partial_rotary_factor", "layer_types", "use_sliding_window",
            "attention_bias", "mlp_bias", "quantization_config", "dtype", "rope_theta", "sliding_window", "head_dim",
        ];
        let mut config = Model::tiny().config;
        let names: Vec<String> = config.as_object().unwrap().keys().cloned()
            .chain(EXTRA.map(str::to_owned)).collect();
        for (index, value) in changes {
            config[&names[index % names.len()]] = value;
        }
        for index in removed {
            config.as_object_mut().unwrap().remove(&names[index % names.len()]);
        }
        if let Ok(read) = read(&config) {
            read.validate(Path::new("c")).unwrap();
            prop_assert!(read.num_attention_heads % read.num_key_value_heads == 0);
            prop_assert!(read.norm_epsilon > 0.0 && read.rope.theta.is_finite());
            // What is accepted can be written as a checkpoint's configuration and read back.
            let json = engine_format::checkpoint::to_json(&read, engine_format::Mapping::SINGLE);
            let path = Path::new("c");
            let root = engine_format::json::Object::root(path, &json).unwrap();
            let (again, _) = engine_format::checkpoint::from_json(&root).unwrap();
            prop_assert_eq!(again, read);
        }
    }

    #[test]
    fn no_text_panics(text in "[\\[\\]{}\",:a-z_0-9.-]{0,200}") {
        if let Ok(value) = serde_json::from_str::<Value>(&text) {
            let _ = read(&value);
        }
    }
}
