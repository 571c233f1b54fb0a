//! Options as the fields of a JSON object, and a field's value where it has more than one form.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::executor::{EarlyStopping, TokenId};

use super::{GenerationOptions, from_text};

/// Characters of a wrong value that its message repeats.
const SHOWN: usize = 60;

impl GenerationOptions {
    /// The options of a JSON object, whose fields are named like them.
    ///
    /// # Errors
    /// What is wrong, with the field.
    pub fn from_json(fields: Map<String, Value>) -> Result<Self, String> {
        for (name, value) in &fields {
            // One at a time: the error of the whole object does not say which field it is about.
            let alone = Value::Object([(name.clone(), value.clone())].into_iter().collect());
            Self::deserialize(alone).map_err(|error| refusal(name, value, &error.to_string()))?;
        }
        let options = Self::deserialize(Value::Object(fields)).map_err(|error| error.to_string())?;
        if options.max_new_tokens.is_some() && options.max_length.is_some() {
            return Err("`max_new_tokens` and `max_length` exclude each other".to_owned());
        }
        if let [(first, _), (second, _), ..] = options.guides()[..] {
            return Err(format!("`{first}` and `{second}` exclude each other"));
        }
        Ok(options)
    }
}

/// What is wrong with a field, in words: `problem` speaks of the types of this program.
fn refusal(name: &str, value: &Value, problem: &str) -> String {
    let known = if name == "num_return_sequences" { "n" } else { name };
    match GenerationOptions::FIELDS.iter().find(|field| field.name == known) {
        None => problem.to_owned(),
        // It says what it is not, too.
        Some(_) if problem.starts_with("must be ") && problem.contains(", not ") => format!("`{name}` {problem}"),
        Some(field) => {
            let expected = problem.strip_prefix("must be ").unwrap_or(field.expected);
            let value = value.to_string();
            let shown = value.char_indices().nth(SHOWN).map_or(value.clone(), |(end, _)| format!("{}…", &value[..end]));
            format!("`{name}` must be {expected}, not {shown}")
        }
    }
}

/// A value, or a list of them.
pub(super) fn one_or_many<'de, T, D>(deserializer: D) -> Result<Option<Vec<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Values<T> {
        One(T),
        Many(Vec<T>),
    }
    Ok(Option::deserialize(deserializer)?.map(|values| match values {
        Values::One(value) => vec![value],
        Values::Many(values) => values,
    }))
}

/// An object of ids and numbers.
pub(super) fn biases<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<(TokenId, f32)>>, D::Error> {
    let biases: Option<BTreeMap<TokenId, f32>> = Option::deserialize(deserializer)?;
    Ok(biases.map(|biases| biases.into_iter().collect()))
}

/// `true`, `false`, `"never"` or a number.
pub(super) fn early_stopping<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<EarlyStopping>, D::Error> {
    let text = match Value::deserialize(deserializer)? {
        Value::Null => return Ok(None),
        Value::String(text) => text,
        other => other.to_string(),
    };
    from_text::early_stopping(&text).map(Some).map_err(serde::de::Error::custom)
}

/// A schema as itself, or as text.
pub(super) fn schema<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        object @ Value::Object(_) => Ok(Some(object.to_string())),
        other => Err(serde::de::Error::custom(format!("must be an object or a string, not {other}"))),
    }
}
