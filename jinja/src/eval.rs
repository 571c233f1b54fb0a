//! Expressions.

use std::rc::Rc;

use crate::arguments::Args;
use crate::ast::{Arguments, Expr, Filter};
use crate::error::{Error, Result};
use crate::run::Run;
use crate::text::Builder;
use crate::value::{Callable, Dict, Namespace, SeqKind, Value};
use crate::{checks, filters, methods, ops, print};

/// Items of a `range` at most, as in jinja2's sandbox.
const MAX_RANGE: i128 = 100_000;

impl Run<'_> {
    pub(crate) fn eval(&mut self, expr: &Expr) -> Result<Value> {
        self.budget.enter()?;
        let value = self.eval_within(expr);
        self.budget.leave();
        value
    }

    fn all(&mut self, exprs: &[Expr]) -> Result<Vec<Value>> {
        exprs.iter().map(|expr| self.eval(expr)).collect()
    }

    fn eval_within(&mut self, expr: &Expr) -> Result<Value> {
        Ok(match expr {
            Expr::None => Value::None,
            Expr::Bool(value) => Value::Bool(*value),
            Expr::Int(number) => Value::Int(*number),
            Expr::Float(number) => Value::Float(*number),
            Expr::Str(text) => {
                self.budget.bytes(text.len())?;
                Value::str(text)
            }
            Expr::Name(name) => self.lookup(name),
            Expr::List(items) => Value::list(self.all(items)?)?,
            Expr::Tuple(items) => Value::tuple(self.all(items)?)?,
            Expr::Dict(entries) => {
                let entries = entries.iter().map(|(key, value)| Ok((self.eval(key)?, self.eval(value)?)));
                let entries = entries.collect::<Result<Vec<_>>>()?;
                Dict::of(entries)?
            }
            Expr::Attribute(value, name) => ops::attribute(&self.eval(value)?, name)?,
            Expr::Item(value, key) => ops::item(&self.eval(value)?, &self.eval(key)?)?,
            Expr::Slice(value, bounds) => {
                let value = self.eval(value)?;
                let [start, end, step] = bounds.each_ref().map(|bound| match bound {
                    Some(bound) => self.eval(bound),
                    None => Ok(Value::None),
                });
                ops::slice(&value, [start?, end?, step?], &mut self.budget)?
            }
            Expr::Call(..) => self.call_with(expr, None)?,
            Expr::Filter(value, filter) => {
                let value = self.eval(value)?;
                self.filtered(value, std::slice::from_ref(filter))?
            }
            Expr::Test { value, name, arguments, negated } => {
                let value = self.eval(value)?;
                let args = self.arguments(arguments)?;
                Value::Bool(checks::check(name, &value, args)? != *negated)
            }
            Expr::Not(value) => Value::Bool(!self.eval(value)?.is_true()),
            Expr::Neg(value) => match self.eval(value)? {
                Value::Float(number) => Value::Float(-number),
                other => Value::Int(-other.as_int().ok_or_else(|| other.is_no("a number"))?),
            },
            Expr::Pos(value) => match self.eval(value)? {
                Value::Float(number) => Value::Float(number),
                other => Value::Int(other.as_int().ok_or_else(|| other.is_no("a number"))?),
            },
            Expr::And(left, right) => {
                let left = self.eval(left)?;
                if left.is_true() { self.eval(right)? } else { left }
            }
            Expr::Or(left, right) => {
                let left = self.eval(left)?;
                if left.is_true() { left } else { self.eval(right)? }
            }
            Expr::Concat(parts) => {
                let mut out = Builder::default();
                for part in parts {
                    let text = print::str(&self.eval(part)?);
                    self.budget.bytes(out.len() + text.len())?;
                    out.push(&text);
                }
                Value::Str(out.finish())
            }
            Expr::Binary(operator, left, right) => {
                let (left, right) = (self.eval(left)?, self.eval(right)?);
                ops::binary(*operator, &left, &right, &mut self.budget)?
            }
            Expr::Compare(first, rest) => {
                let mut left = self.eval(first)?;
                for (comparison, right) in rest {
                    let right = self.eval(right)?;
                    if !ops::compare(*comparison, &left, &right)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Value::Bool(true)
            }
            Expr::If { condition, then, otherwise } => match (self.eval(condition)?.is_true(), otherwise) {
                (true, _) => self.eval(then)?,
                (false, Some(otherwise)) => self.eval(otherwise)?,
                (false, None) => Value::undefined("the inline if-expression was false and has no else"),
            },
        })
    }

    pub(crate) fn arguments(&mut self, arguments: &Arguments) -> Result<Args> {
        let mut args = Args::of(self.all(&arguments.positional)?);
        for (name, value) in &arguments.named {
            args.named.push((name.clone(), self.eval(value)?));
        }
        if let Some(list) = &arguments.list {
            args.positional.extend(self.eval(list)?.items()?);
        }
        if let Some(dict) = &arguments.dict {
            let Value::Dict(dict) = self.eval(dict)? else {
                return Err(Error::failed("argument after ** must be a mapping"));
            };
            for (name, value) in &dict.entries {
                let name = name.as_str().ok_or_else(|| name.is_no("a keyword"))?;
                args.named.push((name.to_owned(), value.clone()));
            }
        }
        Ok(args)
    }

    pub(crate) fn filtered(&mut self, mut value: Value, list: &[Filter]) -> Result<Value> {
        for filter in list {
            let args = self.arguments(&filter.arguments)?;
            value = filters::filter(self, &filter.name, value, args)?;
        }
        Ok(value)
    }

    /// A call, with the block that a `call` tag gives it.
    pub(crate) fn call_with(&mut self, call: &Expr, caller: Option<Value>) -> Result<Value> {
        let Expr::Call(called, arguments) = call else {
            return Err(Error::failed("expected a call"));
        };
        let called = self.eval(called)?;
        let mut args = self.arguments(arguments)?;
        args.named.extend(caller.map(|caller| ("caller".to_owned(), caller)));
        self.call(&called, args)
    }

    fn call(&mut self, called: &Value, args: Args) -> Result<Value> {
        match called {
            Value::Undefined(what) => Err(Error::failed(&**what)),
            Value::Loop(state) => {
                let [items] = args.bind("loop", ["iterable"])?;
                self.recurse(state, items.unwrap_or(Value::None))
            }
            Value::Callable(callable) => match &**callable {
                Callable::Function(name) => self.function(name, args),
                Callable::Method(value, name) => methods::call(self, value, name, args),
                Callable::Macro(called, scope) => self.call_macro(called, *scope, args),
                Callable::Cycler { items, at } => {
                    args.bind::<0>("next", [])?;
                    let item = items[at.get() % items.len()].clone();
                    at.set(at.get() + 1);
                    Ok(item)
                }
                Callable::Joiner { separator, used } => {
                    args.bind::<0>("joiner", [])?;
                    Ok(if used.replace(true) { separator.clone() } else { Value::str("") })
                }
            },
            other => Err(Error::failed(format!("'{}' object is not callable", other.type_name()))),
        }
    }

    fn function(&mut self, name: &str, args: Args) -> Result<Value> {
        match name {
            "range" => self.range(args),
            "dict" => Dict::of(entries(args)?),
            "namespace" => {
                let namespace = Namespace::default();
                for (name, value) in entries(args)? {
                    namespace.set(name.as_str().ok_or_else(|| name.is_no("a name"))?, value)?;
                }
                Ok(Value::Namespace(Rc::new(namespace)))
            }
            "cycler" if args.positional.is_empty() => Err(Error::failed("at least one item has to be provided")),
            "cycler" => Ok(Value::Callable(Rc::new(Callable::Cycler { items: args.positional, at: 0.into() }))),
            "joiner" => {
                let [separator] = args.bind(name, ["sep"])?;
                let separator = separator.unwrap_or_else(|| Value::str(", "));
                Ok(Value::Callable(Rc::new(Callable::Joiner { separator, used: false.into() })))
            }
            "raise_exception" => {
                let [message] = args.bind(name, ["message"])?;
                let message = message.ok_or_else(|| Error::failed("raise_exception needs a message"))?;
                Err(Error::Raised { message: print::str(&message).as_str().to_owned() })
            }
            "strftime_now" => {
                let [format] = args.bind(name, ["format"])?;
                let format = format.unwrap_or(Value::None);
                let format = format.as_str().ok_or_else(|| format.is_no("a date's format"))?;
                (self.strftime)(format).map(|date| Value::str(&date)).map_err(Error::failed)
            }
            other => Err(Error::failed(format!("'{other}' is undefined"))),
        }
    }

    fn range(&mut self, args: Args) -> Result<Value> {
        let bounds = args.bind("range", ["start", "stop", "step"])?;
        let bounds = bounds.into_iter().flatten().map(|value| value.as_int().ok_or_else(|| value.is_no("an integer")));
        let (start, end, step) = match bounds.collect::<Result<Vec<_>>>()?[..] {
            [end] => (0, end, 1),
            [start, end] => (start, end, 1),
            [start, end, step] if step != 0 => (start, end, step),
            _ => return Err(Error::failed("range needs one to three integers, and a step that is not zero")),
        };
        let distance = if step > 0 { end.saturating_sub(start) } else { start.saturating_sub(end) };
        let count = (distance.max(0) - 1).div_euclid(step.saturating_abs()) + 1;
        if count > MAX_RANGE {
            return Err(Error::failed(format!("range too big: at most {MAX_RANGE} items")));
        }
        self.budget.items(usize::try_from(count).unwrap_or(0))?;
        let items = (0..count).map(|index| Value::Int(start + index * step)).collect();
        Value::seq(SeqKind::Range(start, end, step), items)
    }
}

/// The arguments of Python's `dict`.
fn entries(args: Args) -> Result<Vec<(Value, Value)>> {
    let mut entries = Vec::new();
    for value in args.positional {
        match &value {
            Value::Dict(dict) => entries.extend(dict.entries.iter().cloned()),
            other => {
                for pair in other.items()? {
                    match &pair.items()?[..] {
                        [key, value] => entries.push((key.clone(), value.clone())),
                        _ => return Err(Error::failed("a dictionary is made of pairs")),
                    }
                }
            }
        }
    }
    entries.extend(args.named.into_iter().map(|(name, value)| (Value::str(&name), value)));
    Ok(entries)
}
