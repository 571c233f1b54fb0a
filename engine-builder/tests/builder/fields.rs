//! Every row of the tables of `config.json` and `generation_config.json` does what it says: a field that is followed changes
//! something, one that is put aside nothing, one that is refused is refused by name.

use std::collections::BTreeMap;
use std::fs;

use engine_builder::Source;
use engine_builder::huggingface::config;
use engine_format::engine_dir::GENERATION_CONFIG_FILE;
use engine_format::model_files::{CONFIG, GENERATION_CONFIG, ROPE, Table, Treatment};
use engine_format::{EngineDir, ModelConfig};
use serde_json::{Value, json};
use text::end_ids::end_ids;

use crate::support::{Model, build, entries};

/// What a model is before a field is set, as changes of the tiny one, and the field's value. `"-"` takes a field away.
type Case = (Value, Value);

fn config_case(name: &str) -> Case {
    let llama = json!({"architectures": ["LlamaForCausalLM"]});
    let linear = json!({"rope_type": "linear", "factor": 4.0});
    let plain = |value: Value| (json!({}), value);
    match name {
        "architectures" => plain(json!(["LlamaForCausalLM"])),
        "model_type" => (json!({"architectures": "-", "sliding_window": 8}), json!("llama")),
        "hidden_size" | "intermediate_size" | "vocab_size" => plain(json!(64)),
        "num_hidden_layers" => plain(json!(1)),
        "num_attention_heads" => plain(json!(6)),
        "num_key_value_heads" => plain(json!(1)),
        "head_dim" => plain(json!(12)),
        "max_position_embeddings" => plain(json!(64)),
        "rms_norm_eps" => plain(json!(1e-3)),
        "tie_word_embeddings" | "mlp_bias" => plain(json!(true)),
        "attention_bias" => (llama, json!(true)),
        "sliding_window" => plain(json!(8)),
        "rope_theta" => plain(json!(5e5)),
        "rope_scaling" | "rope_parameters" => plain(linear),
        "eos_token_id" => plain(json!([3])),
        "layer_types" => (json!({"sliding_window": 8}), json!(["full_attention", "sliding_attention"])),
        "hidden_act" => plain(json!("gelu")),
        "partial_rotary_factor" => plain(json!(0.5)),
        "quantization_config" | "compression_config" => plain(json!({"quant_method": "gptq"})),
        "torch_dtype" | "dtype" => plain(json!("float16")),
        "use_sliding_window" => (json!({"sliding_window": 8}), json!(false)),
        "original_max_position_embeddings" => (json!({"rope_scaling": llama3()}), json!(16)),
        "attention_dropout" | "initializer_range" => plain(json!(0.5)),
        "use_cache" => plain(json!(false)),
        "bos_token_id" | "pad_token_id" | "pretraining_tp" | "chunk_size_feed_forward" => plain(json!(2)),
        "attn_implementation" | "_attn_implementation" => plain(json!("eager")),
        "auto_map" => plain(json!({"AutoConfig": "code.Config"})),
        "_name_or_path" | "transformers_version" => plain(json!("4.40.0")),
        "is_decoder" | "add_cross_attention" | "output_attentions" | "output_hidden_states" => plain(json!(true)),
        other => panic!("{other}: a new field needs its case here"),
    }
}

fn llama3() -> Value {
    json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0})
}

/// The settings before a field of theirs is set, and its value.
fn rope_case(name: &str) -> Case {
    let linear = json!({"rope_type": "linear", "factor": 4.0});
    match name {
        "rope_type" => (json!({"rope_type": "default", "factor": 4.0}), json!("linear")),
        "type" => (json!({"type": "default", "factor": 4.0}), json!("linear")),
        "rope_theta" => (linear, json!(5e5)),
        "factor" => (linear, json!(2.0)),
        "low_freq_factor" | "high_freq_factor" => (llama3(), json!(2.0)),
        "original_max_position_embeddings" => (llama3(), json!(16)),
        "full_attention" | "sliding_attention" => (json!({}), json!({"rope_theta": 1e4})),
        "partial_rotary_factor" => (linear, json!(0.5)),
        "truncate" => (linear, json!(false)),
        "short_factor" | "long_factor" => (linear, json!([1.0, 2.0])),
        "attention_factor" | "beta_fast" | "beta_slow" | "mscale" | "mscale_all_dim" => (linear, json!(2.0)),
        other => panic!("{other}: a new field needs its case here"),
    }
}

/// The tiny model with some fields set.
fn with(changes: &Value) -> Model {
    let mut model = Model::tiny();
    let fields = model.config.as_object_mut().unwrap();
    for (name, value) in changes.as_object().unwrap() {
        match value.as_str() {
            Some("-") => drop(fields.remove(name)),
            _ => drop(fields.insert(name.clone(), value.clone())),
        }
    }
    model
}

/// What `config.json` alone says, and every file of the engine where one can be built of the tiny model's weights.
#[derive(Debug, PartialEq)]
struct Outcome {
    model: ModelConfig,
    engine: BTreeMap<String, Vec<u8>>,
}

fn outcome(model: &Model) -> Result<Outcome, String> {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("model"), dir.path().join("engine"));
    model.write(&from);
    let model = config::read(&from).map_err(|error| error.to_string())?;
    let mut engine = BTreeMap::new();
    if build(&from, &to).is_ok() {
        engine.extend(entries(&to).into_iter().map(|name| (name.clone(), fs::read(to.join(&name)).unwrap())));
    }
    Ok(Outcome { model, engine })
}

/// Checks a row by the models without the field and with it.
fn check(table: &Table, name: &str, treatment: Treatment, before: &Model, after: &Model) {
    let what = format!("{}: {name}", table.name);
    let before = outcome(before).unwrap_or_else(|error| panic!("{what}: {error}"));
    match (treatment, outcome(after)) {
        (Treatment::Refused(_), after) => {
            let error = after.map(|_| what.clone()).unwrap_err();
            assert!(error.contains("config.json") && error.contains(&format!("{name}`")), "{what}: {error}");
        }
        (Treatment::Followed, after) => assert_ne!(after.expect(&what), before, "{what}"),
        (Treatment::PutAside, after) => {
            assert!(!before.engine.is_empty(), "{what}");
            assert!(after.expect(&what) == before, "{what} changes something");
        }
    }
}

#[test]
fn fields_of_the_configuration_do_what_their_rows_say() {
    let rows = CONFIG.fields.iter().flat_map(|field| field.names.iter().map(|name| (*name, field.treatment)));
    for (name, treatment) in rows.chain([("no_such_field", Treatment::PutAside)]) {
        let (before, value) = if name == "no_such_field" { (json!({}), json!({"a": true})) } else { config_case(name) };
        let mut after = before.clone();
        after[name] = value;
        check(&CONFIG, name, treatment, &with(&before), &with(&after));
    }
}

#[test]
fn rotary_settings_do_what_their_rows_say_in_both_spellings() {
    for field in ["rope_scaling", "rope_parameters"] {
        let rows = ROPE.fields.iter().flat_map(|field| field.names.iter().map(|name| (*name, field.treatment)));
        for (name, treatment) in rows {
            let (before, value) = rope_case(name);
            let mut after = before.clone();
            after[name] = value;
            check(&ROPE, name, treatment, &with(&json!({ field: before })), &with(&json!({ field: after })));
        }
    }
}

/// The file and the field are named, whatever stands there.
#[test]
fn a_field_that_is_followed_is_refused_when_it_is_of_another_kind() {
    let refused = |before: &Value, name: &str, wrong: &dyn Fn(Value) -> Value| {
        let values = [json!("x"), json!({"x": 1}), json!([{}]), json!(-1.5), json!(true)];
        let mut errors = 0;
        for value in values {
            let mut after = before.clone();
            after[name] = wrong(value.clone());
            let dir = tempfile::tempdir().unwrap();
            with(&after).write(dir.path());
            let Err(error) = Source::open(dir.path()) else { continue };
            let error = error.to_string();
            let about_weights = error.contains("tensor `");
            assert!(about_weights || error.contains("config.json") && error.contains(name), "{name}: {value}: {error}");
            errors += usize::from(!about_weights);
        }
        // `true`, and an object where the field is one, may be right.
        assert!(errors >= 3, "{name}: {errors}");
    };
    for field in CONFIG.fields.iter().filter(|field| field.treatment == Treatment::Followed) {
        for name in field.names {
            refused(&config_case(name).0, name, &|value| value);
        }
    }
    for field in ROPE.fields.iter().filter(|field| field.treatment == Treatment::Followed) {
        for name in field.names {
            let settings = rope_case(name).0;
            refused(&json!({}), "rope_scaling", &|value| {
                let mut settings = settings.clone();
                settings[*name] = value;
                settings
            });
        }
    }
}

/// What the families put aside, each of its own.
#[test]
fn a_family_has_no_fields_of_the_other() {
    let llama = json!({"architectures": ["LlamaForCausalLM"]});
    for (before, name, value) in [(json!({}), "attention_bias", json!(true)), (llama, "sliding_window", json!(8))] {
        let mut after = before.clone();
        after[name] = value;
        check(&CONFIG, name, Treatment::PutAside, &with(&before), &with(&after));
    }
}

#[test]
fn only_end_ids_of_a_generation_config_count() {
    let ends = |generation: &Value| {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("model"), dir.path().join("engine"));
        Model::tiny().write(&from);
        fs::write(from.join(GENERATION_CONFIG_FILE), generation.to_string()).unwrap();
        assert_eq!(Source::open(&from).unwrap().warnings().len(), 1, "there is no tokenizer");
        build(&from, &to).unwrap();
        end_ids(&EngineDir::open(&to).unwrap(), None).unwrap()
    };
    for field in GENERATION_CONFIG.fields {
        for name in field.names {
            let before = json!({"eos_token_id": [2]});
            let mut after = before.clone();
            after[if *name == "…" { "no_such_field" } else { name }] = json!(7);
            let expected = if field.treatment == Treatment::Followed { vec![7] } else { vec![2] };
            assert_eq!(ends(&after), expected, "{name}");
        }
    }
}
