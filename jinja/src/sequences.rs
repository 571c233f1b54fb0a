//! Filters of lists and dictionaries.

use std::cmp::Ordering;

use crate::arguments::Args;
use crate::error::{Error, Result};
use crate::filters::generator;
use crate::run::Run;
use crate::value::{SeqKind, Value};
use crate::{checks, filters, ops, print, strings};

pub(crate) fn filter(run: &mut Run<'_>, name: &str, value: Value, args: Args) -> Result<Value> {
    match name {
        "map" => return map(run, &value, args),
        "select" | "reject" | "selectattr" | "rejectattr" => return select(run, name, &value, args),
        "items" => {
            args.bind::<0>(name, [])?;
            return match &value {
                Value::Undefined(_) => generator(Vec::new()),
                Value::Dict(dict) => {
                    let pairs = dict.entries.iter().map(|(key, value)| Value::tuple(vec![key.clone(), value.clone()]));
                    generator(pairs.collect::<Result<_>>()?)
                }
                _ => Err(Error::failed("Can only get item pairs from a mapping.")),
            };
        }
        "reverse" if value.as_text().is_some() => {
            args.bind::<0>(name, [])?;
            let bounds = [Value::None, Value::None, Value::Int(-1)];
            return ops::slice(&value, bounds, &mut run.budget);
        }
        "last" if matches!(&value, Value::Seq(seq) if seq.kind == SeqKind::Generator) => {
            return Err(Error::failed("'generator' object is not reversible"));
        }
        "dictsort" => return dictsort(&value, args),
        "first" => {
            args.bind::<0>(name, [])?;
            let first = value.first()?;
            return Ok(first.unwrap_or_else(|| Value::undefined("No first item, sequence was empty.")));
        }
        _ => {}
    }
    let items = value.items()?;
    run.budget.items(items.len())?;
    match name {
        "list" => {
            args.bind::<0>(name, [])?;
            Value::list(items)
        }
        "last" => {
            args.bind::<0>(name, [])?;
            let last = items.into_iter().next_back();
            Ok(last.unwrap_or_else(|| Value::undefined("No last item, sequence was empty.")))
        }
        "reverse" => {
            args.bind::<0>(name, [])?;
            generator(items.into_iter().rev().collect())
        }
        "join" => {
            let [separator, attribute] = args.bind(name, ["d", "attribute"])?;
            let separator = separator.map(|separator| print::str(&separator)).unwrap_or_default();
            let items = picked(items, attribute.as_ref(), None)?;
            strings::join(run, &separator, items.iter().map(|item| Ok(print::str(item)))).map(Value::Str)
        }
        "sum" => {
            let [attribute, start] = args.bind(name, ["attribute", "start"])?;
            let mut sum = start.unwrap_or(Value::Int(0));
            for item in picked(items, attribute.as_ref(), None)? {
                if sum.as_text().is_some() {
                    return Err(Error::failed("sum() can't sum strings"));
                }
                sum = ops::binary(crate::ast::Operator::Add, &sum, &item, &mut run.budget)?;
            }
            Ok(sum)
        }
        "min" | "max" => {
            let [case_sensitive, attribute] = args.bind(name, ["case_sensitive", "attribute"])?;
            let keys = keys(&items, attribute.as_ref(), case_sensitive)?;
            let wanted = if name == "min" { Ordering::Less } else { Ordering::Greater };
            let mut best: Option<usize> = None;
            for (place, key) in keys.iter().enumerate() {
                if best.is_none_or(|best| false_if_equal(key, &keys[best], wanted)) {
                    best = Some(place);
                }
            }
            for pair in keys.windows(2) {
                pair[0].compare(&pair[1])?;
            }
            Ok(best.map_or_else(
                || Value::undefined("No aggregated item, sequence was empty."),
                |best| items[best].clone(),
            ))
        }
        "sort" => {
            let [reverse, case_sensitive, attribute] = args.bind(name, ["reverse", "case_sensitive", "attribute"])?;
            let keys = keys(&items, attribute.as_ref(), case_sensitive)?;
            let sorted = sorted(items, &keys, reverse.is_some_and(|reverse| reverse.is_true()))?;
            Value::list(sorted.into_iter().map(|(_, item)| item).collect())
        }
        "unique" => {
            let [case_sensitive, attribute] = args.bind(name, ["case_sensitive", "attribute"])?;
            let keys = keys(&items, attribute.as_ref(), case_sensitive)?;
            let mut seen = std::collections::HashSet::new();
            let mut kept = Vec::new();
            for (item, key) in items.into_iter().zip(&keys) {
                if seen.insert(key.key()?) {
                    kept.push(item);
                }
            }
            generator(kept)
        }
        "groupby" => {
            let [attribute, default, case_sensitive] = args.bind(name, ["attribute", "default", "case_sensitive"])?;
            if attribute.is_none() {
                return Err(Error::failed("groupby needs an attribute"));
            }
            let names = picked(items.clone(), attribute.as_ref(), default.as_ref())?;
            if let Some(missing) = names.iter().find(|name| matches!(name, Value::Undefined(_))) {
                return Err(missing.is_no("what groups have in common"));
            }
            let keys = keys(&names, None, case_sensitive)?;
            let mut groups: Vec<(Value, Value, Vec<Value>)> = Vec::new();
            let pairs = items.into_iter().zip(names).map(|(item, name)| Value::tuple(vec![item, name]));
            for (key, pair) in sorted(pairs.collect::<Result<_>>()?, &keys, false)? {
                let pair = pair.items()?;
                match groups.last_mut() {
                    Some((last, _, group)) if last.equals(&key) => group.push(pair[0].clone()),
                    _ => groups.push((key, pair[1].clone(), vec![pair[0].clone()])),
                }
            }
            let groups = groups.into_iter().map(|(_, name, group)| Value::tuple(vec![name, Value::list(group)?]));
            Value::list(groups.collect::<Result<_>>()?)
        }
        "batch" => {
            let [count, fill] = args.bind(name, ["linecount", "fill_with"])?;
            let count = count.and_then(|count| count.as_int()).and_then(|count| usize::try_from(count).ok());
            let count =
                count.filter(|count| *count > 0).ok_or_else(|| Error::failed("batch needs a count above zero"))?;
            let fill = fill.filter(|fill| !matches!(fill, Value::None));
            let mut rows: Vec<Vec<Value>> = items.chunks(count).map(<[_]>::to_vec).collect();
            if let (Some(fill), Some(last)) = (fill, rows.last_mut()) {
                run.budget.items(count)?;
                last.resize(count, fill);
            }
            generator(rows.into_iter().map(Value::list).collect::<Result<_>>()?)
        }
        "slice" => {
            let [count, fill] = args.bind(name, ["slices", "fill_with"])?;
            let count = count.and_then(|count| count.as_int()).and_then(|count| usize::try_from(count).ok());
            let count =
                count.filter(|count| *count > 0).ok_or_else(|| Error::failed("slice needs a count above zero"))?;
            run.budget.items(count)?;
            let (each, more) = (items.len() / count, items.len() % count);
            let mut rest = &items[..];
            let mut columns = Vec::new();
            for column in 0..count {
                let (mine, after) = rest.split_at(each + usize::from(column < more));
                rest = after;
                let fill = fill.iter().filter(|fill| column >= more && more > 0 && !matches!(fill, Value::None));
                columns.push(Value::list(mine.iter().chain(fill).cloned().collect())?);
            }
            generator(columns)
        }
        other => Err(Error::failed(format!("no filter named '{other}'"))),
    }
}

fn false_if_equal(key: &Value, best: &Value, wanted: Ordering) -> bool {
    matches!(key.compare(best), Ok(Some(order)) if order == wanted)
}

/// An attribute as filters name it: fields with dots between them, numbers for places.
fn picked_one(item: &Value, attribute: &Value, default: Option<&Value>) -> Result<Value> {
    let mut value = item.clone();
    let whole = print::str(attribute);
    for name in whole.as_str().split('.') {
        value = match name.parse::<i128>() {
            Ok(place) => ops::item(&value, &Value::Int(place))?,
            Err(_) => ops::item(&value, &Value::str(name))?,
        };
        if let (Value::Undefined(_), Some(default)) = (&value, default) {
            value = default.clone();
        }
    }
    Ok(value)
}

fn picked(items: Vec<Value>, attribute: Option<&Value>, default: Option<&Value>) -> Result<Vec<Value>> {
    match attribute.filter(|attribute| !matches!(attribute, Value::None)) {
        None => Ok(items),
        Some(attribute) => items.iter().map(|item| picked_one(item, attribute, default)).collect(),
    }
}

/// What items are ordered by: an attribute or several, texts in lower case.
fn keys(items: &[Value], attribute: Option<&Value>, case_sensitive: Option<Value>) -> Result<Vec<Value>> {
    let case_sensitive = case_sensitive.is_some_and(|on| on.is_true());
    let folded = |value: Value| match value {
        Value::Str(text) if !case_sensitive => Value::Str(strings::lower(&text)),
        other => other,
    };
    let attribute = attribute.filter(|attribute| !matches!(attribute, Value::None));
    let key = |item: &Value| match attribute {
        None => Ok(folded(item.clone())),
        Some(attribute) if attribute.as_str().is_some_and(|names| names.contains(',')) => {
            let names = print::str(attribute);
            let parts = names.as_str().split(',').map(|name| picked_one(item, &Value::str(name), None).map(folded));
            Value::list(parts.collect::<Result<_>>()?)
        }
        Some(attribute) => picked_one(item, attribute, None).map(folded),
    };
    items.iter().map(key).collect()
}

/// Items with their keys, in the keys' order; those that are equal stay as they were. The standard library's sort wants an order
/// without failures and without NaN.
fn sorted(items: Vec<Value>, keys: &[Value], reverse: bool) -> Result<Vec<(Value, Value)>> {
    let mut runs: Vec<Vec<(Value, Value)>> = keys.iter().cloned().zip(items).map(|pair| vec![pair]).collect();
    while runs.len() > 1 {
        let mut merged = Vec::with_capacity(runs.len().div_ceil(2));
        let mut pairs = runs.into_iter();
        while let Some(left) = pairs.next() {
            merged.push(match pairs.next() {
                Some(right) => merge(left, right, reverse)?,
                None => left,
            });
        }
        runs = merged;
    }
    Ok(runs.pop().unwrap_or_default())
}

fn merge(left: Vec<(Value, Value)>, right: Vec<(Value, Value)>, reverse: bool) -> Result<Vec<(Value, Value)>> {
    let before = if reverse { Ordering::Greater } else { Ordering::Less };
    let mut out = Vec::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    while let (Some((first, _)), Some((second, _))) = (left.peek(), right.peek()) {
        let swapped = !second.equals(first) && second.compare(first)? == Some(before);
        out.extend(if swapped { right.next() } else { left.next() });
    }
    out.extend(left.chain(right));
    Ok(out)
}

fn map(run: &mut Run<'_>, value: &Value, mut args: Args) -> Result<Value> {
    let items = value.items()?;
    run.budget.items(items.len())?;
    if args.positional.is_empty() {
        let [attribute, default] = args.bind("map", ["attribute", "default"])?;
        let attribute = attribute.ok_or_else(|| Error::failed("map requires a filter argument"))?;
        return generator(picked(items, Some(&attribute), default.as_ref())?);
    }
    let name = args.positional.remove(0);
    let name = name.as_str().ok_or_else(|| name.is_no("a filter's name"))?;
    let mapped = items.into_iter().map(|item| {
        run.budget.step()?;
        filters::filter(run, name, item, args.clone())
    });
    generator(mapped.collect::<Result<_>>()?)
}

fn select(run: &mut Run<'_>, name: &str, value: &Value, mut args: Args) -> Result<Value> {
    let items = value.items()?;
    run.budget.items(items.len())?;
    let attribute = match name.ends_with("attr") {
        true if args.positional.is_empty() => return Err(Error::failed(format!("{name} needs an attribute"))),
        true => Some(args.positional.remove(0)),
        false => None,
    };
    let test = if args.positional.is_empty() { None } else { Some(args.positional.remove(0)) };
    let wanted = name.starts_with("select");
    let mut kept = Vec::new();
    for item in items {
        run.budget.step()?;
        let subject = match &attribute {
            Some(attribute) => picked_one(&item, attribute, None)?,
            None => item.clone(),
        };
        let passes = match &test {
            Some(test) => {
                let test = test.as_str().ok_or_else(|| test.is_no("a test's name"))?;
                checks::check(test, &subject, args.clone())?
            }
            None => subject.is_true(),
        };
        if passes == wanted {
            kept.push(item);
        }
    }
    generator(kept)
}

fn dictsort(value: &Value, args: Args) -> Result<Value> {
    let [case_sensitive, by, reverse] = args.bind("dictsort", ["case_sensitive", "by", "reverse"])?;
    let Value::Dict(dict) = value else { return Err(value.is_no("a mapping")) };
    let place = match by.as_ref().map(|by| by.as_str()) {
        None | Some(Some("key")) => 0,
        Some(Some("value")) => 1,
        _ => return Err(Error::failed("You can only sort by either \"key\" or \"value\"")),
    };
    let pairs = dict.entries.iter().map(|(key, value)| Value::tuple(vec![key.clone(), value.clone()]));
    let pairs: Vec<Value> = pairs.collect::<Result<_>>()?;
    let keys = keys(&pairs, Some(&Value::Int(place)), case_sensitive)?;
    let sorted = sorted(pairs, &keys, reverse.is_some_and(|reverse| reverse.is_true()))?;
    Value::list(sorted.into_iter().map(|(_, pair)| pair).collect())
}
