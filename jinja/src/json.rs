//! The filter `tojson`: `json.dumps` as Transformers gives it to templates.

use crate::arguments::Args;
use crate::error::{Error, Result};
use crate::print;
use crate::text::{Builder, Text};
use crate::value::{SeqKind, Value};

/// Widest indentation that is written.
const MAX_INDENT: usize = 64;

struct Dumps {
    ensure_ascii: bool,
    sort_keys: bool,
    indent: Option<Text>,
    between_items: Text,
    after_key: Text,
}

pub(crate) fn tojson(value: &Value, args: Args) -> Result<Value> {
    let [ascii, indent, separators, sort] =
        args.bind("tojson", ["ensure_ascii", "indent", "separators", "sort_keys"])?;
    let is_true = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let indent = match indent.filter(|indent| !matches!(indent, Value::None)) {
        None => None,
        Some(Value::Str(text)) => Some(text),
        Some(other) => {
            let blanks = other.as_int().ok_or_else(|| other.is_no("an indentation"))?;
            Some(Text::own(&" ".repeat(usize::try_from(blanks).unwrap_or(0).min(MAX_INDENT))))
        }
    };
    let (between_items, after_key) = match separators.filter(|separators| !matches!(separators, Value::None)) {
        Some(pair) => match &pair.items()?[..] {
            [items, key] => (print::str(items), print::str(key)),
            _ => return Err(Error::failed("tojson: separators must be two")),
        },
        None => (Text::own(if indent.is_some() { "," } else { ", " }), Text::own(": ")),
    };
    let dumps = Dumps { ensure_ascii: is_true(ascii), sort_keys: is_true(sort), indent, between_items, after_key };
    let mut out = Builder::default();
    dumps.write(value, 0, &mut out)?;
    Ok(Value::Str(out.finish()))
}

impl Dumps {
    fn write(&self, value: &Value, depth: usize, out: &mut Builder) -> Result<()> {
        if out.len() > crate::budget::LARGEST {
            return Err(Error::Budget { line: 0, problem: "makes a text of more than 64 MiB" });
        }
        match value {
            Value::None => out.push_str("null"),
            Value::Bool(true) => out.push_str("true"),
            Value::Bool(false) => out.push_str("false"),
            Value::Int(number) => out.push_str(&number.to_string()),
            Value::Float(number) => out.push_str(match print::float(*number).as_str() {
                "inf" => "Infinity",
                "-inf" => "-Infinity",
                "nan" => "NaN",
                number => number,
            }),
            Value::Str(text) => self.write_str(text, out),
            Value::Seq(seq) if matches!(seq.kind, SeqKind::List | SeqKind::Tuple | SeqKind::Generator) => {
                out.push_str("[");
                for (index, item) in seq.items.iter().enumerate() {
                    self.next(index, depth, out);
                    self.write(item, depth + 1, out)?;
                }
                self.close(seq.items.len(), depth, out);
                out.push_str("]");
            }
            Value::Dict(dict) => {
                out.push_str("{");
                let mut entries: Vec<&(Value, Value)> = dict.entries.iter().collect();
                if self.sort_keys {
                    let mut failed = None;
                    entries.sort_by(|(left, _), (right, _)| match left.compare(right) {
                        Ok(order) => order.unwrap_or(std::cmp::Ordering::Equal),
                        Err(error) => {
                            failed = Some(error);
                            std::cmp::Ordering::Equal
                        }
                    });
                    failed.map_or(Ok(()), Err)?;
                }
                for (index, (key, value)) in entries.iter().enumerate() {
                    self.next(index, depth, out);
                    match key {
                        Value::Str(key) => self.write_str(key, out),
                        Value::Seq(_) | Value::Dict(_) => return Err(key.is_no("a key of JSON")),
                        key => {
                            out.push_str("\"");
                            self.write(key, 0, out)?;
                            out.push_str("\"");
                        }
                    }
                    out.push(&self.after_key);
                    self.write(value, depth + 1, out)?;
                }
                self.close(dict.entries.len(), depth, out);
                out.push_str("}");
            }
            Value::Undefined(what) => {
                return Err(Error::failed(format!("tojson: a value that is not there has no JSON: {what}")));
            }
            other => {
                return Err(Error::failed(format!("Object of type {} is not JSON serializable", other.type_name())));
            }
        }
        Ok(())
    }

    fn next(&self, index: usize, depth: usize, out: &mut Builder) {
        if index > 0 {
            out.push(&self.between_items);
        }
        self.new_line(depth + 1, out);
    }

    fn close(&self, count: usize, depth: usize, out: &mut Builder) {
        if count > 0 {
            self.new_line(depth, out);
        }
    }

    fn new_line(&self, depth: usize, out: &mut Builder) {
        if let Some(indent) = &self.indent {
            out.push_str("\n");
            for _ in 0..depth {
                out.push(indent);
            }
        }
    }

    fn write_str(&self, text: &Text, out: &mut Builder) {
        out.push_str("\"");
        out.push(&text.map(|c, out| match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            ' '..='~' => out.push(c),
            c if c < ' ' || self.ensure_ascii => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    out.push_str(&format!("\\u{unit:04x}"));
                }
            }
            c => out.push(c),
        }));
        out.push_str("\"");
    }
}
