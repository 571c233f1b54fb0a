//! Reading fields of a JSON object with errors that name the file and the field.

use std::ops::RangeInclusive;
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{FormatError, Result};
use crate::foreign_file::ForeignFile;
use crate::python_json;

/// Largest value that a dimension of a model may have; keeps every product of three dimensions inside 64 bits.
pub const MAX_DIMENSION: usize = 1 << 20;

/// Largest number of tokens or positions.
pub const MAX_TOKENS: usize = 1 << 30;

/// Parses the JSON file at `path`.
///
/// # Errors
/// [`FormatError::Missing`] with `hint` when there is no such file, [`FormatError::Json`] when it is not JSON, or
/// [`FormatError::Foreign`] when it is clear what it is instead.
pub fn read_file(path: &Path, hint: &str) -> Result<Value> {
    let text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(FormatError::Missing { path: path.to_owned(), hint: hint.to_owned() });
        }
        Err(error) => return Err(FormatError::io("read", path)(error)),
    };
    python_json::parse(&text).map_err(|source| match ForeignFile::recognise(&text) {
        Some(foreign) => foreign.error(path),
        None => FormatError::Json { path: path.to_owned(), source },
    })
}

/// A JSON object with the place that it came from. A field whose value is `null` counts as absent.
#[derive(Debug, Clone)]
pub struct Object<'a> {
    path: &'a Path,
    prefix: String,
    map: &'a Map<String, Value>,
}

impl<'a> Object<'a> {
    /// The root object of a file.
    ///
    /// # Errors
    /// When the file's root is not an object.
    pub fn root(path: &'a Path, value: &'a Value) -> Result<Self> {
        let map = value.as_object().ok_or_else(|| FormatError::damaged(path, "its root is not a JSON object"))?;
        Ok(Self { path, prefix: String::new(), map })
    }

    /// The file that the object was read from.
    pub fn path(&self) -> &'a Path {
        self.path
    }

    /// The full name of `field`, dotted from the file's root.
    pub fn name(&self, field: &str) -> String {
        format!("{}{field}", self.prefix)
    }

    /// The names of all fields, in the order of the file.
    pub fn fields(&self) -> impl Iterator<Item = &'a str> {
        self.map.keys().map(String::as_str)
    }

    /// An error about `field`.
    pub fn error(&self, field: &str, problem: impl Into<String>) -> FormatError {
        FormatError::field(self.path, self.name(field), problem)
    }

    /// The raw value, unless absent or null.
    pub fn get(&self, field: &str) -> Option<&'a Value> {
        self.map.get(field).filter(|value| !value.is_null())
    }

    fn typed<T>(&self, field: &str, kind: &str, read: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        self.get(field)
            .map(|value| {
                read(value).ok_or_else(|| self.error(field, format!("must be {kind}, not `{}`", brief(value))))
            })
            .transpose()
    }

    /// A required value: the error of [`Object`]'s optional getters when it is absent.
    fn required<T>(&self, field: &str, value: Result<Option<T>>) -> Result<T> {
        value?.ok_or_else(|| self.error(field, "is missing"))
    }

    /// An object inside this one.
    pub fn object(&self, field: &str) -> Result<Option<Self>> {
        let map = self.typed(field, "an object", Value::as_object)?;
        Ok(map.map(|map| Self { path: self.path, prefix: format!("{}.", self.name(field)), map }))
    }

    /// A string.
    pub fn string(&self, field: &str) -> Result<Option<&'a str>> {
        self.typed(field, "a string", Value::as_str)
    }

    /// A string that has to be there.
    pub fn required_string(&self, field: &str) -> Result<&'a str> {
        self.required(field, self.string(field))
    }

    /// A boolean.
    pub fn boolean(&self, field: &str) -> Result<Option<bool>> {
        self.typed(field, "true or false", Value::as_bool)
    }

    /// A finite number (an integer is one too).
    pub fn number(&self, field: &str) -> Result<Option<f64>> {
        self.typed(field, "a number", |value| value.as_f64().filter(|number| number.is_finite()))
    }

    /// A number in `range`.
    pub fn within(&self, field: &str, range: &RangeInclusive<f64>) -> Result<Option<f64>> {
        let kind = format!("a number from {:?} to {:?}", range.start(), range.end());
        self.typed(field, &kind, |value| value.as_f64().filter(|number| range.contains(number)))
    }

    /// A number in `range` that has to be there.
    pub fn required_within(&self, field: &str, range: &RangeInclusive<f64>) -> Result<f64> {
        self.required(field, self.within(field, range))
    }

    /// A whole number from 0.
    pub fn unsigned(&self, field: &str) -> Result<Option<u64>> {
        self.typed(field, "a whole number", Value::as_u64)
    }

    /// A dimension: from 1 to [`MAX_DIMENSION`].
    pub fn dimension(&self, field: &str) -> Result<Option<usize>> {
        self.bounded(field, MAX_DIMENSION)
    }

    /// A dimension that has to be there.
    pub fn required_dimension(&self, field: &str) -> Result<usize> {
        self.required(field, self.dimension(field))
    }

    /// A number of tokens or positions: from 1 to [`MAX_TOKENS`].
    pub fn tokens(&self, field: &str) -> Result<Option<usize>> {
        self.bounded(field, MAX_TOKENS)
    }

    fn bounded(&self, field: &str, limit: usize) -> Result<Option<usize>> {
        self.typed(field, &format!("a whole number from 1 to {limit}"), |value| {
            value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| (1..=limit).contains(n))
        })
    }
}

/// A value for an error message: its JSON text, cut after 60 characters.
pub fn brief(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 60 { text } else { text.chars().take(57).chain("...".chars()).collect() }
}
