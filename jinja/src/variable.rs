//! What a template is given.

use serde_json::Value as Json;

use crate::error::Result;
use crate::text::Text;
use crate::value::{Dict, Value};

/// The value of a template's variable.
pub struct Variable(pub(crate) Value);

impl Variable {
    /// A value of the input: its texts, keys included, are marked as such.
    ///
    /// # Errors
    /// [`Error::Budget`](crate::Error::Budget): its lists are nested too deeply.
    pub fn input(json: &Json) -> Result<Self> {
        value(json).map(Self)
    }

    /// A text of the template's side, such as a special token.
    pub fn own(text: &str) -> Self {
        Self(Value::str(text))
    }

    /// A dictionary whose keys are of the input.
    ///
    /// # Errors
    /// As for [`Variable::input`].
    pub fn dict<'a>(fields: impl IntoIterator<Item = (&'a str, Self)>) -> Result<Self> {
        Dict::of(fields.into_iter().map(|(key, value)| (Value::Str(Text::input(key)), value.0))).map(Self)
    }

    /// A list.
    ///
    /// # Errors
    /// As for [`Variable::input`].
    pub fn list(items: impl IntoIterator<Item = Self>) -> Result<Self> {
        Value::list(items.into_iter().map(|item| item.0).collect()).map(Self)
    }
}

fn value(json: &Json) -> Result<Value> {
    Ok(match json {
        Json::Null => Value::None,
        Json::Bool(value) => Value::Bool(*value),
        Json::Number(number) => match (number.as_i128(), number.as_f64()) {
            (Some(number), _) => Value::Int(number),
            (None, number) => Value::Float(number.unwrap_or(f64::NAN)),
        },
        Json::String(text) => Value::Str(Text::input(text)),
        Json::Array(items) => Value::list(items.iter().map(value).collect::<Result<_>>()?)?,
        Json::Object(fields) => {
            let entries = fields.iter().map(|(key, field)| Ok((Value::Str(Text::input(key)), value(field)?)));
            Dict::of(entries.collect::<Result<Vec<_>>>()?)?
        }
    })
}
