//! Fields of `config.json` against what they did in Transformers 5, which is the standard, and in 4, where the tables say otherwise
//! (`fixtures/config`, by `scripts/make-config-cases`).

use std::path::Path;

use engine_builder::huggingface::config::parse;
use engine_format::ModelConfig;
use engine_format::model_files::{CONFIG, Field, ROPE, Treatment};
use serde_json::{Value, json};

use crate::support::{Model, fixture};

fn cases(version: usize) -> Vec<Value> {
    let text = std::fs::read(fixture("config").join(format!("transformers-{version}.json"))).unwrap();
    let recorded: Value = serde_json::from_slice(&text).unwrap();
    recorded["cases"].as_array().unwrap().clone()
}

/// The rows of a field, and of the settings inside it.
fn rows(fields: &Value) -> Vec<&'static Field> {
    let row = |table: &'static [Field], name: &str| table.iter().find(|field| field.names.contains(&name));
    let mut rows = Vec::new();
    for (name, value) in fields.as_object().unwrap() {
        rows.extend(row(CONFIG.fields, name));
        if name.starts_with("rope_") {
            let inner = value.as_object().into_iter().flat_map(|settings| settings.keys());
            rows.extend(inner.filter_map(|name| row(ROPE.fields, name)));
        }
    }
    rows
}

/// What is read of the tiny model with the fields of `changes` set, one after the other.
fn read(family: &str, changes: &[&Value]) -> Result<ModelConfig, String> {
    let mut config = Model::tiny().config;
    config["architectures"] = json!([format!("{family}ForCausalLM")]);
    config["model_type"] = json!(family.to_lowercase());
    for (name, value) in changes.iter().flat_map(|changes| changes.as_object().unwrap()) {
        config[name] = value.clone();
    }
    parse(Path::new("config.json"), &config).map_err(|error| error.to_string())
}

#[test]
fn fields_have_the_effect_that_they_have_in_transformers_5() {
    let cases = cases(5);
    for case in &cases {
        let family = case["family"].as_str().unwrap();
        let before = read(family, &[&case["before"]]).unwrap();
        let after = read(family, &[&case["before"], &case["fields"]]);
        let is_refused = rows(&case["fields"]).iter().any(|row| matches!(row.treatment, Treatment::Refused(_)));
        match (case["effect"].as_str().unwrap(), after) {
            (_, Err(error)) => assert!(is_refused, "{case}: {error}"),
            ("same", Ok(after)) => assert_eq!(after, before, "{case}"),
            ("changes", Ok(after)) => assert_ne!(after, before, "{case}"),
            // What Transformers 5 refuses, 4 takes.
            (effect, Ok(_)) => assert_eq!(effect, "refused", "{case}"),
        }
    }
    assert!(cases.len() > 90);
}

#[test]
fn the_tables_say_where_transformers_4_differs() {
    let mut differences = 0;
    for (five, four) in cases(5).iter().zip(&cases(4)) {
        assert_eq!(
            (&five["family"], &five["before"], &five["fields"]),
            (&four["family"], &four["before"], &four["fields"])
        );
        if five["effect"] != four["effect"] {
            assert!(rows(&five["fields"]).iter().any(|row| !row.transformers_4.is_empty()), "{four}, not {five}");
            differences += 1;
        }
    }
    assert!(differences > 10);
}
