//! JSON as Python's `json` writes and reads it, which models' files are made with: `NaN`, `Infinity` and `-Infinity` may stand
//! for a number, and a byte order mark may stand before the text. Also what parsers say, without names of Rust's types.

use std::borrow::Cow;

use serde_json::Value;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// Python's words for numbers that JSON has not.
const WORDS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];

/// Parses a text. `NaN`, `Infinity` and `-Infinity` become strings: whoever wants a number there says what stands in its place.
///
/// # Errors
/// The text is not JSON; what is wrong, in words.
pub fn parse(text: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice(text).or_else(|error| match cleaned(text) {
        Cow::Borrowed(_) => Err(error),
        Cow::Owned(text) => serde_json::from_slice(&text),
    })
}

/// The same JSON without a byte order mark, and with strings in place of Python's words.
pub fn cleaned(text: &[u8]) -> Cow<'_, [u8]> {
    let body = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    let mut out = Vec::new();
    let (mut copied, mut at, mut in_string) = (0, 0, false);
    while at < body.len() {
        match body[at] {
            b'\\' if in_string => at += 1,
            b'"' => in_string = !in_string,
            b'-' | b'I' | b'N' if !in_string => {
                if let Some(word) = WORDS.iter().find(|word| body[at..].starts_with(word.as_bytes())) {
                    out.extend_from_slice(&body[copied..at]);
                    out.extend_from_slice(format!("\"{word}\"").as_bytes());
                    copied = at + word.len();
                    at = copied;
                    continue;
                }
            }
            _ => {}
        }
        at += 1;
    }
    if copied == 0 {
        return if body.len() == text.len() { Cow::Borrowed(text) } else { Cow::Owned(body.to_vec()) };
    }
    out.extend_from_slice(&body[copied..]);
    Cow::Owned(out)
}

/// What serde says of a file, for people who do not know Rust.
pub fn in_words(error: &str) -> String {
    let mut said = error.to_owned();
    // Whole sentences first.
    for (part, enums) in PARTS {
        let unknown = format!("data did not match any variant of untagged enum {enums}");
        said = said.replace(&unknown, &format!("`{part}` is of no kind that is known"));
    }
    if let Some((before, rest)) = said.split_once("invalid type: ").or_else(|| said.split_once("invalid value: ")) {
        let (found, after) = rest.split_once(", expected ").unwrap_or((rest, ""));
        let (expected, place) = match after.split_once(" at line ") {
            Some((expected, place)) => (expected, format!(" at line {place}")),
            None => (after, String::new()),
        };
        said = format!("{before}there is {} where {} should be{place}", name(found), name(expected));
    }
    said
}

/// Parts of `tokenizer.json` by the types that parse them.
const PARTS: [(&str, &str); 5] = [
    ("model", "ModelWrapper"),
    ("normalizer", "NormalizerWrapper"),
    ("pre_tokenizer", "PreTokenizerWrapper"),
    ("post_processor", "PostProcessorWrapper"),
    ("decoder", "DecoderWrapper"),
];

/// A kind of value as serde names it, in words.
fn name(kind: &str) -> String {
    let shown_at = [" `", " \""].iter().filter_map(|quote| kind.find(quote)).min();
    let (kind, shown) = shown_at.map_or((kind, ""), |at| (&kind[..at], &kind[at + 1..]));
    let words = match kind {
        "usize" | "u8" | "u16" | "u32" | "u64" | "i32" | "i64" | "integer" => "a whole number",
        "f32" | "f64" | "floating point" => "a number",
        "string" | "str" | "a string" | "a borrowed string" => "a string",
        "boolean" | "bool" | "a boolean" => "true or false",
        "map" | "a map" => "an object",
        "sequence" | "a sequence" => "a list",
        "null" | "unit" => "null",
        "character" | "a character" | "char" => "one character",
        kind if kind.starts_with("struct ") || kind.contains("::") => "an object",
        kind => kind,
    };
    if shown.is_empty() { words.to_owned() } else { format!("{words} ({shown})") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_python_reads_is_read() {
        let value = parse(
            b"\xEF\xBB\xBF{\"a\": NaN, \"b\": [0.0, Infinity,-Infinity], \"NaN\": \"-Infinity \\\" NaN\", \"c\": -1}",
        );
        let expected = json!({"a": "NaN", "b": [0.0, "Infinity", "-Infinity"], "NaN": "-Infinity \" NaN", "c": -1});
        assert_eq!(value.unwrap(), expected);
        assert_eq!(parse(b"\xEF\xBB\xBF{}").unwrap(), json!({}));
        assert!(matches!(cleaned(b"{\"Infinity\": \"\\\\\"}"), Cow::Borrowed(_)));
        for wrong in [&b"{\"a\": nan}"[..], b"{\"a\": +Infinity}", b"{\"a\": \"NaN}", b"", b"Nan"] {
            assert!(parse(wrong).is_err(), "{}", String::from_utf8_lossy(wrong));
        }
    }

    #[test]
    fn no_type_of_rust_is_named() {
        let check = |said: &str, expected: &str| assert_eq!(in_words(said), expected);
        check(
            "invalid type: string \"2\", expected usize at line 1 column 9",
            "there is a string (\"2\") where a whole number should be at line 1 column 9",
        );
        check("invalid type: sequence, expected a map", "there is a list where an object should be");
        check(
            "data did not match any variant of untagged enum ModelWrapper at line 3 column 1",
            "`model` is of no kind that is known at line 3 column 1",
        );
        check(
            "invalid value: floating point `1.5`, expected u32",
            "there is a number (`1.5`) where a whole number should be",
        );
        check("invalid type: null, expected f32", "there is null where a number should be");
        check("EOF while parsing a value at line 1 column 0", "EOF while parsing a value at line 1 column 0");
    }
}
