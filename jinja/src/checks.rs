//! The tests behind `is`.

use crate::arguments::Args;
use crate::ast::{Comparison, Operator};
use crate::budget::Budget;
use crate::error::{Error, Result};
use crate::value::{SeqKind, Value};
use crate::{filters, ops, print};

pub(crate) fn check(name: &str, value: &Value, args: Args) -> Result<bool> {
    let comparison = match name {
        "eq" | "equalto" | "==" => Some(Comparison::Eq),
        "ne" | "!=" => Some(Comparison::Ne),
        "lt" | "lessthan" | "<" => Some(Comparison::Lt),
        "le" | "<=" => Some(Comparison::Le),
        "gt" | "greaterthan" | ">" => Some(Comparison::Gt),
        "ge" | ">=" => Some(Comparison::Ge),
        "in" => Some(Comparison::In),
        _ => None,
    };
    if let Some(comparison) = comparison {
        let [other] = args.bind(name, ["other"])?;
        let other = other.ok_or_else(|| Error::failed(format!("the test '{name}' needs a value to compare with")))?;
        return ops::compare(comparison, value, &other);
    }
    match name {
        "divisibleby" => {
            let [by] = args.bind(name, ["num"])?;
            let rest = remainder(value, &by.unwrap_or(Value::None))?;
            return Ok(rest.equals(&Value::Int(0)));
        }
        "sameas" => {
            let [other] = args.bind(name, ["other"])?;
            let other = other.ok_or_else(|| Error::failed("the test 'sameas' needs a value to compare with"))?;
            return Ok(value.type_name() == other.type_name() && value.equals(&other));
        }
        _ => args.bind::<0>(name, [])?,
    };
    let text = || print::str(value).as_str().to_owned();
    Ok(match name {
        "defined" => !matches!(value, Value::Undefined(_)),
        "undefined" => matches!(value, Value::Undefined(_)),
        "none" => matches!(value, Value::None),
        "boolean" => matches!(value, Value::Bool(_)),
        "true" => matches!(value, Value::Bool(true)),
        "false" => matches!(value, Value::Bool(false)),
        "integer" => matches!(value, Value::Int(_)),
        "float" => matches!(value, Value::Float(_)),
        "number" => matches!(value, Value::Bool(_) | Value::Int(_) | Value::Float(_)),
        "string" => matches!(value, Value::Str(_)),
        "mapping" => matches!(value, Value::Dict(_)),
        "iterable" => {
            matches!(value, Value::Undefined(_) | Value::Str(_) | Value::Seq(_) | Value::Dict(_) | Value::Loop(_))
        }
        "sequence" => match value {
            Value::Seq(seq) => matches!(seq.kind, SeqKind::List | SeqKind::Tuple | SeqKind::Range(..)),
            other => matches!(other, Value::Undefined(_) | Value::Str(_) | Value::Dict(_)),
        },
        // Undefined has a __call__, which fails.
        "callable" => matches!(value, Value::Undefined(_) | Value::Callable(_) | Value::Loop(_)),
        "even" => remainder(value, &Value::Int(2))?.equals(&Value::Int(0)),
        "odd" => remainder(value, &Value::Int(2))?.equals(&Value::Int(1)),
        "lower" => {
            let text = text();
            text.chars().any(char::is_lowercase) && !text.chars().any(char::is_uppercase)
        }
        "upper" => {
            let text = text();
            text.chars().any(char::is_uppercase) && !text.chars().any(char::is_lowercase)
        }
        "escaped" => false,
        "filter" => value.as_str().is_some_and(|name| filters::NAMES.contains(&name)),
        "test" => value.as_str().is_some_and(is_test),
        _ => return Err(Error::failed(format!("no test named '{name}'"))),
    })
}

fn remainder(value: &Value, by: &Value) -> Result<Value> {
    ops::binary(Operator::Mod, value, by, &mut Budget::new())
}

fn is_test(name: &str) -> bool {
    let args = Args::of(vec![Value::Int(1)]);
    let outcomes = [check(name, &Value::Int(1), Args::default()), check(name, &Value::Int(1), args)];
    outcomes.iter().any(Result::is_ok)
}
