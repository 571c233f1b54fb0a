//! A validator for the JSON schemas of these tests, written from the specification's words (draft 2020-12).

use regex::Regex;
use serde_json::Value;

const KNOWN: [&str; 22] = [
    "$defs",
    "$ref",
    "type",
    "enum",
    "const",
    "anyOf",
    "allOf",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "multipleOf",
    "minLength",
    "maxLength",
    "pattern",
    "properties",
    "required",
    "additionalProperties",
    "maxProperties",
    "items",
    "prefixItems",
    "minItems",
    "maxItems",
];

/// Whether `value` is what `schema`, a part of `root`, admits.
pub(crate) fn holds(root: &Value, schema: &Value, value: &Value) -> bool {
    let Some(schema) = schema.as_object() else { return schema.as_bool().unwrap() };
    schema.iter().all(|(key, rule)| {
        assert!(KNOWN.contains(&key.as_str()), "the validator does not know {key}");
        let each = || rule.as_array().unwrap().iter();
        let limit = || rule.as_f64().unwrap();
        let count = |length: usize| length as f64;
        match key.as_str() {
            "$ref" => holds(root, root.pointer(&rule.as_str().unwrap()[1..]).unwrap(), value),
            "type" => rule
                .as_str()
                .map_or_else(|| each().any(|name| is(name.as_str().unwrap(), value)), |name| is(name, value)),
            "enum" => each().any(|one| one == value),
            "const" => rule == value,
            "anyOf" => each().any(|one| holds(root, one, value)),
            "allOf" => each().all(|one| holds(root, one, value)),
            "minimum" => value.as_f64().is_none_or(|number| number >= limit()),
            "maximum" => value.as_f64().is_none_or(|number| number <= limit()),
            "exclusiveMinimum" => value.as_f64().is_none_or(|number| number > limit()),
            "multipleOf" => value.as_f64().is_none_or(|number| number % limit() == 0.0),
            "minLength" => value.as_str().is_none_or(|text| count(text.chars().count()) >= limit()),
            "maxLength" => value.as_str().is_none_or(|text| count(text.chars().count()) <= limit()),
            "pattern" => value.as_str().is_none_or(|text| Regex::new(rule.as_str().unwrap()).unwrap().is_match(text)),
            "required" => {
                value.as_object().is_none_or(|members| each().all(|name| members.contains_key(name.as_str().unwrap())))
            }
            "maxProperties" => value.as_object().is_none_or(|members| count(members.len()) <= limit()),
            "properties" => value.as_object().is_none_or(|members| {
                members.iter().all(|(name, value)| rule.get(name).is_none_or(|rule| holds(root, rule, value)))
            }),
            "additionalProperties" => value.as_object().is_none_or(|members| {
                let named = |name: &str| schema.get("properties").is_some_and(|known| known.get(name).is_some());
                members.iter().all(|(name, value)| named(name) || holds(root, rule, value))
            }),
            "minItems" => value.as_array().is_none_or(|items| count(items.len()) >= limit()),
            "maxItems" => value.as_array().is_none_or(|items| count(items.len()) <= limit()),
            "prefixItems" => {
                value.as_array().is_none_or(|items| each().zip(items).all(|(rule, item)| holds(root, rule, item)))
            }
            "items" => value.as_array().is_none_or(|items| {
                let prefix = schema.get("prefixItems").and_then(Value::as_array).map_or(0, Vec::len);
                items.iter().skip(prefix).all(|item| holds(root, rule, item))
            }),
            _ => true,
        }
    })
}

fn is(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        other => panic!("no type {other}"),
    }
}
