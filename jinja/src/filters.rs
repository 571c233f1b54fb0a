//! jinja2's filters: those of single values and texts here, those of lists in `sequences`.

use crate::arguments::Args;
use crate::error::{Error, Result};
use crate::lexer::is_space;
use crate::run::Run;
use crate::text::{Builder, Text};
use crate::value::{Dict, SeqKind, Value};
use crate::{format, json, ops, print, sequences, strings, wrap};

/// Every filter.
pub(crate) const NAMES: [&str; 47] = [
    "abs",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "first",
    "float",
    "forceescape",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "pprint",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "striptags",
    "sum",
    "title",
    "tojson",
    "trim",
    "truncate",
    "unique",
    "upper",
];
const NAMES_TOO: [&str; 3] = ["urlencode", "wordcount", "wordwrap"];

pub(crate) fn filter(run: &mut Run<'_>, name: &str, value: Value, args: Args) -> Result<Value> {
    if !NAMES.contains(&name) && !NAMES_TOO.contains(&name) {
        return Err(Error::failed(format!("no filter named '{name}'")));
    }
    if let Some(text) = of_text(run, name, &value, &args)? {
        return Ok(text);
    }
    match name {
        "abs" => match value {
            Value::Float(number) => Ok(Value::Float(number.abs())),
            other => Ok(Value::Int(other.as_int().ok_or_else(|| other.is_no("a number"))?.saturating_abs())),
        },
        "attr" => {
            let [name] = args.bind(name, ["name"])?;
            // Attributes only: a dictionary's items are none.
            match (&value, name.as_ref().and_then(Value::as_str)) {
                (Value::Dict(_), Some(name)) => Ok(crate::methods::find(&value, name)
                    .unwrap_or_else(|| Value::undefined(format!("no attribute '{name}'")))),
                (_, Some(name)) => ops::attribute(&value, name),
                (_, None) => Err(Error::failed("attr needs a name")),
            }
        }
        "default" | "d" => {
            let [default, boolean] = args.bind(name, ["default_value", "boolean"])?;
            let replaced =
                matches!(value, Value::Undefined(_)) || (boolean.is_some_and(|on| on.is_true()) && !value.is_true());
            Ok(if replaced { default.unwrap_or_else(|| Value::str("")) } else { value })
        }
        "int" => {
            let [default, base] = args.bind(name, ["default", "base"])?;
            to_int(&value, default.unwrap_or(Value::Int(0)), base)
        }
        "float" => {
            let [default] = args.bind(name, ["default"])?;
            let number = match &value {
                Value::Str(text) => parsed_float(text.as_str()),
                Value::Undefined(_) => return Err(value.is_no("a number")),
                other => other.as_float(),
            };
            Ok(number.map_or_else(|| default.unwrap_or(Value::Float(0.0)), Value::Float))
        }
        "round" => {
            let [precision, method] = args.bind(name, ["precision", "method"])?;
            round(&value, precision, method)
        }
        "length" | "count" => {
            args.bind::<0>(name, [])?;
            Ok(Value::Int(i128::try_from(value.length()?).unwrap_or(i128::MAX)))
        }
        "pprint" => {
            let text = print::repr(&with_sorted_keys(&value)?);
            match text.as_str().chars().count() {
                0..=80 => Ok(Value::Str(text)),
                _ => Err(Error::failed("pprint of more than a line is not known here: use tojson")),
            }
        }
        "safe" => Ok(Value::Str(print::str(&value))),
        "tojson" => json::tojson(&value, args),
        _ => sequences::filter(run, name, value, args),
    }
}

/// The value with the keys of its dictionaries in order, as `pprint` writes it.
fn with_sorted_keys(value: &Value) -> Result<Value> {
    match value {
        Value::Seq(seq) if matches!(seq.kind, SeqKind::List | SeqKind::Tuple) => {
            Value::seq(seq.kind, seq.items.iter().map(with_sorted_keys).collect::<Result<_>>()?)
        }
        Value::Dict(dict) => {
            let entries = dict.entries.iter().map(|(key, value)| Ok((key.clone(), with_sorted_keys(value)?)));
            let mut entries = entries.collect::<Result<Vec<_>>>()?;
            entries.sort_by(|(left, _), (right, _)| left.as_str().cmp(&right.as_str()));
            Dict::of(entries)
        }
        other => Ok(other.clone()),
    }
}

/// The filters that take their value as text.
fn of_text(run: &mut Run<'_>, name: &str, value: &Value, args: &Args) -> Result<Option<Value>> {
    const TEXT: [&str; 18] = [
        "capitalize",
        "center",
        "e",
        "escape",
        "forceescape",
        "format",
        "indent",
        "lower",
        "replace",
        "string",
        "striptags",
        "title",
        "trim",
        "truncate",
        "upper",
        "urlencode",
        "wordcount",
        "wordwrap",
    ];
    if !TEXT.contains(&name) {
        return Ok(None);
    }
    let args = args.clone();
    if ["indent", "truncate", "wordwrap"].contains(&name) && value.as_text().is_none() {
        return Err(value.is_no("a text"));
    }
    let text = print::str(value);
    run.budget.bytes(text.len())?;
    let text = match name {
        "trim" => {
            let [chars] = args.bind(name, ["chars"])?;
            strings::strip(&text, true, true, chars.as_ref())?
        }
        "center" => {
            let [width] = args.bind(name, ["width"])?;
            let args = Args::of(vec![width.unwrap_or(Value::Int(80))]);
            return strings::call(run, &text, "center", args).map(Some);
        }
        "format" => {
            let Args { positional, named } = args;
            let values = match named.is_empty() {
                true => Value::tuple(positional)?,
                false => Dict::of(named.iter().map(|(name, value)| (Value::str(name), value.clone())))?,
            };
            format::percent(&text, &values, &mut run.budget)?
        }
        "replace" => {
            let [old, new, count] = args.bind(name, ["old", "new", "count"])?;
            let (Some(old), Some(new)) = (old, new) else { return Err(Error::failed("replace needs two texts")) };
            let (old, new) = (print::str(&old), print::str(&new));
            strings::replace(run, &text, &old, &new, count)?
        }
        "indent" => {
            let [width, first, blank] = args.bind(name, ["width", "first", "blank"])?;
            indent(run, &text, width, [first, blank].map(|flag| flag.is_some_and(|flag| flag.is_true())))?
        }
        "truncate" => truncate(&text, args)?,
        "wordwrap" => wrap::wordwrap(run, &text, args)?,
        "urlencode" => {
            args.bind::<0>(name, [])?;
            urlencode(value)?
        }
        name => {
            args.bind::<0>(name, [])?;
            match name {
                "capitalize" => strings::capitalize(&text),
                "lower" => strings::lower(&text),
                "upper" => strings::upper(&text),
                "title" => strings::title(&text, |before| is_space(before) || "-({[<".contains(before)),
                "wordcount" => {
                    let is_word = |c: char| c.is_alphanumeric() || c == '_';
                    let count = text.as_str().split(|c| !is_word(c)).filter(|word| !word.is_empty()).count();
                    return Ok(Some(Value::Int(i128::try_from(count).unwrap_or(i128::MAX))));
                }
                "striptags" => striptags(&text),
                "string" => text,
                _ => escape(&text),
            }
        }
    };
    run.budget.bytes(text.len())?;
    Ok(Some(Value::Str(text)))
}

fn escape(text: &Text) -> Text {
    text.map(|c, out| match c {
        '&' => out.push_str("&amp;"),
        '<' => out.push_str("&lt;"),
        '>' => out.push_str("&gt;"),
        '"' => out.push_str("&#34;"),
        '\'' => out.push_str("&#39;"),
        c => out.push(c),
    })
}

fn striptags(text: &Text) -> Text {
    let mut out = Builder::default();
    let mut rest = text.as_str();
    while let Some(at) = rest.find('<') {
        let end = if rest[at..].starts_with("<!--") {
            rest[at..].find("-->").map(|end| end + 3)
        } else {
            rest[at..].find('>').map(|end| end + 1)
        };
        let Some(end) = end else { break };
        out.push(&text.part(&rest[..at]));
        rest = &rest[at + end..];
    }
    out.push(&text.part(rest));
    let stripped = out.finish();
    let mut words = Builder::default();
    for word in stripped.as_str().split(is_space).filter(|word| !word.is_empty()) {
        words.push_str(if words.len() > 0 { " " } else { "" });
        words.push(&stripped.part(word));
    }
    words.finish()
}

fn indent(run: &mut Run<'_>, text: &Text, width: Option<Value>, [first, blank]: [bool; 2]) -> Result<Text> {
    let indention = match width.unwrap_or(Value::Int(4)) {
        Value::Str(text) => text,
        other => {
            let width = usize::try_from(other.as_int().ok_or_else(|| other.is_no("a width"))?).unwrap_or(0);
            run.budget.bytes(width)?;
            Text::own(&" ".repeat(width))
        }
    };
    let mut ended = Builder::default();
    ended.push(text);
    ended.push_str("\n");
    let lines = strings::lines(&ended.finish(), false);
    run.budget.bytes(lines.len().saturating_mul(indention.len()))?;
    let mut out = Builder::default();
    for (index, line) in lines.iter().enumerate() {
        let line = print::str(line);
        if index > 0 {
            out.push_str("\n");
        }
        if (index > 0 && (blank || line.len() > 0)) || (index == 0 && first) {
            out.push(&indention);
        }
        out.push(&line);
    }
    Ok(out.finish())
}

fn truncate(text: &Text, args: Args) -> Result<Text> {
    let [length, killwords, end, leeway] = args.bind("truncate", ["length", "killwords", "end", "leeway"])?;
    let number = |value: Option<Value>, default: usize| match value {
        None | Some(Value::None) => Ok(default),
        Some(value) => {
            value.as_int().and_then(|number| usize::try_from(number).ok()).ok_or_else(|| value.is_no("a length"))
        }
    };
    let (length, leeway) = (number(length, 255)?, number(leeway, 5)?);
    let end = print::str(&end.unwrap_or_else(|| Value::str("...")));
    let whole = text.as_str();
    if whole.chars().count() <= length.saturating_add(leeway) {
        return Ok(text.clone());
    }
    let kept = length
        .checked_sub(end.as_str().chars().count())
        .ok_or_else(|| Error::failed("truncate: the length is below that of the end"))?;
    let at = whole.char_indices().nth(kept).map_or(whole.len(), |(at, _)| at);
    let mut part = &whole[..at];
    if !killwords.is_some_and(|killwords| killwords.is_true()) {
        part = part.rsplit_once(' ').map_or(part, |(before, _)| before);
    }
    let mut out = Builder::default();
    out.push(&text.part(part));
    out.push(&end);
    Ok(out.finish())
}

fn urlencode(value: &Value) -> Result<Text> {
    let quote = |text: &Text, out: &mut Builder, safe: &str| {
        out.push(&text.map(|c, out| match c {
            c if c.is_ascii_alphanumeric() || "_.-~".contains(c) || safe.contains(c) => out.push(c),
            ' ' if safe.is_empty() => out.push('+'),
            c => c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| out.push_str(&format!("%{byte:02X}"))),
        }));
    };
    let mut out = Builder::default();
    let pairs = match value {
        Value::Dict(dict) => dict.entries.clone(),
        Value::Seq(seq) => {
            let pair = |pair: &Value| match &pair.items()?[..] {
                [key, value] => Ok((key.clone(), value.clone())),
                _ => Err(Error::failed("urlencode needs pairs")),
            };
            seq.items.iter().map(pair).collect::<Result<_>>()?
        }
        other => {
            quote(&print::str(other), &mut out, "/");
            return Ok(out.finish());
        }
    };
    for (index, (key, value)) in pairs.iter().enumerate() {
        out.push_str(if index > 0 { "&" } else { "" });
        quote(&print::str(key), &mut out, "");
        out.push_str("=");
        quote(&print::str(value), &mut out, "");
    }
    Ok(out.finish())
}

fn parsed_float(text: &str) -> Option<f64> {
    text.trim_matches(is_space).replace('_', "").parse().ok()
}

fn to_int(value: &Value, default: Value, base: Option<Value>) -> Result<Value> {
    #[expect(clippy::cast_possible_truncation, reason = "as Python's int() cuts")]
    let cut = |number: f64| (number.is_finite() && number.abs() < 1e38).then_some(number as i128);
    let number = match value {
        Value::Undefined(_) => return Err(value.is_no("a number")),
        Value::Str(text) => {
            let base = base.and_then(|base| base.as_int()).unwrap_or(10);
            let text = text.as_str().trim_matches(is_space).replace('_', "");
            let (negative, digits) = match text.strip_prefix('-') {
                Some(digits) => (true, digits),
                None => (false, text.strip_prefix('+').unwrap_or(&text)),
            };
            let prefixes: &[&str] = match base {
                16 => &["0x", "0X"],
                8 => &["0o", "0O"],
                2 => &["0b", "0B"],
                _ => &[],
            };
            let digits = prefixes.iter().find_map(|prefix| digits.strip_prefix(prefix)).unwrap_or(digits);
            let radix = u32::try_from(base).ok().filter(|base| (2..=36).contains(base));
            let whole = radix.and_then(|radix| i128::from_str_radix(digits, radix).ok());
            let whole = whole.filter(|_| digits.starts_with(|c: char| c.is_alphanumeric()));
            whole.map(|number| if negative { -number } else { number }).or_else(|| cut(parsed_float(&text)?))
        }
        Value::Float(number) => cut(*number),
        other => other.as_int(),
    };
    Ok(number.map_or(default, Value::Int))
}

fn round(value: &Value, precision: Option<Value>, method: Option<Value>) -> Result<Value> {
    let number = value.as_float().ok_or_else(|| value.is_no("a number"))?;
    let precision = precision.and_then(|precision| precision.as_int()).unwrap_or(0).clamp(-300, 300);
    let method = method.unwrap_or_else(|| Value::str("common"));
    if let (Some(whole), Some("common")) = (value.as_int(), method.as_str()) {
        return Ok(Value::Int(round_whole(whole, precision)));
    }
    let power = 10f64.powi(i32::try_from(precision).unwrap_or(0));
    Ok(Value::Float(match method.as_str() {
        Some("ceil") => (number * power).ceil() / power,
        Some("floor") => (number * power).floor() / power,
        // Rust's printing rounds the exact value half to even, as Python's round() does.
        Some("common") if precision >= 0 => {
            let digits = usize::try_from(precision).unwrap_or(0);
            format!("{number:.digits$}").parse().unwrap_or(number)
        }
        Some("common") => (number * power).round_ties_even() / power,
        _ => return Err(Error::failed("method must be common, ceil or floor")),
    }))
}

/// Python's `round` of an integer, which stays one: to tens, hundreds and so on where the precision is below zero.
fn round_whole(number: i128, precision: i128) -> i128 {
    let Some(unit) =
        u32::try_from(-precision).ok().filter(|&digits| digits > 0).map(|digits| 10i128.checked_pow(digits))
    else {
        return number;
    };
    let Some(unit) = unit else { return 0 };
    let (down, rest) = (number.div_euclid(unit), number.rem_euclid(unit));
    let up = match (rest * 2).cmp(&unit) {
        std::cmp::Ordering::Less => false,
        std::cmp::Ordering::Equal => down % 2 != 0,
        std::cmp::Ordering::Greater => true,
    };
    (down + i128::from(up)).saturating_mul(unit)
}

/// What a filter makes item by item.
pub(crate) fn generator(items: Vec<Value>) -> Result<Value> {
    Value::seq(SeqKind::Generator, items)
}
