//! The fields of a JSON object, taken one by one: each by its kind, with an error that names it by its path. What is left when a
//! request has taken its own is what nobody honours. The names that were asked for are kept: they are the fields that are known.
//!
//! `null` is absent. Whole numbers may be written as floats (`16.0`); strings are never numbers.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use serde_json::{Map, Value as Json};

use crate::error::ApiError;

/// Characters of a wrong value that its message repeats.
const SHOWN: usize = 60;

/// The fields that have not been taken.
#[derive(Debug)]
pub struct Fields {
    map: Map<String, Json>,
    /// Of the object, with a dot at its end, or empty.
    path: Rc<str>,
    /// What was asked for, in the objects inside as well.
    asked: Rc<RefCell<Vec<Place>>>,
    /// What was left of objects inside, by their paths, when they were done with.
    inside: Rc<RefCell<Vec<String>>>,
}

impl Drop for Fields {
    fn drop(&mut self) {
        let left = self.own();
        self.inside.borrow_mut().extend(left);
    }
}

/// The path of an object, and the name of a field in it.
type Place = (Rc<str>, &'static str);

/// A value as a message repeats it.
pub fn shown(value: &Json) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// A value of the wrong kind or out of range.
pub fn wrong(path: &str, expected: &str, value: &Json) -> ApiError {
    ApiError::invalid(path, format!("`{path}` must be {expected}, not {}", shown(value)))
}

/// A field that has to be there and is not.
pub fn missing(path: &str) -> ApiError {
    ApiError::bad_request("missing_field", Some(path), format!("`{path}` is needed"))
}

/// A whole number, written as one or as a float.
pub fn whole(value: &Json) -> Option<i128> {
    let number = value.as_number()?;
    let integer = number.as_i64().map(i128::from).or(number.as_u64().map(i128::from));
    // Every float below 2^53 that has no fraction is a whole number exactly.
    let float = || number.as_f64().filter(|value| value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0);
    integer.or_else(|| float().map(|value| value as i128))
}

impl Fields {
    /// The fields of a request's body.
    pub fn new(map: Map<String, Json>) -> Self {
        Self { map, path: Rc::from(""), asked: Rc::default(), inside: Rc::default() }
    }

    /// Where a field stands.
    pub fn path(&self, name: &str) -> String {
        format!("{}{name}", self.path)
    }

    /// Whether a field is there and has not been taken.
    pub fn has(&self, name: &str) -> bool {
        self.map.get(name).is_some_and(|value| !value.is_null())
    }

    /// A field of any kind.
    pub fn take(&mut self, name: &'static str) -> Option<Json> {
        self.asked.borrow_mut().push((self.path.clone(), name));
        self.map.shift_remove(name).filter(|value| !value.is_null())
    }

    /// `true` or `false`.
    pub fn boolean(&mut self, name: &'static str) -> Result<Option<bool>, ApiError> {
        self.take(name)
            .map(|value| value.as_bool().ok_or_else(|| wrong(&self.path(name), "true or false", &value)))
            .transpose()
    }

    /// A whole number from `low` to `high`.
    pub fn integer(&mut self, name: &'static str, low: i64, high: i64) -> Result<Option<i64>, ApiError> {
        let range = match high {
            i64::MAX => format!("a whole number from {low}"),
            _ => format!("a whole number from {low} to {high}"),
        };
        let Some(value) = self.take(name) else { return Ok(None) };
        match whole(&value) {
            // What is beyond any number of ours is as large as the largest.
            Some(number) if high == i64::MAX && number > i128::from(high) => Ok(Some(high)),
            Some(number) if (i128::from(low)..=i128::from(high)).contains(&number) => Ok(Some(number as i64)),
            _ => Err(wrong(&self.path(name), &range, &value)),
        }
    }

    /// A count from `low` to `high`.
    pub fn count(&mut self, name: &'static str, low: usize, high: usize) -> Result<Option<usize>, ApiError> {
        let bound = |number: usize| i64::try_from(number).unwrap_or(i64::MAX);
        Ok(self.integer(name, bound(low), bound(high))?.and_then(|number| usize::try_from(number).ok()))
    }

    /// A number from `low` to `high`.
    pub fn number(&mut self, name: &'static str, low: f64, high: f64) -> Result<Option<f64>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let range = match high.is_finite() {
            true => format!("a number from {low} to {high}"),
            false => format!("a number from {low}"),
        };
        let number = value.as_f64().filter(|number| *number >= low && *number <= high && number.is_finite());
        number.map(Some).ok_or_else(|| wrong(&self.path(name), &range, &value))
    }

    /// A text.
    pub fn text(&mut self, name: &'static str) -> Result<Option<String>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Json::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(&self.path(name), "a string", &other)),
        }
    }

    /// A text, or a list of them.
    pub fn texts(&mut self, name: &'static str) -> Result<Option<Vec<String>>, ApiError> {
        let list = match self.take(name) {
            None => return Ok(None),
            Some(Json::String(text)) => return Ok(Some(vec![text])),
            Some(Json::Array(list)) => list,
            Some(other) => return Err(wrong(&self.path(name), "a string or a list of strings", &other)),
        };
        let text = |(index, value)| match value {
            Json::String(text) => Ok(text),
            other => Err(wrong(&format!("{}[{index}]", self.path(name)), "a string", &other)),
        };
        list.into_iter().enumerate().map(text).collect::<Result<_, _>>().map(Some)
    }

    /// Token ids of a vocabulary of `vocab_size`.
    pub fn ids(&mut self, name: &'static str, vocab_size: usize) -> Result<Option<Vec<u32>>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Json::Array(list)) => ids(&self.path(name), &list, vocab_size).map(Some),
            Some(other) => Err(wrong(&self.path(name), "a list of token ids", &other)),
        }
    }

    /// A list.
    pub fn list(&mut self, name: &'static str) -> Result<Option<Vec<Json>>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(Json::Array(list)) => Ok(Some(list)),
            Some(other) => Err(wrong(&self.path(name), "a list", &other)),
        }
    }

    /// An object, with its own fields.
    pub fn object(&mut self, name: &'static str) -> Result<Option<Self>, ApiError> {
        match self.take(name) {
            None => Ok(None),
            Some(value) => self.within(&self.path(name), value).map(Some),
        }
    }

    /// The fields of an object that stands at `path` inside this one, as an entry of a list does.
    pub fn within(&self, path: &str, value: Json) -> Result<Self, ApiError> {
        match value {
            Json::Object(map) => {
                let path = Rc::from(format!("{path}."));
                Ok(Self { map, path, asked: self.asked.clone(), inside: self.inside.clone() })
            }
            other => Err(wrong(path, "an object", &other)),
        }
    }

    /// A field that must be one of a few words.
    pub fn word(&mut self, name: &'static str, words: &[&'static str]) -> Result<Option<&'static str>, ApiError> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let found = words.iter().find(|word| value.as_str() == Some(word));
        found.map(|word| Some(*word)).ok_or_else(|| wrong(&self.path(name), &words.join(" or "), &value))
    }

    /// A field that has to be there, of any kind.
    pub fn needed(&mut self, name: &'static str) -> Result<Json, ApiError> {
        self.take(name).ok_or_else(|| missing(&self.path(name)))
    }

    /// What is left of the object itself, whose names are not fields but a caller's own.
    pub fn into_map(mut self) -> Map<String, Json> {
        std::mem::take(&mut self.map)
    }

    /// The fields that were asked for, given or not, in this object and in those inside it. Those of a list's entries are named once
    /// (`messages[].role`).
    pub fn asked(&self) -> BTreeSet<String> {
        let any_entry = |path: &str| -> String {
            let ends = path.split_inclusive('[').map(|part| match part.find(']') {
                Some(end) => &part[end..],
                None => part,
            });
            ends.collect()
        };
        self.asked.borrow().iter().map(|(path, name)| format!("{}{name}", any_entry(path))).collect()
    }

    /// The names that are left, those with values only, and those that were left of objects inside.
    pub fn left(&self) -> Vec<String> {
        let mut left = self.own();
        left.extend(self.inside.borrow().iter().cloned());
        left
    }

    fn own(&self) -> Vec<String> {
        self.map.iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| self.path(name)).collect()
    }
}

/// A list of token ids, each within the vocabulary.
pub fn ids(path: &str, list: &[Json], vocab_size: usize) -> Result<Vec<u32>, ApiError> {
    let id = |(index, value): (usize, &Json)| {
        let id = whole(value).filter(|id| (0..vocab_size as i128).contains(id));
        id.map(|id| id as u32).ok_or_else(|| {
            let expected = format!("a token id from 0 to {}", vocab_size.saturating_sub(1));
            wrong(&format!("{path}[{index}]"), &expected, value)
        })
    };
    list.iter().enumerate().map(id).collect()
}

/// The nearest of `known` names, if one is near.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (name.len() / 3).max(1);
    let distances = known.into_iter().map(|known| (distance(name, known), known));
    distances.filter(|&(distance, _)| distance <= limit).min().map(|(_, known)| known)
}

/// Insertions, deletions and replacements of characters that make one text of the other. Quadratic; for names.
fn distance(one: &str, other: &str) -> usize {
    // A name of a megabyte is near to none.
    if one.len().abs_diff(other.len()) > 16 {
        return usize::MAX;
    }
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, letter) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (column, &against) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != against);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(text: &str) -> Fields {
        match serde_json::from_str(text).unwrap() {
            Json::Object(map) => Fields::new(map),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn null_is_absent_and_whole_floats_are_whole() {
        let mut fields = fields(r#"{"a": null, "b": 16.0, "c": 16.5, "d": "16", "e": 1e300, "f": -1}"#);
        assert_eq!(fields.count("a", 0, 9), Ok(None));
        assert_eq!(fields.count("b", 0, 16), Ok(Some(16)));
        for (name, said) in [("c", "16.5"), ("d", "\"16\""), ("f", "-1")] {
            let error = fields.count(name, 0, usize::MAX).unwrap_err();
            assert_eq!(error.message, format!("`{name}` must be a whole number from 0, not {said}"));
            assert_eq!(error.param.as_deref(), Some(name));
        }
        assert!(fields.count("e", 0, 16).is_err());
        assert!(fields.left().is_empty());
    }

    #[test]
    fn ids_outside_the_vocabulary_are_named_by_their_place() {
        let mut fields = fields(r#"{"ids": [1, 2.0, -1], "more": [99999999999999999999], "last": [3, 10]}"#);
        let error = fields.ids("ids", 10).unwrap_err();
        assert_eq!(error.message, "`ids[2]` must be a token id from 0 to 9, not -1");
        assert!(fields.ids("more", 10).is_err());
        assert_eq!(fields.ids("last", 10).unwrap_err().param.as_deref(), Some("last[1]"));
    }

    #[test]
    fn objects_know_where_they_stand() {
        let mut fields = fields(r#"{"a": {"b": {"c": 1, "d": 2, "e": null}}}"#);
        let mut inner = fields.object("a").unwrap().unwrap().object("b").unwrap().unwrap();
        assert_eq!(inner.text("c").unwrap_err().param.as_deref(), Some("a.b.c"));
        assert_eq!(inner.left(), ["a.b.d"]);
        drop(inner);
        assert_eq!(fields.left(), ["a.b.d"], "what an object inside has left is not forgotten");
        let mut entry = fields.within("a[12]", serde_json::json!({ "f": 1 })).unwrap();
        assert_eq!(entry.integer("f", 0, 0).unwrap_err().param.as_deref(), Some("a[12].f"));
        assert_eq!(fields.asked(), BTreeSet::from(["a", "a.b", "a.b.c", "a[].f"].map(str::to_owned)));
    }

    #[test]
    fn a_mistyped_name_has_a_neighbour() {
        let known = ["temperature", "top_p", "max_tokens"];
        assert_eq!(nearest("temprature", known), Some("temperature"));
        assert_eq!(nearest("max_token", known), Some("max_tokens"));
        assert_eq!(nearest("frobnicate", known), None);
        assert_eq!(nearest(&"x".repeat(100_000), known), None);
    }
}
