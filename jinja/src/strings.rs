//! Methods of Python's `str`.

use std::ops::Range;

use crate::arguments::Args;
use crate::error::{Error, Result};
use crate::format;
use crate::lexer::is_space;
use crate::run::Run;
use crate::text::{Builder, Text};
use crate::value::Value;

fn int(number: usize) -> Value {
    Value::Int(i128::try_from(number).unwrap_or(i128::MAX))
}

fn wanted(value: &Value) -> Result<&Text> {
    value.as_text().ok_or_else(|| value.is_no("a text"))
}

/// A range of places of `length` places, as Python's optional bounds give it.
pub(crate) fn bounds(start: Option<Value>, end: Option<Value>, length: usize) -> Result<(usize, usize)> {
    let length = i128::try_from(length).unwrap_or(i128::MAX);
    let bound = |value: Option<Value>, default: i128| match value {
        None | Some(Value::None) => Ok(default),
        Some(value) => {
            let at = value.as_int().ok_or_else(|| value.is_no("an index"))?;
            Ok((if at < 0 { at.saturating_add(length) } else { at }).clamp(0, length))
        }
    };
    let (start, end) = (bound(start, 0)?, bound(end, length)?);
    Ok((usize::try_from(start).unwrap_or(0), usize::try_from(end.max(start)).unwrap_or(0)))
}

/// The bytes of a text between bounds that count characters.
fn within(text: &Text, start: Option<Value>, end: Option<Value>) -> Result<Range<usize>> {
    if start.is_none() && end.is_none() {
        return Ok(0..text.len());
    }
    let places: Vec<usize> = text.as_str().char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    let (start, end) = bounds(start, end, places.len() - 1)?;
    Ok(places[start]..places[end])
}

#[expect(clippy::too_many_lines, reason = "one arm for each method")]
pub(crate) fn call(run: &mut Run<'_>, text: &Text, name: &str, args: Args) -> Result<Value> {
    run.budget.bytes(text.len())?;
    let whole = text.as_str();
    let all = |test: fn(char) -> bool| Ok(Value::Bool(!whole.is_empty() && whole.chars().all(test)));
    let part = |part: &str| Value::Str(text.part(part));
    match name {
        "format" => return format::format(text, &args, &mut run.budget).map(Value::Str),
        "strip" | "lstrip" | "rstrip" => {
            let [chars] = args.bind(name, ["chars"])?;
            return strip(text, name != "rstrip", name != "lstrip", chars.as_ref()).map(Value::Str);
        }
        "split" | "rsplit" => {
            let [separator, limit] = args.bind(name, ["sep", "maxsplit"])?;
            return split(run, text, name == "rsplit", separator, limit);
        }
        "splitlines" => {
            let [keep] = args.bind(name, ["keepends"])?;
            return Value::list(lines(text, keep.is_some_and(|keep| keep.is_true())));
        }
        "center" | "ljust" | "rjust" => {
            let [width, fill] = args.bind(name, ["width", "fillchar"])?;
            return padded(run, text, name, &width.unwrap_or(Value::None), fill);
        }
        "join" => {
            let [items] = args.bind(name, ["iterable"])?;
            let items = items.unwrap_or(Value::None).items()?;
            return join(run, text, items.iter().map(|item| wanted(item).cloned())).map(Value::Str);
        }
        "replace" => {
            let [old, new, count] = args.bind(name, ["old", "new", "count"])?;
            let (old, new) = (old.unwrap_or(Value::None), new.unwrap_or(Value::None));
            return replace(run, text, wanted(&old)?, wanted(&new)?, count).map(Value::Str);
        }
        "startswith" | "endswith" => {
            let [affix, start, end] = args.bind(name, ["affix", "start", "end"])?;
            let affix = affix.unwrap_or(Value::None);
            let affixes = if affix.as_text().is_some() { vec![affix] } else { affix.items()? };
            let whole = &whole[within(text, start, end)?];
            for affix in &affixes {
                let affix = wanted(affix)?.as_str();
                if if name == "startswith" { whole.starts_with(affix) } else { whole.ends_with(affix) } {
                    return Ok(Value::Bool(true));
                }
            }
            return Ok(Value::Bool(false));
        }
        "find" | "rfind" | "index" | "rindex" | "count" => {
            let [needle, start, end] = args.bind(name, ["sub", "start", "end"])?;
            let needle = needle.unwrap_or(Value::None);
            let needle = wanted(&needle)?.as_str();
            let range = within(text, start, end)?;
            let (base, found) = (range.start, &whole[range]);
            if name == "count" {
                return Ok(int(found.matches(needle).count()));
            }
            let at = if name.starts_with('r') { found.rfind(needle) } else { found.find(needle) };
            return match at {
                Some(at) => Ok(int(whole[..base + at].chars().count())),
                None if name.ends_with("find") => Ok(Value::Int(-1)),
                None => Err(Error::failed("substring not found")),
            };
        }
        "partition" | "rpartition" => {
            let [separator] = args.bind(name, ["sep"])?;
            let separator = separator.unwrap_or(Value::None);
            let separator = wanted(&separator)?.as_str();
            if separator.is_empty() {
                return Err(Error::failed("empty separator"));
            }
            let at = if name == "partition" { whole.find(separator) } else { whole.rfind(separator) };
            let Some(at) = at else {
                let (first, last) = if name == "partition" { (whole, "") } else { ("", whole) };
                return Value::tuple(vec![part(first), Value::str(""), part(last)]);
            };
            let after = at + separator.len();
            return Value::tuple(vec![part(&whole[..at]), part(&whole[at..after]), part(&whole[after..])]);
        }
        "removeprefix" | "removesuffix" => {
            let [affix] = args.bind(name, ["affix"])?;
            let affix = affix.unwrap_or(Value::None);
            let affix = wanted(&affix)?.as_str();
            let rest = if name == "removeprefix" { whole.strip_prefix(affix) } else { whole.strip_suffix(affix) };
            return Ok(rest.map_or_else(|| Value::Str(text.clone()), part));
        }
        "zfill" => {
            let [width] = args.bind(name, ["width"])?;
            let width = width.unwrap_or(Value::None);
            let width = usize::try_from(width.as_int().ok_or_else(|| width.is_no("a width"))?).unwrap_or(0);
            run.budget.bytes(width)?;
            let sign = usize::from(whole.starts_with(['+', '-']));
            let mut out = Builder::default();
            out.push_slice(text, 0..sign);
            out.push_str(&"0".repeat(width.saturating_sub(whole.chars().count())));
            out.push_slice(text, sign..text.len());
            return Ok(Value::Str(out.finish()));
        }
        "format_map" => {
            let [values] = args.bind(name, ["mapping"])?;
            let Some(Value::Dict(dict)) = values else { return Err(Error::failed("format_map needs a mapping")) };
            let named =
                dict.entries.iter().map(|(key, value)| (crate::print::str(key).as_str().to_owned(), value.clone()));
            let args = Args { positional: Vec::new(), named: named.collect() };
            return format::format(text, &args, &mut run.budget).map(Value::Str);
        }
        "expandtabs" => {
            let [size] = args.bind(name, ["tabsize"])?;
            let size = size.and_then(|size| size.as_int()).map_or(8, |size| usize::try_from(size).unwrap_or(0).min(64));
            run.budget.bytes(whole.matches('\t').count().saturating_mul(size))?;
            let mut column = 0;
            return Ok(Value::Str(text.map(|c, out| match c {
                '\t' => {
                    let blanks = size.saturating_sub(column % size.max(1));
                    out.extend(std::iter::repeat_n(' ', blanks));
                    column += blanks;
                }
                c => {
                    column = if matches!(c, '\n' | '\r') { 0 } else { column + 1 };
                    out.push(c);
                }
            })));
        }
        _ => args.bind::<0>(name, [])?,
    };
    let all_cased = |right: fn(char) -> bool, wrong: fn(char) -> bool| {
        Ok(Value::Bool(whole.chars().any(right) && !whole.chars().any(wrong)))
    };
    match name {
        "lower" => Ok(Value::Str(lower(text))),
        "casefold" => Ok(Value::Str(text.map(|c, out| match c {
            'ß' | 'ẞ' => out.push_str("ss"),
            'ς' => out.push('σ'),
            c => out.extend(c.to_lowercase()),
        }))),
        "upper" => Ok(Value::Str(upper(text))),
        "swapcase" => Ok(Value::Str(cased(text, |_, c| !c.is_uppercase()))),
        "capitalize" => Ok(Value::Str(capitalize(text))),
        "title" => Ok(Value::Str(title(text, |before| !before.is_alphabetic()))),
        "isalnum" => all(char::is_alphanumeric),
        "isalpha" => all(char::is_alphabetic),
        "isascii" => Ok(Value::Bool(whole.is_ascii())),
        "isdigit" | "isdecimal" => all(|c| c.is_ascii_digit()),
        "isnumeric" => all(char::is_numeric),
        "isspace" => all(is_space),
        "isprintable" => Ok(Value::Bool(!whole.chars().any(char::is_control))),
        "isidentifier" => {
            let starts = whole.starts_with(|c: char| c.is_alphabetic() || c == '_');
            Ok(Value::Bool(starts && whole.chars().all(|c| c.is_alphanumeric() || c == '_')))
        }
        "islower" => all_cased(char::is_lowercase, char::is_uppercase),
        "isupper" => all_cased(char::is_uppercase, char::is_lowercase),
        "istitle" => {
            let same = title(text, |before| !before.is_alphabetic()).as_str() == whole;
            Ok(Value::Bool(same && whole.chars().any(char::is_uppercase)))
        }
        other => Err(Error::failed(format!("'str object' has no attribute '{other}'"))),
    }
}

pub(crate) fn lower(text: &Text) -> Text {
    cased(text, |_, _| false)
}

pub(crate) fn upper(text: &Text) -> Text {
    cased(text, |_, _| true)
}

pub(crate) fn capitalize(text: &Text) -> Text {
    cased(text, |before, _| before.is_none())
}

/// Upper case at the start and behind characters that `breaks` names, lower case elsewhere.
pub(crate) fn title(text: &Text, breaks: impl Fn(char) -> bool) -> Text {
    cased(text, |before, _| before.is_none_or(&breaks))
}

/// Each character in upper case where `is_upper` says so, of the character before and itself, and in lower case elsewhere.
fn cased(text: &Text, is_upper: impl Fn(Option<char>, char) -> bool) -> Text {
    let whole = text.as_str();
    let (mut at, mut before) = (0, None);
    text.map(|c, out| {
        let after = at + c.len_utf8();
        match c {
            c if is_upper(before, c) => out.extend(c.to_uppercase()),
            // A sigma at a word's end has a lower case of its own.
            'Σ' if whole[..at].ends_with(char::is_alphabetic) && !whole[after..].starts_with(char::is_alphabetic) => {
                out.push('ς');
            }
            c => out.extend(c.to_lowercase()),
        }
        (at, before) = (after, Some(c));
    })
}

pub(crate) fn strip(text: &Text, left: bool, right: bool, chars: Option<&Value>) -> Result<Text> {
    let chars = match chars {
        None | Some(Value::None) => None,
        Some(chars) => Some(wanted(chars)?.as_str()),
    };
    let strips = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.contains(c));
    let mut part = text.as_str();
    if left {
        part = part.trim_start_matches(strips);
    }
    if right {
        part = part.trim_end_matches(strips);
    }
    Ok(text.part(part))
}

fn split(
    run: &mut Run<'_>,
    text: &Text,
    from_end: bool,
    separator: Option<Value>,
    limit: Option<Value>,
) -> Result<Value> {
    let limit = match limit {
        None => None,
        Some(limit) => usize::try_from(limit.as_int().ok_or_else(|| limit.is_no("a number of splits"))?).ok(),
    };
    let whole = text.as_str();
    let pieces = limit.map_or(usize::MAX, |limit| limit.saturating_add(1));
    let mut parts: Vec<&str> = match separator.as_ref().filter(|separator| !matches!(separator, Value::None)) {
        Some(separator) => {
            let separator = wanted(separator)?.as_str();
            if separator.is_empty() {
                return Err(Error::failed("empty separator"));
            }
            if from_end {
                whole.rsplitn(pieces, separator).collect()
            } else {
                whole.splitn(pieces, separator).collect()
            }
        }
        None => {
            let (mut rest, mut parts) = (whole, Vec::new());
            let trim = |rest: &str| {
                if from_end {
                    rest.trim_end_matches(is_space).len()
                } else {
                    rest.len() - rest.trim_start_matches(is_space).len()
                }
            };
            loop {
                let at = trim(rest);
                rest = if from_end { &rest[..at] } else { &rest[at..] };
                if rest.is_empty() {
                    break parts;
                }
                let cut = if from_end { rest.rfind(is_space) } else { rest.find(is_space) };
                match cut.filter(|_| parts.len() + 1 < pieces) {
                    None => {
                        parts.push(rest.trim_matches(|c| is_space(c) && (parts.len() + 1 < pieces)));
                        break parts;
                    }
                    Some(at) if from_end => {
                        let next = at + rest[at..].chars().next().map_or(1, char::len_utf8);
                        parts.push(&rest[next..]);
                        rest = &rest[..at];
                    }
                    Some(at) => {
                        parts.push(&rest[..at]);
                        rest = &rest[at..];
                    }
                }
            }
        }
    };
    if from_end {
        parts.reverse();
    }
    run.budget.items(parts.len())?;
    Value::list(parts.into_iter().map(|part| Value::Str(text.part(part))).collect())
}

pub(crate) fn lines(text: &Text, keep_ends: bool) -> Vec<Value> {
    let mut rest = text.as_str();
    let mut lines = Vec::new();
    let breaks = ['\n', '\r', '\x0b', '\x0c', '\x1c', '\x1d', '\x1e', '\u{85}', '\u{2028}', '\u{2029}'];
    while !rest.is_empty() {
        let (at, width) = match rest.find(breaks) {
            None => (rest.len(), 0),
            Some(at) if rest[at..].starts_with("\r\n") => (at, 2),
            Some(at) => (at, rest[at..].chars().next().map_or(0, char::len_utf8)),
        };
        lines.push(Value::Str(text.part(&rest[..if keep_ends { at + width } else { at }])));
        rest = &rest[at + width..];
    }
    lines
}

fn padded(run: &mut Run<'_>, text: &Text, name: &str, width: &Value, fill: Option<Value>) -> Result<Value> {
    let width = usize::try_from(width.as_int().ok_or_else(|| width.is_no("a width"))?).unwrap_or(0);
    let fill = fill.unwrap_or_else(|| Value::str(" "));
    let fill = wanted(&fill)?;
    if fill.as_str().chars().count() != 1 {
        return Err(Error::failed("the fill character must be exactly one character long"));
    }
    let missing = width.saturating_sub(text.as_str().chars().count());
    run.budget.bytes(missing.saturating_mul(fill.len()))?;
    let left = match name {
        "ljust" => 0,
        "rjust" => missing,
        // As CPython divides an odd rest.
        _ => missing / 2 + (missing & width & 1),
    };
    let mut out = Builder::default();
    (0..left).for_each(|_| out.push(fill));
    out.push(text);
    (left..missing).for_each(|_| out.push(fill));
    Ok(Value::Str(out.finish()))
}

pub(crate) fn join(run: &mut Run<'_>, separator: &Text, items: impl Iterator<Item = Result<Text>>) -> Result<Text> {
    let mut out = Builder::default();
    for (index, item) in items.enumerate() {
        let item = item?;
        run.budget.bytes(separator.len() + item.len())?;
        if out.len() > crate::budget::LARGEST {
            return Err(Error::Budget { line: 0, problem: "makes a text of more than 64 MiB" });
        }
        if index > 0 {
            out.push(separator);
        }
        out.push(&item);
    }
    Ok(out.finish())
}

pub(crate) fn replace(run: &mut Run<'_>, text: &Text, old: &Text, new: &Text, count: Option<Value>) -> Result<Text> {
    let count = match count {
        None | Some(Value::None) => usize::MAX,
        Some(count) => usize::try_from(count.as_int().ok_or_else(|| count.is_no("a count"))?).unwrap_or(usize::MAX),
    };
    let matches = text.as_str().match_indices(old.as_str()).take(count).count();
    run.budget.bytes(text.len().saturating_add(matches.saturating_mul(new.len())))?;
    let mut out = Builder::default();
    let mut from = 0;
    for (at, found) in text.as_str().match_indices(old.as_str()).take(count) {
        out.push_slice(text, from..at);
        out.push(new);
        from = at + found.len();
    }
    out.push_slice(text, from..text.len());
    Ok(out.finish())
}
