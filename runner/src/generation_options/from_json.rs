//! An option's value as JSON, where it has more than one form.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::executor::{EarlyStopping, TokenId};

use super::from_text;

/// A text, or a list of them.
pub(super) fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "must be a string or a list of strings")]
    enum Texts {
        One(String),
        Many(Vec<String>),
    }
    Ok(Option::deserialize(deserializer)?.map(|texts| match texts {
        Texts::One(text) => vec![text],
        Texts::Many(texts) => texts,
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
