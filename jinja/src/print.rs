//! How Python prints values: `str` and `repr`.

use crate::lexer::is_space;
use crate::text::{Builder, Text};
use crate::value::{Seq, SeqKind, Value};

/// Python's `str`: what a template prints of a value.
pub(crate) fn str(value: &Value) -> Text {
    match value {
        Value::Undefined(_) => Text::default(),
        Value::Str(text) => text.clone(),
        other => repr(other),
    }
}

/// Python's `repr`.
pub(crate) fn repr(value: &Value) -> Text {
    let mut out = Builder::default();
    write(value, &mut out);
    out.finish()
}

fn write(value: &Value, out: &mut Builder) {
    match value {
        Value::Undefined(_) => out.push_str("Undefined"),
        Value::None => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Int(number) => out.push_str(&number.to_string()),
        Value::Float(number) => out.push_str(&float(*number)),
        Value::Str(text) => write_str(text, out),
        Value::Seq(seq) => write_seq(seq, out),
        Value::Dict(dict) => {
            out.push_str("{");
            for (index, (key, value)) in dict.entries.iter().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                write(key, out);
                out.push_str(": ");
                write(value, out);
            }
            out.push_str("}");
        }
        Value::Namespace(namespace) => {
            out.push_str("<Namespace {");
            for (index, (name, value)) in namespace.attributes.borrow().iter().enumerate() {
                out.push_str(if index > 0 { ", " } else { "" });
                write_str(&Text::own(name), out);
                out.push_str(": ");
                write(value, out);
            }
            out.push_str("}>");
        }
        Value::Loop(state) => out.push_str(&format!("<LoopContext {}/{}>", state.index.get() + 1, state.items.len())),
        Value::Callable(_) => out.push_str("<function>"),
    }
}

fn write_seq(seq: &Seq, out: &mut Builder) {
    let (open, close) = match seq.kind {
        SeqKind::List => ("[", "]"),
        SeqKind::Tuple if seq.items.len() == 1 => ("(", ",)"),
        SeqKind::Tuple => ("(", ")"),
        SeqKind::Range(first, end, 1) => return out.push_str(&format!("range({first}, {end})")),
        SeqKind::Range(first, end, step) => return out.push_str(&format!("range({first}, {end}, {step})")),
        SeqKind::Keys => ("dict_keys([", "])"),
        SeqKind::Values => ("dict_values([", "])"),
        SeqKind::Items => ("dict_items([", "])"),
        SeqKind::Generator => return out.push_str("<generator object>"),
    };
    out.push_str(open);
    for (index, item) in seq.items.iter().enumerate() {
        out.push_str(if index > 0 { ", " } else { "" });
        write(item, out);
    }
    out.push_str(close);
}

fn write_str(text: &Text, out: &mut Builder) {
    let quote = if text.as_str().contains('\'') && !text.as_str().contains('"') { '"' } else { '\'' };
    let escaped = text.map(|c, out| match c {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\\' => out.push_str("\\\\"),
        c if c == quote => out.extend(['\\', c]),
        c if is_printable(c) => out.push(c),
        c if u32::from(c) <= 0xff => out.push_str(&format!("\\x{:02x}", u32::from(c))),
        c if u32::from(c) <= 0xffff => out.push_str(&format!("\\u{:04x}", u32::from(c))),
        c => out.push_str(&format!("\\U{:08x}", u32::from(c))),
    });
    out.push_str(quote.encode_utf8(&mut [0; 4]));
    out.push(&escaped);
    out.push_str(quote.encode_utf8(&mut [0; 4]));
}

/// Python's `str.isprintable`, but for unassigned code points, which count as printable here.
fn is_printable(c: char) -> bool {
    let format = matches!(u32::from(c),
        0xad | 0x600..=0x605 | 0x61c | 0x6dd | 0x70f | 0x890..=0x891 | 0x8e2 | 0x180e | 0x200b..=0x200f | 0x202a..=0x202e
        | 0x2060..=0x206f | 0xe000..=0xf8ff | 0xfeff | 0xfff9..=0xfffb | 0x110bd | 0x110cd | 0x13430..=0x1343f
        | 0x1bca0..=0x1bca3 | 0x1d173..=0x1d17a | 0xe0001..=0xe007f | 0xf0000..=0x10ffff);
    c == ' ' || !(c.is_control() || is_space(c) || format)
}

/// A float as Python prints it: the shortest digits that read back, in scientific form below 1e-4 and from 1e16.
pub(crate) fn float(number: f64) -> String {
    let magnitude = number.abs();
    if !number.is_finite() {
        return format!("{number}").to_lowercase();
    }
    if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        return scientific(&format!("{number:e}"));
    }
    format!("{number:?}")
}

/// Rust's scientific form with Python's exponent, which has a sign and two digits.
pub(crate) fn scientific(text: &str) -> String {
    let (digits, exponent) = text.split_once('e').unwrap_or((text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    format!("{digits}e{sign}{exponent:0>2}")
}
