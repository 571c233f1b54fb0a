//! JSON and JSON schemas, against serde_json and a small validator.

use std::cell::Cell;

use serde_json::{Value, json};
use text::GuidedDecodingParams;

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

#[test]
fn llguidance_s_own_options() {
    let schema = json!({"x-guidance": {"whitespace_flexible": false, "coerce_one_of": true},
        "oneOf": [{"type": "array", "items": {"type": "boolean"}, "maxItems": 3}, {"const": {"a": 1}}]});
    let valid = |text: &str| {
        let one = json!({"anyOf": schema["oneOf"]});
        let compact = !text.contains(char::is_whitespace);
        compact && serde_json::from_str(text).is_ok_and(|value| holds(&one, &one, &value))
    };
    let finished = walks(&GuidedDecodingParams::JsonSchema(schema.to_string()), 10, &valid);
    assert!(finished >= 25, "only {finished} of 30 came to an end");
}

#[test]
fn blanks_come_one_at_a_time() {
    let options = [json!({}), json!({"coerce_one_of": true}), json!({"whitespace_flexible": true})];
    for (number, options) in options.into_iter().enumerate() {
        let schema =
            json!({"type": "array", "items": {"enum": [1, true]}, "minItems": 9, "maxItems": 9, "x-guidance": options});
        let (longest, values) = (Cell::new(0), json!([1, true]));
        let valid = |text: &str| {
            let blanks = text.split(|letter: char| !letter.is_whitespace()).map(str::len).max().unwrap_or(0);
            longest.set(longest.get().max(blanks));
            let items = serde_json::from_str::<Vec<Value>>(text).unwrap_or_default();
            items.len() == 9 && items.iter().all(|item| values.as_array().unwrap().contains(item))
        };
        walks(&GuidedDecodingParams::JsonSchema(schema.to_string()), 10, &valid);
        assert_eq!(longest.get() > 1, number == 2, "{schema}: {} blanks in a row", longest.get());
    }
}
