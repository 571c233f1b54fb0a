//! Statements: what a template writes, its scopes and its macros.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::arguments::Args;
use crate::ast::{Body, For, Macro, Node, Statement, Target};
use crate::budget::Budget;
use crate::error::{Error, Result};
use crate::print;
use crate::text::{Builder, Text};
use crate::value::{Callable, Dict, Loop, Value};

/// A template that runs.
pub(crate) struct Run<'a> {
    pub(crate) budget: Budget,
    pub(crate) strftime: &'a dyn Fn(&str) -> std::result::Result<String, String>,
    /// Every scope that is still needed. A macro knows its scope by place, so that no value owns a scope.
    scopes: Vec<Scope>,
    pub(crate) scope: usize,
    /// Macros made so far: a scope with a macro in it stays.
    macros: usize,
}

struct Scope {
    names: HashMap<String, Value>,
    parent: Option<usize>,
}

/// The scope of what a template sets outside loops and macros: all that a block sees.
const TOP: usize = 2;

/// How a body ended.
#[derive(PartialEq, Eq)]
enum Flow {
    On,
    Break,
    Continue,
}

impl<'a> Run<'a> {
    pub(crate) fn new(
        context: HashMap<String, Value>,
        strftime: &'a dyn Fn(&str) -> std::result::Result<String, String>,
    ) -> Self {
        let globals = ["range", "dict", "namespace", "cycler", "joiner", "raise_exception", "strftime_now"];
        let globals = globals.into_iter().map(|name| (name.to_owned(), Value::function(name))).collect();
        let globals = Scope { names: globals, parent: None };
        let context = Scope { names: context, parent: Some(0) };
        Self { budget: Budget::new(), strftime, scopes: vec![globals, context], scope: 1, macros: 0 }
    }

    pub(crate) fn template(&mut self, body: &Body) -> Result<Text> {
        let mut out = Builder::default();
        self.scoped(|run| run.body(body, &mut out).map(|_| ()))?;
        Ok(out.finish())
    }

    pub(crate) fn lookup(&self, name: &str) -> Value {
        let mut scope = Some(self.scope);
        while let Some(at) = scope {
            if let Some(value) = self.scopes[at].names.get(name) {
                return value.clone();
            }
            scope = self.scopes[at].parent;
        }
        Value::undefined(format!("'{name}' is undefined"))
    }

    fn define(&mut self, name: &str, value: Value) {
        let scope = self.scope;
        self.scopes[scope].names.insert(name.to_owned(), value);
    }

    /// Runs a step in a scope of its own, within the current one.
    fn scoped<T>(&mut self, step: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.scoped_in(self.scope, step)
    }

    fn scoped_in<T>(&mut self, parent: usize, step: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let (before, kept, macros) = (self.scope, self.scopes.len(), self.macros);
        self.scopes.push(Scope { names: HashMap::new(), parent: Some(parent) });
        self.scope = kept;
        let result = step(self);
        self.scope = before;
        if self.macros == macros {
            self.scopes.truncate(kept);
        }
        result
    }

    fn body(&mut self, body: &Body, out: &mut Builder) -> Result<Flow> {
        for node in body {
            let flow = self.statement(node, out).map_err(|error| error.at(node.line))?;
            if flow != Flow::On {
                return Ok(flow);
            }
        }
        Ok(Flow::On)
    }

    fn statement(&mut self, node: &Node, out: &mut Builder) -> Result<Flow> {
        self.budget.enter()?;
        let flow = self.statement_within(node, out);
        self.budget.leave();
        flow
    }

    fn write(&mut self, text: &Text, out: &mut Builder) -> Result<()> {
        self.budget.bytes(text.len())?;
        if out.len() + text.len() > crate::budget::LARGEST {
            return Err(Error::Budget { line: 0, problem: "makes a text of more than 64 MiB" });
        }
        out.push(text);
        Ok(())
    }

    fn statement_within(&mut self, node: &Node, out: &mut Builder) -> Result<Flow> {
        match &node.kind {
            Statement::Data(text) => {
                self.budget.bytes(text.len())?;
                out.push_str(text);
            }
            Statement::Print(value) => {
                let value = self.eval(value)?;
                self.write(&print::str(&value), out)?;
            }
            Statement::If { branches, otherwise } => {
                for (condition, body) in branches {
                    if self.eval(condition)?.is_true() {
                        return self.body(body, out);
                    }
                }
                return self.body(otherwise, out);
            }
            Statement::For(node) => {
                let items = self.eval(&node.items)?;
                return self.for_loop(node, items, 0, out);
            }
            Statement::Set { target, value } => {
                let value = self.eval(value)?;
                self.assign(target, value)?;
            }
            Statement::SetBlock { target, filters, body } => {
                let (text, flow) = self.captured(body)?;
                if flow != Flow::On {
                    return Ok(flow);
                }
                let value = self.filtered(text, filters)?;
                self.assign(target, value)?;
            }
            Statement::Filter { filters, body } => {
                let (text, flow) = self.captured(body)?;
                if flow != Flow::On {
                    return Ok(flow);
                }
                let value = self.filtered(text, filters)?;
                self.write(&print::str(&value), out)?;
            }
            Statement::Macro(definition) => {
                let value = self.closure(definition);
                self.define(&definition.name, value);
            }
            Statement::Call { call, body } => {
                let caller = self.closure(body);
                let value = self.call_with(call, Some(caller))?;
                self.write(&print::str(&value), out)?;
            }
            Statement::With { values, body } => {
                let mut given = Vec::new();
                for (target, value) in values {
                    given.push((target, self.eval(value)?));
                }
                return self.scoped(|run| {
                    for (target, value) in given {
                        run.assign(target, value)?;
                    }
                    run.body(body, out)
                });
            }
            Statement::Block(body) => return self.scoped_in(TOP, |run| run.body(body, out)),
            Statement::Generation(body) => return self.scoped(|run| run.body(body, out)),
            Statement::Break => return Ok(Flow::Break),
            Statement::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::On)
    }

    fn captured(&mut self, body: &Body) -> Result<(Value, Flow)> {
        let mut text = Builder::default();
        let flow = self.scoped(|run| run.body(body, &mut text))?;
        Ok((Value::Str(text.finish()), flow))
    }

    fn closure(&mut self, definition: &Arc<Macro>) -> Value {
        self.macros += 1;
        Value::Callable(Rc::new(Callable::Macro(Arc::clone(definition), self.scope)))
    }

    fn assign(&mut self, target: &Target, value: Value) -> Result<()> {
        match target {
            Target::Name(name) => self.define(name, value),
            Target::Attribute(name, attribute) => match self.lookup(name) {
                Value::Namespace(namespace) => namespace.set(attribute, value)?,
                _ => return Err(Error::failed("cannot assign attribute on non-namespace object")),
            },
            Target::Tuple(targets) => {
                let values = value.items()?;
                if values.len() != targets.len() {
                    let problem = format!("{} values cannot be taken apart into {}", values.len(), targets.len());
                    return Err(Error::failed(problem));
                }
                for (target, value) in targets.iter().zip(values) {
                    self.assign(target, value)?;
                }
            }
        }
        Ok(())
    }

    fn for_loop(&mut self, node: &Arc<For>, items: Value, depth: usize, out: &mut Builder) -> Result<Flow> {
        let mut items = items.items()?;
        self.budget.items(items.len())?;
        if let Some(condition) = &node.condition {
            let mut kept = Vec::new();
            for item in items {
                let keep = self.scoped(|run| {
                    run.assign(&node.target, item.clone())?;
                    run.eval(condition)
                })?;
                if keep.is_true() {
                    kept.push(item);
                }
            }
            items = kept;
        }
        let recursive = node.recursive.then(|| (Arc::clone(node), self.scope));
        let count = items.len();
        let state = Loop { items, index: Cell::new(0), depth, last_changed: RefCell::new(None), recursive };
        let state = Rc::new(state);
        // As in jinja2, `else` runs where no turn came to its end, be it for want of items or for `break` and `continue`.
        let mut completed = false;
        for index in 0..count {
            state.index.set(index);
            self.budget.step()?;
            let flow = self.scoped(|run| {
                run.define("loop", Value::Loop(Rc::clone(&state)));
                run.assign(&node.target, state.items[index].clone())?;
                run.body(&node.body, out)
            })?;
            match flow {
                Flow::On => completed = true,
                Flow::Continue => {}
                Flow::Break => break,
            }
        }
        if completed { Ok(Flow::On) } else { self.scoped(|run| run.body(&node.otherwise, out)) }
    }

    /// Runs a recursive loop's body over further items.
    pub(crate) fn recurse(&mut self, state: &Loop, items: Value) -> Result<Value> {
        let Some((node, scope)) = &state.recursive else {
            return Err(Error::failed("the loop is not recursive, so it cannot be called"));
        };
        let mut out = Builder::default();
        let before = std::mem::replace(&mut self.scope, *scope);
        let result = self.for_loop(node, items, state.depth + 1, &mut out);
        self.scope = before;
        result.map(|_| Value::Str(out.finish()))
    }

    pub(crate) fn call_macro(&mut self, called: &Arc<Macro>, scope: usize, args: Args) -> Result<Value> {
        let Args { positional, mut named } = args;
        let wrong = |problem: String| Error::failed(format!("macro '{}' {problem}", called.name));
        let mut positional = positional.into_iter();
        let mut out = Builder::default();
        self.scoped_in(scope, |run| {
            for (name, default) in &called.parameters {
                let place = named.iter().position(|(given, _)| given == name);
                let value = match (positional.next(), place) {
                    (Some(_), Some(_)) => return Err(wrong(format!("got several values for '{name}'"))),
                    (Some(value), None) => value,
                    (None, Some(place)) => named.remove(place).1,
                    (None, None) => match default {
                        Some(default) => run.eval(default)?,
                        None => Value::undefined(format!("parameter '{name}' was not provided")),
                    },
                };
                run.define(name, value);
            }
            if called.caller || named.iter().any(|(name, _)| name == "caller") {
                let place = named.iter().position(|(name, _)| name == "caller");
                if !called.caller {
                    return Err(wrong("was called with a block, but does not use it".to_owned()));
                }
                let caller = place.map(|place| named.remove(place).1);
                run.define("caller", caller.unwrap_or_else(|| Value::undefined("no caller defined")));
            }
            if called.kwargs {
                let entries = named.drain(..).map(|(name, value)| (Value::str(&name), value));
                run.define("kwargs", Dict::of(entries.collect::<Vec<_>>())?);
            } else if let Some((name, _)) = named.first() {
                return Err(wrong(format!("takes no keyword argument '{name}'")));
            }
            let rest: Vec<Value> = positional.collect();
            if called.varargs {
                run.define("varargs", Value::tuple(rest)?);
            } else if !rest.is_empty() {
                return Err(wrong(format!("takes not more than {} argument(s)", called.parameters.len())));
            }
            run.body(&called.body, &mut out).map(|_| ())
        })?;
        Ok(Value::Str(out.finish()))
    }
}
