//! Methods of Python's texts, lists and dictionaries. Those that would change a value are not there, as in jinja2's
//! immutable sandbox.

use std::rc::Rc;

use crate::arguments::Args;
use crate::error::{Error, Result};
use crate::run::Run;
use crate::value::{Callable, Dict, SeqKind, Value};
use crate::{strings, value};

const OF_STR: [&str; 41] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "isupper",
    "istitle",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
];
const OF_STR_TOO: [&str; 3] = ["title", "upper", "zfill"];
const OF_DICT: [&str; 5] = ["copy", "get", "items", "keys", "values"];
const OF_SEQ: [&str; 3] = ["copy", "count", "index"];
const OF_LOOP: [&str; 2] = ["changed", "cycle"];

/// The method of this name, bound to the value.
pub(crate) fn find(value: &Value, name: &str) -> Option<Value> {
    let names: &[&'static str] = match value {
        Value::Str(_) if OF_STR_TOO.contains(&name) => &OF_STR_TOO,
        Value::Str(_) => &OF_STR,
        Value::Dict(_) => &OF_DICT,
        Value::Seq(seq) => match seq.kind {
            SeqKind::List => &OF_SEQ,
            SeqKind::Tuple | SeqKind::Range(..) => &OF_SEQ[1..],
            _ => &[],
        },
        Value::Loop(_) => &OF_LOOP,
        Value::Callable(callable) => match &**callable {
            Callable::Cycler { items, at } if name == "current" => return Some(items[at.get() % items.len()].clone()),
            Callable::Cycler { .. } if name == "next" => return Some(value.clone()),
            Callable::Cycler { .. } => &["reset"],
            Callable::Macro(called, _) if name == "name" => return Some(Value::str(&called.name)),
            _ => &[],
        },
        _ => &[],
    };
    let name = names.iter().find(|known| **known == name)?;
    Some(Value::Callable(Rc::new(Callable::Method(value.clone(), name))))
}

pub(crate) fn call(run: &mut Run<'_>, value: &Value, name: &str, args: Args) -> Result<Value> {
    match value {
        Value::Str(text) => strings::call(run, text, name, args),
        Value::Dict(dict) => of_dict(dict, value, name, args),
        Value::Seq(seq) => of_seq(seq, value, name, args),
        Value::Loop(state) => of_loop(state, name, args),
        Value::Callable(callable) => match &**callable {
            Callable::Cycler { at, .. } => {
                at.set(0);
                Ok(Value::None)
            }
            _ => Err(value.is_no("what has methods")),
        },
        other => Err(other.is_no("what has methods")),
    }
}

fn of_dict(dict: &Dict, whole: &Value, name: &str, args: Args) -> Result<Value> {
    if name == "get" {
        let [key, default] = args.bind(name, ["key", "default"])?;
        let key = key.ok_or_else(|| Error::failed("get needs a key"))?;
        return Ok(dict.get(&key)?.cloned().or(default).unwrap_or(Value::None));
    }
    args.bind::<0>(name, [])?;
    let entries = dict.entries.iter();
    match name {
        "keys" => Value::seq(SeqKind::Keys, entries.map(|(key, _)| key.clone()).collect()),
        "values" => Value::seq(SeqKind::Values, entries.map(|(_, value)| value.clone()).collect()),
        "items" => {
            let pairs = entries.map(|(key, value)| Value::tuple(vec![key.clone(), value.clone()]));
            Value::seq(SeqKind::Items, pairs.collect::<Result<_>>()?)
        }
        _ => Ok(whole.clone()),
    }
}

fn of_seq(seq: &value::Seq, whole: &Value, name: &str, args: Args) -> Result<Value> {
    if name == "copy" {
        args.bind::<0>(name, [])?;
        return Ok(whole.clone());
    }
    let [needle, start, end] = args.bind(name, ["value", "start", "stop"])?;
    let needle = needle.ok_or_else(|| Error::failed(format!("{name} needs a value")))?;
    let int = |number: usize| i128::try_from(number).map(Value::Int).map_err(|_| Error::failed("too many items"));
    if name == "count" {
        return int(seq.items.iter().filter(|item| item.equals(&needle)).count());
    }
    let (start, end) = strings::bounds(start, end, seq.items.len())?;
    let found = (start..end).find(|&place| seq.items[place].equals(&needle));
    int(found.ok_or_else(|| Error::failed(format!("the value is not in the {}", whole.type_name())))?)
}

fn of_loop(state: &value::Loop, name: &str, args: Args) -> Result<Value> {
    if name == "cycle" {
        let count = args.positional.len();
        let item = args.positional.into_iter().nth(state.index.get() % count.max(1));
        return item.ok_or_else(|| Error::failed("no items for cycling given"));
    }
    let mut last = state.last_changed.borrow_mut();
    let same = last.as_ref().is_some_and(|last| {
        last.len() == args.positional.len() && last.iter().zip(&args.positional).all(|(left, right)| left.equals(right))
    });
    if !same {
        *last = Some(args.positional);
    }
    Ok(Value::Bool(!same))
}
