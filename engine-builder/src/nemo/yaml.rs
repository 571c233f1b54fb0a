//! YAML as JSON values: mappings with plain keys, lists and scalars. Aliases and tags are refused, so that a small file stays small.

use std::path::Path;

use engine_format::{FormatError, Result};
use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Number, Value};

/// Bytes of a document at most.
const MAX_BYTES: usize = 1 << 20;

/// Values inside each other at most.
const MAX_DEPTH: usize = 32;

/// A mapping or a list whose end was not seen yet.
enum Open {
    /// With the key whose value comes next.
    Mapping(Map<String, Value>, Option<String>),
    List(Vec<Value>),
}

/// Reads the one document of `bytes`; `path` is named in errors.
///
/// # Errors
/// What is no YAML, has aliases, tags or a key twice, or is larger or deeper than configurations are.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<Value> {
    let damaged = |problem: String| FormatError::damaged(path, problem);
    if bytes.len() > MAX_BYTES {
        return Err(damaged(format!("it has {} bytes; at most {MAX_BYTES} are read", bytes.len())));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| damaged("it is not UTF-8".to_owned()))?;
    let (mut open, mut root) = (Vec::new(), None);
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|error| damaged(format!("it is no YAML: {error}")))?;
        let refuse = |problem: &str| damaged(format!("line {}: {problem}", span.start.line()));
        let finished = match event {
            Event::Alias(_) => return Err(refuse("aliases are not read")),
            Event::Scalar(.., Some(_)) | Event::MappingStart(_, Some(_)) | Event::SequenceStart(_, Some(_)) => {
                return Err(refuse("tags are not read"));
            }
            Event::MappingStart(..) | Event::SequenceStart(..) if open.len() == MAX_DEPTH => {
                return Err(refuse("values are too deep inside each other"));
            }
            Event::MappingStart(..) => {
                open.push(Open::Mapping(Map::new(), None));
                continue;
            }
            Event::SequenceStart(..) => {
                open.push(Open::List(Vec::new()));
                continue;
            }
            Event::MappingEnd | Event::SequenceEnd => match open.pop() {
                Some(Open::Mapping(mapping, _)) => Value::Object(mapping),
                Some(Open::List(list)) => Value::Array(list),
                None => continue,
            },
            Event::Scalar(text, style, ..) => {
                if let Some(Open::Mapping(mapping, key @ None)) = open.last_mut() {
                    if mapping.contains_key(text.as_ref()) {
                        return Err(refuse(&format!("`{text}` is there twice")));
                    }
                    *key = Some(text.into_owned());
                    continue;
                }
                if style == ScalarStyle::Plain { plain(&text) } else { Value::String(text.into_owned()) }
            }
            _ => continue,
        };
        match open.last_mut() {
            Some(Open::Mapping(mapping, key)) => {
                let key = key.take().ok_or_else(|| refuse("a key is no plain text"))?;
                mapping.insert(key, finished);
            }
            Some(Open::List(list)) => list.push(finished),
            None if root.is_some() => return Err(refuse("it has a second document")),
            None => root = Some(finished),
        }
    }
    Ok(root.unwrap_or(Value::Null))
}

/// What a scalar without quotes is, by YAML's core schema. Infinity and other numbers that JSON lacks stay text.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let digits = text.strip_prefix('+').unwrap_or(text);
    let number = if let Ok(whole) = digits.parse::<i64>() {
        Some(Number::from(whole))
    } else if digits.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte)) {
        digits.parse().ok().and_then(Number::from_f64)
    } else {
        None
    };
    number.map_or_else(|| Value::String(text.to_owned()), Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn read(text: &str) -> Result<Value> {
        parse(Path::new("model_config.yaml"), text.as_bytes())
    }

    #[test]
    fn values_are_what_omegaconf_writes() {
        let text = "a: 1.0e-05\nb: [8191, 0]\nc: null\nd:\n  e: nemo:x_y.json\n  f: 'true'\n  g: true\nh:\n- 1\n- -2.5\ni: 1e-05\nj: +3\nk: .inf\n";
        let expected = json!({"a": 1e-5, "b": [8191, 0], "c": null, "d": {"e": "nemo:x_y.json", "f": "true", "g": true},
            "h": [1, -2.5], "i": 1e-5, "j": 3, "k": ".inf"});
        assert_eq!(read(text).unwrap(), expected);
    }

    #[test]
    fn what_could_grow_or_mislead_is_refused() {
        let deep = "[".repeat(100);
        let cases: [(&str, &str); 7] = [
            ("a: &x [1]\nb: *x", "line 2: aliases"),
            ("a: !!python/object:os.system ls", "line 1: tags"),
            ("a: 1\na: 2", "`a` is there twice"),
            ("a: 1\n---\nb: 2", "second document"),
            (&deep, "too deep"),
            ("a: [1", "no YAML"),
            ("? [1]\n: 2", "key is no plain text"),
        ];
        for (text, problem) in cases {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(problem) && error.contains("model_config.yaml"), "{text:?}: {error}");
        }
        assert!(read(&" ".repeat(MAX_BYTES + 1)).is_err());
    }
}
