//! What an output must look like: `response_format`, vLLM's `structured_outputs`, and its older `guided_*`.

use runner::generation_options::GenerationOptions;
use serde_json::Value as Json;

use crate::error::ApiError;
use crate::fields::{Fields, missing, wrong};

use super::policy;

/// Any object: what OpenAI's `json_object` promises.
const ANY_OBJECT: &str = r#"{"type":"object"}"#;

/// Sets the guide that a body asks for, if it asks for one, and gives the field that it came in.
///
/// # Errors
/// It is none, or there are several.
pub fn read(fields: &mut Fields, options: &mut GenerationOptions) -> Result<Option<String>, ApiError> {
    let mut given: Vec<String> = Vec::new();
    if let Some(mut format) = fields.object("response_format")? {
        let kind = format.text("type")?.ok_or_else(|| missing("response_format.type"))?;
        let is_guide = match kind.as_str() {
            "text" => false,
            // huggingface_hub sends a schema as `value`, clients of llama.cpp as `schema`.
            "json_object" => {
                let schema = either(&mut format, "value", "schema").unwrap_or_else(|| Json::from(ANY_OBJECT));
                options.json_schema = Some(schema_text("response_format.value", schema)?);
                true
            }
            "json_schema" => {
                let mut inner = format.object("json_schema")?.ok_or_else(|| missing("response_format.json_schema"))?;
                // A strict schema and one that is not are kept alike; names are for those who read them.
                inner.text("name")?;
                inner.text("description")?;
                inner.boolean("strict")?;
                let schema = inner.needed("schema")?;
                options.json_schema = Some(schema_text(&inner.path("schema"), schema)?);
                true
            }
            "json" => set(options, "json", format.take("value"), "response_format.value")?,
            "regex" => set(options, "regex", either(&mut format, "pattern", "value"), "response_format.pattern")?,
            "grammar" => set(options, "grammar", either(&mut format, "grammar", "value"), "response_format.grammar")?,
            "choice" => set(options, "choice", either(&mut format, "choices", "value"), "response_format.choices")?,
            other => {
                let kinds = "text, json_object, json_schema, regex, grammar or choice";
                return Err(wrong("response_format.type", kinds, &Json::from(other)));
            }
        };
        given.extend(is_guide.then(|| "response_format".to_owned()));
    }
    if let Some(mut outputs) = fields.object("structured_outputs")? {
        let mut is_empty = true;
        for name in ["json", "regex", "choice", "grammar", "json_object"] {
            let path = outputs.path(name);
            if let Some(value) = outputs.take(name) {
                is_empty = false;
                if set(options, name, Some(value), &path)? {
                    given.push(path);
                }
            }
        }
        policy::refuse(&mut outputs, &policy::OF_STRUCTURED_OUTPUTS)?;
        if is_empty {
            let message = "`structured_outputs` must have one of json, regex, choice, grammar and json_object";
            return Err(ApiError::invalid("structured_outputs", message));
        }
    }
    for (field, name) in [
        ("guided_json", "json"),
        ("guided_regex", "regex"),
        ("guided_choice", "choice"),
        ("guided_grammar", "grammar"),
        ("guided_json_object", "json_object"),
    ] {
        if let Some(value) = fields.take(field)
            && set(options, name, Some(value), field)?
        {
            given.push(field.to_owned());
        }
    }
    match &given[..] {
        [first, second, ..] => {
            Err(ApiError::invalid(second, format!("`{first}` and `{second}` exclude each other: give one guide")))
        }
        _ => Ok(given.pop()),
    }
}

/// Sets the guide that TGI's `grammar` is, and gives the field that it came in.
///
/// # Errors
/// It is none.
pub fn of_tgi(grammar: &mut Fields, options: &mut GenerationOptions) -> Result<String, ApiError> {
    let (kind_path, path) = (grammar.path("type"), grammar.path("value"));
    let kind = grammar.text("type")?.ok_or_else(|| missing(&kind_path))?;
    match kind.as_str() {
        "json" | "json_object" => set(options, "json", grammar.take("value"), &path)?,
        "regex" => set(options, "regex", grammar.take("value"), &path)?,
        "json_schema" => {
            let mut value = grammar.object("value")?.ok_or_else(|| missing(&path))?;
            let path = value.path("schema");
            let schema = value.take("schema");
            // They say nothing of the output.
            value.take("name");
            value.take("strict");
            set(options, "json", schema, &path)?
        }
        other => {
            return Err(wrong(&kind_path, "json, regex or json_schema", &Json::from(other)));
        }
    };
    Ok(path)
}

fn either(fields: &mut Fields, name: &'static str, other: &'static str) -> Option<Json> {
    fields.take(name).or_else(|| fields.take(other))
}

/// Sets a guide by vLLM's name of its kind; whether there is one.
fn set(options: &mut GenerationOptions, kind: &str, value: Option<Json>, path: &str) -> Result<bool, ApiError> {
    let value = value.ok_or_else(|| missing(path))?;
    let text = |value: Json| match value {
        Json::String(text) => Ok(text),
        other => Err(wrong(path, "a string", &other)),
    };
    match kind {
        "json" => options.json_schema = Some(schema_text(path, value)?),
        "regex" => options.regex = Some(text(value)?),
        "grammar" => options.grammar = Some(text(value)?),
        "choice" => options.grammar = Some(choice(path, &value)?),
        _ => match value {
            Json::Bool(true) => options.json_schema = Some(ANY_OBJECT.to_owned()),
            Json::Bool(false) => return Ok(false),
            other => return Err(wrong(path, "true or false", &other)),
        },
    }
    Ok(true)
}

/// A schema as it is, or as text.
fn schema_text(path: &str, schema: Json) -> Result<String, ApiError> {
    match schema {
        Json::String(text) => Ok(text),
        schema @ (Json::Object(_) | Json::Bool(_)) => Ok(schema.to_string()),
        other => Err(wrong(path, "a JSON schema", &other)),
    }
}

/// A grammar of one of several texts, in EBNF, which every engine takes; its strings are JSON's.
fn choice(path: &str, value: &Json) -> Result<String, ApiError> {
    let choices = value.as_array().filter(|choices| {
        !choices.is_empty() && choices.iter().all(|choice| !choice.as_str().unwrap_or_default().is_empty())
    });
    let Some(choices) = choices else {
        return Err(wrong(path, "a list of strings, none of them empty", value));
    };
    let choices: Vec<String> = choices.iter().map(Json::to_string).collect();
    Ok(format!("root ::= {}", choices.join(" | ")))
}
