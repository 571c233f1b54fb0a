//! Operators, items, slices and attributes, as Python and jinja2 have them.

use std::cmp::Ordering;

use crate::ast::{Comparison, Operator};
use crate::budget::Budget;
use crate::error::{Error, Result};
use crate::format;
use crate::methods;
use crate::text::Builder;
use crate::value::{Seq, SeqKind, Value};

pub(crate) fn binary(operator: Operator, left: &Value, right: &Value, budget: &mut Budget) -> Result<Value> {
    for value in [left, right] {
        if let Value::Undefined(what) = value {
            return Err(Error::failed(&**what));
        }
    }
    match (operator, left, right) {
        (Operator::Add, Value::Str(left), Value::Str(right)) => {
            budget.bytes(left.len() + right.len())?;
            let mut out = Builder::default();
            out.push(left);
            out.push(right);
            Ok(Value::Str(out.finish()))
        }
        (Operator::Add, Value::Seq(first), Value::Seq(second))
            if first.kind == second.kind && matches!(first.kind, SeqKind::List | SeqKind::Tuple) =>
        {
            budget.items(first.items.len() + second.items.len())?;
            Value::seq(first.kind, [&first.items[..], &second.items[..]].concat())
        }
        (Operator::Mul, value @ (Value::Str(_) | Value::Seq(_)), count)
        | (Operator::Mul, count, value @ (Value::Str(_) | Value::Seq(_))) => repeat(value, count, budget),
        (Operator::Mod, Value::Str(pattern), values) => format::percent(pattern, values, budget).map(Value::Str),
        _ => numbers(operator, left, right),
    }
}

fn repeat(value: &Value, count: &Value, budget: &mut Budget) -> Result<Value> {
    let count = count.as_int().ok_or_else(|| count.is_no("a number of repetitions"))?;
    let count = usize::try_from(count.max(0)).unwrap_or(usize::MAX);
    match value {
        Value::Str(text) => {
            budget.bytes(text.len().saturating_mul(count))?;
            let mut out = Builder::default();
            if text.len() > 0 {
                (0..count).for_each(|_| out.push(text));
            }
            Ok(Value::Str(out.finish()))
        }
        Value::Seq(seq) if matches!(seq.kind, SeqKind::List | SeqKind::Tuple) => {
            budget.items(seq.items.len().saturating_mul(count))?;
            let count = if seq.items.is_empty() { 0 } else { count };
            Value::seq(seq.kind, std::iter::repeat_n(&seq.items, count).flatten().cloned().collect())
        }
        other => Err(other.is_no("a text or a list")),
    }
}

fn numbers(operator: Operator, left: &Value, right: &Value) -> Result<Value> {
    let too_large = || Error::failed("a number is too large");
    let by_zero = || Error::failed("division by zero");
    if let (Some(a), Some(b), true) = (left.as_int(), right.as_int(), operator != Operator::Div) {
        let whole = match operator {
            Operator::Add => a.checked_add(b),
            Operator::Sub => a.checked_sub(b),
            Operator::Mul => a.checked_mul(b),
            Operator::FloorDiv | Operator::Mod if b == 0 => return Err(by_zero()),
            Operator::FloorDiv => a.checked_div_euclid(b).map(|quotient| {
                // Python rounds down; Euclid's remainder is never negative.
                if b < 0 && a.rem_euclid(b) != 0 { quotient - 1 } else { quotient }
            }),
            Operator::Mod => a.checked_rem_euclid(b).map(|rest| if b < 0 && rest != 0 { rest + b } else { rest }),
            Operator::Pow if b >= 0 => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
            Operator::Pow | Operator::Div => {
                #[expect(clippy::cast_precision_loss, reason = "as Python's float() rounds")]
                return Ok(Value::Float((a as f64).powf(b as f64)));
            }
        };
        return whole.map(Value::Int).ok_or_else(too_large);
    }
    let (Some(a), Some(b)) = (left.as_float(), right.as_float()) else {
        return Err(Error::failed(format!(
            "unsupported operand types: '{}' and '{}'",
            left.type_name(),
            right.type_name()
        )));
    };
    if b == 0.0 && matches!(operator, Operator::Div | Operator::FloorDiv | Operator::Mod) {
        return Err(by_zero());
    }
    Ok(Value::Float(match operator {
        Operator::Add => a + b,
        Operator::Sub => a - b,
        Operator::Mul => a * b,
        Operator::Div => a / b,
        Operator::FloorDiv => ((a - remainder(a, b)) / b).round(),
        Operator::Mod => remainder(a, b),
        Operator::Pow => a.powf(b),
    }))
}

/// What is left of a floor division: it has the divisor's sign.
fn remainder(a: f64, b: f64) -> f64 {
    let rest = a % b;
    if rest != 0.0 && (rest < 0.0) != (b < 0.0) { rest + b } else { rest.copysign(if rest == 0.0 { b } else { rest }) }
}

pub(crate) fn compare(comparison: Comparison, left: &Value, right: &Value) -> Result<bool> {
    let order = || left.compare(right);
    Ok(match comparison {
        Comparison::Eq => left.equals(right),
        Comparison::Ne => !left.equals(right),
        Comparison::Lt => order()? == Some(Ordering::Less),
        Comparison::Le => matches!(order()?, Some(Ordering::Less | Ordering::Equal)),
        Comparison::Gt => order()? == Some(Ordering::Greater),
        Comparison::Ge => matches!(order()?, Some(Ordering::Greater | Ordering::Equal)),
        Comparison::In => right.contains(left)?,
        Comparison::NotIn => !right.contains(left)?,
    })
}

/// An index of a list of `length`, counted from the end where it is negative.
fn place(index: i128, length: usize) -> Option<usize> {
    let length = i128::try_from(length).ok()?;
    usize::try_from(if index < 0 { index + length } else { index })
        .ok()
        .filter(|&place| (place as u128) < length.unsigned_abs())
}

fn is_indexed(seq: &Seq) -> bool {
    matches!(seq.kind, SeqKind::List | SeqKind::Tuple | SeqKind::Range(..))
}

/// `value[key]`.
pub(crate) fn item(value: &Value, key: &Value) -> Result<Value> {
    let found = match (value, key) {
        (Value::Undefined(what), _) => return Err(Error::failed(&**what)),
        // What cannot be a key is the key of nothing.
        (Value::Dict(dict), key) => dict.get(key).ok().flatten().cloned(),
        (Value::Seq(seq), key) if is_indexed(seq) && key.as_int().is_some() => {
            let index = key.as_int().unwrap_or_default();
            place(index, seq.items.len()).map(|place| seq.items[place].clone())
        }
        (Value::Str(text), key) if key.as_int().is_some() => {
            let index = key.as_int().unwrap_or_default();
            let whole = text.as_str();
            let at = match usize::try_from(index) {
                Ok(from_start) => whole.char_indices().nth(from_start),
                Err(_) => usize::try_from(-1 - index).ok().and_then(|from_end| whole.char_indices().nth_back(from_end)),
            };
            at.map(|(at, c)| Value::Str(text.slice(at..at + c.len_utf8())))
        }
        _ => None,
    };
    match (found, key.as_str()) {
        (Some(found), _) => Ok(found),
        (None, Some(name)) => Ok(own_attribute(value, name).unwrap_or_else(|| missing(value, name))),
        (None, None) => Ok(missing(value, crate::print::repr(key).as_str())),
    }
}

/// `value.name`.
pub(crate) fn attribute(value: &Value, name: &str) -> Result<Value> {
    if let Value::Undefined(what) = value {
        return Err(Error::failed(&**what));
    }
    if let Some(found) = own_attribute(value, name) {
        return Ok(found);
    }
    let field = match value {
        Value::Dict(dict) => dict.get_str(name).cloned(),
        _ => None,
    };
    Ok(field.unwrap_or_else(|| missing(value, name)))
}

fn own_attribute(value: &Value, name: &str) -> Option<Value> {
    match value {
        Value::Namespace(namespace) => namespace.get(name),
        // What `groupby` makes: a pair whose parts have names.
        Value::Seq(seq) if seq.kind == SeqKind::Tuple && seq.items.len() == 2 && name == "grouper" => {
            Some(seq.items[0].clone())
        }
        Value::Seq(seq) if seq.kind == SeqKind::Tuple && seq.items.len() == 2 && name == "list" => {
            Some(seq.items[1].clone())
        }
        Value::Loop(state) => state.get(name).or_else(|| methods::find(value, name)),
        _ => methods::find(value, name),
    }
}

fn missing(value: &Value, name: &str) -> Value {
    Value::undefined(format!("'{} object' has no attribute '{name}'", value.type_name()))
}

/// `value[start:end:step]`.
pub(crate) fn slice(value: &Value, bounds: [Value; 3], budget: &mut Budget) -> Result<Value> {
    let bound = |value: &Value| match value {
        Value::None => Ok(None),
        other => other.as_int().map(Some).ok_or_else(|| other.is_no("a bound of a slice")),
    };
    let [start, end, step] = [bound(&bounds[0])?, bound(&bounds[1])?, bound(&bounds[2])?];
    match value {
        Value::Str(text) if step.unwrap_or(1) == 1 => {
            let starts: Vec<usize> = text.as_str().char_indices().map(|(at, _)| at).chain([text.len()]).collect();
            budget.bytes(text.len())?;
            let (start, end, step) = indices(starts.len() - 1, start, end, 1)?;
            let places = places(start, end, step);
            let range =
                places.first().zip(places.last()).map_or(0..0, |(&first, &last)| starts[first]..starts[last + 1]);
            Ok(Value::Str(text.slice(range)))
        }
        Value::Str(text) => {
            budget.bytes(text.len())?;
            let chars: Vec<_> = text.chars().collect();
            let mut out = Builder::default();
            let (start, end, step) = indices(chars.len(), start, end, step.unwrap_or(1))?;
            for place in places(start, end, step) {
                out.push(&chars[place]);
            }
            Ok(Value::Str(out.finish()))
        }
        Value::Seq(seq) if is_indexed(seq) => {
            budget.items(seq.items.len())?;
            let (start, end, step) = indices(seq.items.len(), start, end, step.unwrap_or(1))?;
            let kind = match seq.kind {
                SeqKind::Range(first, _, by) => SeqKind::Range(first + start * by, first + end * by, by * step),
                kind => kind,
            };
            Value::seq(kind, places(start, end, step).into_iter().map(|place| seq.items[place].clone()).collect())
        }
        Value::Undefined(what) => Err(Error::failed(&**what)),
        other => Err(Error::failed(format!("'{}' object cannot be sliced", other.type_name()))),
    }
}

/// Python's `slice(start, end, step).indices(length)`.
fn indices(length: usize, start: Option<i128>, end: Option<i128>, step: i128) -> Result<(i128, i128, i128)> {
    if step == 0 {
        return Err(Error::failed("slice step cannot be zero"));
    }
    let length = i128::try_from(length).unwrap_or(i128::MAX);
    // Further than the length is the end, whatever the step.
    let step = step.clamp(-length - 1, length + 1);
    let (low, high) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let within = |bound: i128| (if bound < 0 { bound.saturating_add(length) } else { bound }).clamp(low, high);
    let start = start.map_or(if step > 0 { low } else { high }, within);
    let end = end.map_or(if step > 0 { high } else { low }, within);
    Ok((start, end, step))
}

/// The places of a slice whose indices these are.
fn places(start: i128, end: i128, step: i128) -> Vec<usize> {
    let mut places = Vec::new();
    let mut at = start;
    while if step > 0 { at < end } else { at > end } {
        places.extend(usize::try_from(at).ok());
        at += step;
    }
    places
}
