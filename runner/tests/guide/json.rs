//! JSON and JSON schemas, against serde_json and a small validator.

use runner::executor::GuidedDecodingParams;
use serde_json::{Value, json};

use crate::schema::holds;
use crate::walk::walks;

fn check(schema: &Value, at_least: usize) {
    let params = GuidedDecodingParams::JsonSchema(schema.to_string());
    let valid = |text: &str| serde_json::from_str(text).is_ok_and(|value| holds(schema, schema, &value));
    let finished = walks(&params, 10, &valid);
    assert!(finished >= at_least, "{schema}: only {finished} of 30 came to an end");
}

#[test]
fn any_json() {
    let finished = walks(&GuidedDecodingParams::Json, 20, &|text| serde_json::from_str::<Value>(text).is_ok());
    assert!(finished >= 20, "only {finished} of 60 came to an end");
}

#[test]
fn values_of_one_kind() {
    for schema in [
        json!({"type": "boolean"}),
        json!({"type": "null"}),
        json!({"type": "integer", "minimum": -20, "maximum": 300}),
        json!({"type": "number", "exclusiveMinimum": 0, "maximum": 10}),
        json!({"type": "integer", "multipleOf": 7, "minimum": 0, "maximum": 1000}),
        json!({"type": "string", "maxLength": 8}),
        json!({"type": "string", "minLength": 2, "maxLength": 5}),
        json!({"type": "string", "pattern": "^[a-f]{2,4}(-[0-9])?$"}),
        json!({"enum": ["red", "green", 3, null, ["x"], "é \"quoted\" \\ 🪐"]}),
        json!({"const": {"a": [1, 2.5, "x y"]}}),
        json!({"type": ["integer", "null"], "minimum": 0, "maximum": 9}),
        json!({"anyOf": [{"type": "string", "maxLength": 2}, {"type": "integer", "minimum": 1, "maximum": 5}]}),
    ] {
        check(&schema, 25);
    }
}

#[test]
fn objects_and_arrays() {
    let short = json!({"type": "string", "maxLength": 6});
    for schema in [
        json!({"type": "object", "properties": {"name": short, "age": {"type": "integer", "minimum": 0, "maximum": 120}},
               "required": ["name", "age"], "additionalProperties": false}),
        json!({"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"type": "null"}, "c": {"enum": [1, 2]}},
               "required": ["b"], "additionalProperties": false}),
        json!({"type": "array", "items": {"enum": ["x", "y"]}, "minItems": 1, "maxItems": 4}),
        json!({"type": "array", "prefixItems": [{"const": 1}, {"type": "boolean"}], "items": false, "minItems": 2}),
        json!({"type": "object", "additionalProperties": {"type": "integer", "minimum": 0, "maximum": 9},
               "maxProperties": 2}),
        json!({"$ref": "#/$defs/tree", "$defs": {"tree": {"type": "object",
               "properties": {"v": {"enum": [0, 1]}, "kids": {"type": "array", "items": {"$ref": "#/$defs/tree"},
               "maxItems": 2}}, "required": ["v"], "additionalProperties": false}}}),
        json!({"allOf": [{"type": "object", "properties": {"a": {"type": "integer", "minimum": 0}}, "required": ["a"]},
               {"properties": {"a": {"maximum": 5}, "b": short}, "required": ["b"]}], "additionalProperties": false,
               "properties": {"a": true, "b": true}}),
    ] {
        check(&schema, 5);
    }
}
