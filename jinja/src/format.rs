//! Texts with values in them: `pattern % values` and `pattern.format(…)`.

use crate::arguments::Args;
use crate::budget::Budget;
use crate::error::{Error, Result};
use crate::text::{Builder, Text};
use crate::value::{SeqKind, Value};
use crate::{ops, print};

/// How a value is written.
#[derive(Default, Clone)]
struct Spec {
    fill: char,
    /// `<`, `>`, `^`, `=` or none.
    align: Option<char>,
    sign: Option<char>,
    alternate: bool,
    comma: Option<char>,
    width: usize,
    precision: Option<usize>,
    kind: Option<char>,
}

/// Python's `pattern % values`.
pub(crate) fn percent(pattern: &Text, values: &Value, budget: &mut Budget) -> Result<Text> {
    let whole = pattern.as_str();
    let mut given = match values {
        Value::Seq(seq) if seq.kind == SeqKind::Tuple => seq.items.iter(),
        other => std::slice::from_ref(other).iter(),
    };
    let mut next = || given.next().ok_or_else(|| Error::failed("not enough arguments for format string"));
    let (mut out, mut from, mut by_name) = (Builder::default(), 0, false);
    while let Some(at) = whole[from..].find('%').map(|at| from + at) {
        out.push_slice(pattern, from..at);
        let mut rest = &whole[at + 1..];
        let mut value = None;
        if let Some(named) = rest.strip_prefix('(') {
            let (name, after) = named.split_once(')').ok_or_else(|| Error::failed("incomplete format key"))?;
            let Value::Dict(_) = values else { return Err(Error::failed("format requires a mapping")) };
            value = Some(ops::item(values, &Value::str(name))?);
            rest = after;
            by_name = true;
        }
        let mut spec = Spec { fill: ' ', align: Some('>'), ..Spec::default() };
        while let Some(flag) = rest.chars().next().filter(|c| "-+ #0".contains(*c)) {
            match flag {
                '-' => spec.align = Some('<'),
                '0' if spec.align != Some('<') => (spec.fill, spec.align) = ('0', Some('=')),
                '0' => {}
                '#' => spec.alternate = true,
                sign => spec.sign = if spec.sign == Some('+') { Some('+') } else { Some(sign) },
            }
            rest = &rest[1..];
        }
        let mut number = |rest: &mut &str| -> Result<Option<i128>> {
            if let Some(after) = rest.strip_prefix('*') {
                *rest = after;
                let value = next()?;
                return value.as_int().map(Some).ok_or_else(|| value.is_no("a width"));
            }
            let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            let number = rest[..digits].parse().ok();
            *rest = &rest[digits..];
            Ok(number)
        };
        if let Some(width) = number(&mut rest)? {
            if width < 0 {
                spec.align = Some('<');
            }
            spec.width = usize::try_from(width.unsigned_abs()).unwrap_or(usize::MAX);
        }
        if let Some(after) = rest.strip_prefix('.') {
            rest = after;
            spec.precision = Some(number(&mut rest)?.and_then(|number| usize::try_from(number).ok()).unwrap_or(0));
        }
        rest = rest.trim_start_matches(['h', 'l', 'L']);
        let kind = rest.chars().next().ok_or_else(|| Error::failed("incomplete format"))?;
        from = whole.len() - rest.len() + kind.len_utf8();
        if kind == '%' {
            out.push_str("%");
            continue;
        }
        let value = match value {
            Some(value) => value,
            None => next()?.clone(),
        };
        let text = match kind {
            's' | 'r' | 'a' => {
                let text = if kind == 's' { print::str(&value) } else { print::repr(&value) };
                spec.fill = ' ';
                spec.align = spec.align.map(|align| if align == '=' { '>' } else { align });
                cut(&text, spec.precision)
            }
            'c' => match value.as_int() {
                Some(code) => {
                    let c = u32::try_from(code).ok().and_then(char::from_u32);
                    Text::own(&c.ok_or_else(|| Error::failed("%c needs a character"))?.to_string())
                }
                None => print::str(&value),
            },
            'd' | 'i' | 'u' => {
                let whole = whole_number(&value)?;
                signed(whole < 0, &whole.unsigned_abs().to_string(), &spec)
            }
            kind => numeral(&value, &Spec { kind: Some(kind), ..spec.clone() })?,
        };
        pad(&text, &spec, budget, &mut out)?;
    }
    out.push_slice(pattern, from..pattern.len());
    // What has keys or places, but for texts and tuples, may be left unread.
    let unread_is_fine = match values {
        Value::Seq(seq) => matches!(seq.kind, SeqKind::List | SeqKind::Range(..)),
        other => matches!(other, Value::Dict(_)),
    };
    if given.next().is_some() && !by_name && !unread_is_fine {
        return Err(Error::failed("not all arguments converted during string formatting"));
    }
    Ok(out.finish())
}

/// Python's `pattern.format(…)`.
pub(crate) fn format(pattern: &Text, args: &Args, budget: &mut Budget) -> Result<Text> {
    let whole = pattern.as_str();
    let (mut out, mut from, mut automatic) = (Builder::default(), 0, 0);
    while let Some(at) = whole[from..].find(['{', '}']).map(|at| from + at) {
        out.push_slice(pattern, from..at);
        let rest = &whole[at..];
        if rest.starts_with("{{") || rest.starts_with("}}") {
            out.push_slice(pattern, at..at + 1);
            from = at + 2;
            continue;
        }
        if rest.starts_with('}') {
            return Err(Error::failed("Single '}' encountered in format string"));
        }
        let mut depth = 0;
        let end = rest.find(|c| {
            depth += i32::from(c == '{') - i32::from(c == '}');
            depth == 0
        });
        let end = end.ok_or_else(|| Error::failed("Single '{' encountered in format string"))?;
        let field = &rest[1..end];
        from = at + end + 1;
        let (field, spec) = field.split_once(':').unwrap_or((field, ""));
        let (field, conversion) = field.split_once('!').map_or((field, None), |(field, how)| (field, Some(how)));
        let value = field_value(field, args, &mut automatic)?;
        let value = match conversion {
            None => value,
            Some("s") => Value::Str(print::str(&value)),
            Some("r" | "a") => Value::Str(print::repr(&value)),
            Some(other) => return Err(Error::failed(format!("Unknown conversion specifier '{other}'"))),
        };
        let spec = match spec.contains('{') {
            // A width may itself be a field.
            true => {
                budget.enter()?;
                let spec = format(
                    &Text::own(spec),
                    &Args {
                        positional: args.positional[automatic.min(args.positional.len())..].to_vec(),
                        named: args.named.clone(),
                    },
                    budget,
                );
                budget.leave();
                spec?.as_str().to_owned()
            }
            false => spec.to_owned(),
        };
        write_field(&value, &spec, budget, &mut out)?;
    }
    out.push_slice(pattern, from..pattern.len());
    Ok(out.finish())
}

fn field_value(field: &str, args: &Args, automatic: &mut usize) -> Result<Value> {
    let end = field.find(['.', '[']).unwrap_or(field.len());
    let (first, mut rest) = field.split_at(end);
    let at = |place: usize| {
        let missing = || Error::failed(format!("Replacement index {place} out of range for positional args tuple"));
        args.positional.get(place).cloned().ok_or_else(missing)
    };
    let mut value = if first.is_empty() {
        *automatic += 1;
        at(*automatic - 1)?
    } else if let Ok(place) = first.parse::<usize>() {
        at(place)?
    } else {
        let named = args.named.iter().find(|(name, _)| name == first);
        named.map(|(_, value)| value.clone()).ok_or_else(|| Error::failed(format!("format has no '{first}'")))?
    };
    while !rest.is_empty() {
        if let Some(name) = rest.strip_prefix('.') {
            let end = name.find(['.', '[']).unwrap_or(name.len());
            value = ops::attribute(&value, &name[..end])?;
            rest = &name[end..];
        } else {
            let (key, after) =
                rest[1..].split_once(']').ok_or_else(|| Error::failed("Missing ']' in format string"))?;
            value = ops::item(&value, &key.parse().map_or_else(|_| Value::str(key), Value::Int))?;
            rest = after;
        }
    }
    Ok(value)
}

fn parse_spec(text: &str) -> Result<Spec> {
    let mut spec = Spec { fill: ' ', ..Spec::default() };
    let mut chars = text.chars();
    let is_align = |c: char| "<>^=".contains(c);
    let (first, second) = (chars.next(), chars.next());
    let mut rest = text;
    if let (Some(fill), Some(align)) = (first, second.filter(|c| is_align(*c))) {
        (spec.fill, spec.align) = (fill, Some(align));
        rest = &text[fill.len_utf8() + 1..];
    } else if let Some(align) = first.filter(|c| is_align(*c)) {
        spec.align = Some(align);
        rest = &text[1..];
    }
    let flag = |rest: &mut &str, flags: &str| {
        let found = rest.chars().next().filter(|c| flags.contains(*c));
        *rest = &rest[found.map_or(0, char::len_utf8)..];
        found
    };
    spec.sign = flag(&mut rest, "+- ");
    spec.alternate = flag(&mut rest, "#").is_some();
    if flag(&mut rest, "0").is_some() && spec.align.is_none() {
        (spec.fill, spec.align) = ('0', Some('='));
    }
    let number = |rest: &mut &str| {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let number = (digits > 0).then(|| rest[..digits].parse().unwrap_or(usize::MAX));
        *rest = &rest[digits..];
        number
    };
    spec.width = number(&mut rest).unwrap_or(0);
    spec.comma = flag(&mut rest, ",_");
    if flag(&mut rest, ".").is_some() {
        spec.precision = Some(number(&mut rest).ok_or_else(|| Error::failed("Format specifier missing precision"))?);
    }
    spec.kind = flag(&mut rest, "bcdeEfFgGnosxX%");
    if rest.is_empty() { Ok(spec) } else { Err(Error::failed(format!("Invalid format specifier '{text}'"))) }
}

fn write_field(value: &Value, spec: &str, budget: &mut Budget, out: &mut Builder) -> Result<()> {
    if spec.is_empty() {
        let text = print::str(value);
        budget.bytes(text.len())?;
        out.push(&text);
        return Ok(());
    }
    let mut spec = parse_spec(spec)?;
    let text = match value {
        Value::Int(_) | Value::Float(_) | Value::Bool(_)
            if !matches!((value, spec.kind), (Value::Bool(_), None | Some('s'))) =>
        {
            spec.align = spec.align.or(Some('>'));
            numeral(value, &spec)?
        }
        Value::Str(text) if spec.kind.is_none_or(|kind| kind == 's') => {
            spec.align = spec.align.or(Some('<'));
            cut(text, spec.precision)
        }
        Value::Undefined(_) | Value::Str(_) | Value::Bool(_) => {
            return Err(Error::failed(format!("Unknown format code for object of type '{}'", value.type_name())));
        }
        other => return Err(Error::failed(format!("unsupported format string passed to {}", other.type_name()))),
    };
    pad(&text, &spec, budget, out)
}

fn cut(text: &Text, precision: Option<usize>) -> Text {
    let end = precision.and_then(|precision| text.as_str().char_indices().nth(precision));
    text.slice(0..end.map_or(text.len(), |(at, _)| at))
}

fn whole_number(value: &Value) -> Result<i128> {
    #[expect(clippy::cast_possible_truncation, reason = "as Python's int() cuts")]
    let cut = |number: f64| number as i128;
    match value {
        Value::Float(number) if number.is_finite() => Ok(cut(*number)),
        other => other.as_int().ok_or_else(|| other.is_no("a number")),
    }
}

fn signed(negative: bool, digits: &str, spec: &Spec) -> Text {
    let sign = match (negative, spec.sign) {
        (true, _) => "-",
        (false, Some('+')) => "+",
        (false, Some(' ')) => " ",
        _ => "",
    };
    Text::own(&format!("{sign}{digits}"))
}

/// A number as the spec's kind writes it, without padding.
fn numeral(value: &Value, spec: &Spec) -> Result<Text> {
    let precision = spec.precision.unwrap_or(6).min(1000);
    let integer = value.as_int();
    let radix = |prefix: &str, digits: &dyn Fn(u128) -> String| {
        let number = integer.ok_or_else(|| value.is_no("an integer"))?;
        let prefix = if spec.alternate { prefix } else { "" };
        Ok(signed(number < 0, &format!("{prefix}{}", digits(number.unsigned_abs())), spec))
    };
    match (spec.kind, integer) {
        (None | Some('d' | 'n'), Some(number)) => {
            return Ok(signed(number < 0, &grouped(&number.unsigned_abs().to_string(), spec.comma), spec));
        }
        (Some('b'), _) => return radix("0b", &|number| format!("{number:b}")),
        (Some('o'), _) => return radix("0o", &|number| format!("{number:o}")),
        (Some('x'), _) => return radix("0x", &|number| format!("{number:x}")),
        (Some('X'), _) => return radix("0X", &|number| format!("{number:X}")),
        (Some('c'), Some(code)) => {
            let c = u32::try_from(code).ok().and_then(char::from_u32);
            return c.map(|c| Text::own(&c.to_string())).ok_or_else(|| Error::failed("no such character"));
        }
        _ => {}
    }
    let number = value.as_float().ok_or_else(|| value.is_no("a number"))?;
    let magnitude = number.abs();
    let text = match spec.kind {
        _ if !magnitude.is_finite() => format!("{magnitude}").to_lowercase(),
        Some('e' | 'E') => print::scientific(&format!("{magnitude:.precision$e}")),
        Some('f' | 'F') => format!("{magnitude:.precision$}"),
        Some('%') => format!("{:.precision$}%", magnitude * 100.0),
        Some('g' | 'G') => general(magnitude, precision, spec.alternate),
        None if spec.precision.is_some() => {
            let text = general(magnitude, precision, false);
            if text.contains(['.', 'e']) { text } else { text + ".0" }
        }
        None => print::float(magnitude),
        Some(other) => return Err(Error::failed(format!("unsupported format character '{other}'"))),
    };
    let text = if spec.kind.is_some_and(char::is_uppercase) { text.to_uppercase() } else { text };
    Ok(signed(number.is_sign_negative() && !number.is_nan(), &grouped(&text, spec.comma), spec))
}

fn general(magnitude: f64, precision: usize, alternate: bool) -> String {
    let precision = precision.max(1);
    let scientific = format!("{magnitude:.*e}", precision - 1);
    let exponent: i32 = scientific.split_once('e').and_then(|(_, exponent)| exponent.parse().ok()).unwrap_or(0);
    let short = |text: String| match text.contains('.') && !alternate {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    };
    if exponent < -4 || usize::try_from(exponent).is_ok_and(|exponent| exponent >= precision) {
        let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
        return print::scientific(&format!("{}e{exponent}", short(digits.to_owned())));
    }
    let decimals = usize::try_from(i64::try_from(precision).unwrap_or(6) - 1 - i64::from(exponent)).unwrap_or(0);
    short(format!("{magnitude:.decimals$}"))
}

fn grouped(digits: &str, separator: Option<char>) -> String {
    let Some(separator) = separator else { return digits.to_owned() };
    let whole = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let mut out = String::new();
    for (index, c) in digits[..whole].chars().enumerate() {
        if index > 0 && (whole - index) % 3 == 0 {
            out.push(separator);
        }
        out.push(c);
    }
    out + &digits[whole..]
}

fn pad(text: &Text, spec: &Spec, budget: &mut Budget, out: &mut Builder) -> Result<()> {
    let missing = spec.width.saturating_sub(text.as_str().chars().count());
    budget.bytes(text.len().saturating_add(missing.saturating_mul(4)))?;
    let fill =
        |count: usize, out: &mut Builder| (0..count).for_each(|_| out.push_str(spec.fill.encode_utf8(&mut [0; 4])));
    let sign = usize::from(text.as_str().starts_with(['-', '+', ' ']));
    match spec.align {
        Some('<') => {
            out.push(text);
            fill(missing, out);
        }
        Some('^') => {
            fill(missing / 2, out);
            out.push(text);
            fill(missing - missing / 2, out);
        }
        Some('=') => {
            out.push_slice(text, 0..sign);
            fill(missing, out);
            out.push_slice(text, sign..text.len());
        }
        _ => {
            fill(missing, out);
            out.push(text);
        }
    }
    Ok(())
}
