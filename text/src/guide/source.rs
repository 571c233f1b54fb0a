//! What a request gives, checked and put into llguidance's terms.
//!
//! llguidance counts the work of compiling, but not within one step of it: those take time that grows with the square
//! of the longest regex and of the number of properties, and stack that grows with the depth of references. Limits on
//! the text bound both.

use llguidance::api::TopLevelGrammar;
use serde_json::{Map, Value};

use super::ebnf::{self, ForLlguidance};
use super::{CompileError, GuidedDecodingParams};

/// Longest regex, and longest string of a JSON schema, in bytes.
const MAX_REGEX: usize = 16 << 10;

/// Longest Lark or EBNF grammar, in bytes.
const MAX_GRAMMAR: usize = 32 << 10;

/// Longest JSON schema, in bytes.
const MAX_SCHEMA: usize = 128 << 10;

/// The grammar that a request asks for.
pub(super) fn grammar(params: &GuidedDecodingParams) -> Result<TopLevelGrammar, CompileError> {
    let grammar = match params {
        GuidedDecodingParams::Json => Ok(TopLevelGrammar::from_json_schema(with_few_blanks(Value::Bool(true)))),
        GuidedDecodingParams::JsonSchema(text) => schema(text),
        GuidedDecodingParams::Regex(text) => regex(text),
        GuidedDecodingParams::LarkGrammar(text) => {
            at_most(MAX_GRAMMAR, text).map(|()| TopLevelGrammar::from_lark(text.clone()))
        }
        GuidedDecodingParams::EbnfGrammar(text) => {
            at_most(MAX_GRAMMAR, text).and_then(|()| ebnf::parse(text)).map(|grammar| match grammar.for_llguidance() {
                ForLlguidance::Regex(regex) => TopLevelGrammar::from_regex(&regex),
                ForLlguidance::Lark(lark) => TopLevelGrammar::from_lark(lark),
            })
        }
    };
    grammar.map_err(|problem| CompileError::Invalid { kind: params.kind(), problem })
}

fn at_most(limit: usize, text: &str) -> Result<(), String> {
    match text.len() {
        length if length > limit => Err(format!("it has {length} bytes, and more than {limit} are refused")),
        _ => Ok(()),
    }
}

fn schema(text: &str) -> Result<TopLevelGrammar, String> {
    at_most(MAX_SCHEMA, text)?;
    let schema = serde_json::from_str(text).map_err(|error: serde_json::Error| {
        let (line, column) = (error.line(), error.column());
        match error.is_eof() {
            true => "it is not JSON: it ends too early".to_owned(),
            false => format!("it is not JSON at line {line} column {column}"),
        }
    })?;
    short_strings(&schema)?;
    Ok(TopLevelGrammar::from_json_schema(with_few_blanks(schema)))
}

/// The schema with at most one blank between the parts of a value, unless it says otherwise. JSON may have any number of
/// them, and a model that begins to write blanks often writes nothing else until its length is spent.
fn with_few_blanks(schema: Value) -> Value {
    const OPTIONS: &str = "x-guidance";
    const BLANKS: &str = "whitespace_pattern";
    let mut members = match schema {
        Value::Object(members) => members,
        // Admits everything, as an object without members does.
        Value::Bool(true) => Map::new(),
        other => return other,
    };
    if let Value::Object(options) = members.entry(OPTIONS).or_insert_with(|| Value::Object(Map::new()))
        && !options.contains_key("whitespace_flexible")
    {
        options.entry(BLANKS).or_insert_with(|| Value::String(" ".to_owned()));
    }
    Value::Object(members)
}

/// Any string of a schema may be a regex: a `pattern`, a key of `patternProperties`.
fn short_strings(value: &Value) -> Result<(), String> {
    let short = |text| at_most(MAX_REGEX, text).map_err(|problem| format!("a string of it is too long: {problem}"));
    match value {
        Value::String(text) => short(text),
        Value::Array(values) => values.iter().try_for_each(short_strings),
        Value::Object(members) => {
            members.iter().try_for_each(|(key, value)| short(key).and_then(|()| short_strings(value)))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
    }
}

fn regex(text: &str) -> Result<TopLevelGrammar, String> {
    at_most(MAX_REGEX, text)?;
    // Parsed here too, so that errors show the regex as it was given, not as part of a grammar.
    regex_syntax::parse(text).map_err(|error| super::error::readable(&error.to_string()))?;
    // To llguidance such a group is a look-ahead.
    if text.contains("(?P<stop>") || text.contains("(?<stop>") {
        return Err("a group cannot be named `stop`; give it another name".to_owned());
    }
    Ok(TopLevelGrammar::from_regex(text))
}
