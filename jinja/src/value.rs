//! Values of a running template: Python's, as far as templates know them. They do not change, but for namespaces and loops,
//! as in the sandbox that chat templates are written for.

use std::cell::{Cell, RefCell};
use std::cmp::Ordering;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::ast::{For, Macro};
use crate::error::{Error, Result};
use crate::text::Text;

/// Lists within lists; what prints, compares and frees them calls itself.
const DEEPEST: usize = 300;

/// A namespace may hold other values but no namespace, so that nothing holds itself.
const NAMESPACE_DEPTH: usize = DEEPEST / 2;

/// A value.
#[derive(Clone)]
pub(crate) enum Value {
    /// A name or field that is not there, with what a failure says of it.
    Undefined(Rc<str>),
    /// Python's None.
    None,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i128),
    /// A floating-point number.
    Float(f64),
    /// A text.
    Str(Text),
    /// A list, or what is read like one.
    Seq(Rc<Seq>),
    /// A dictionary, in the order of insertion.
    Dict(Rc<Dict>),
    /// What `namespace()` makes.
    Namespace(Rc<Namespace>),
    /// `loop`.
    Loop(Rc<Loop>),
    /// What can be called.
    Callable(Rc<Callable>),
}

/// Items in order.
pub(crate) struct Seq {
    pub(crate) items: Vec<Value>,
    pub(crate) kind: SeqKind,
    /// Items that were read already, of a generator: it is read once.
    read: Cell<usize>,
    depth: usize,
}

/// Which of Python's types a sequence is of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum SeqKind {
    List,
    Tuple,
    /// `range`: first, end, step.
    Range(i128, i128, i128),
    Keys,
    Values,
    Items,
    /// What filters that work item by item make.
    Generator,
}

/// Values by keys.
pub(crate) struct Dict {
    pub(crate) entries: Vec<(Value, Value)>,
    places: HashMap<Key, usize>,
    depth: usize,
}

/// A value that can be a key. Numbers that are equal are one key.
#[derive(PartialEq, Eq, Hash)]
pub(crate) enum Key {
    Undefined,
    None,
    Int(i128),
    Float(u64),
    Str(Rc<str>),
    Tuple(Vec<Key>),
}

/// Attributes that can be set.
#[derive(Default)]
pub(crate) struct Namespace {
    pub(crate) attributes: RefCell<Vec<(String, Value)>>,
}

/// A running loop.
pub(crate) struct Loop {
    pub(crate) items: Vec<Value>,
    pub(crate) index: Cell<usize>,
    pub(crate) depth: usize,
    pub(crate) last_changed: RefCell<Option<Vec<Value>>>,
    /// A recursive loop's body, and the scope it is in.
    pub(crate) recursive: Option<(Arc<For>, usize)>,
}

/// What can be called.
pub(crate) enum Callable {
    Function(&'static str),
    Method(Value, &'static str),
    Macro(Arc<Macro>, usize),
    Cycler { items: Vec<Value>, at: Cell<usize> },
    Joiner { separator: Value, used: Cell<bool> },
}

impl Value {
    pub(crate) fn undefined(what: impl Into<Rc<str>>) -> Self {
        Self::Undefined(what.into())
    }

    pub(crate) fn str(text: &str) -> Self {
        Self::Str(Text::own(text))
    }

    pub(crate) fn seq(kind: SeqKind, items: Vec<Value>) -> Result<Self> {
        let depth = 1 + items.iter().map(Self::depth).max().unwrap_or(0);
        if depth > DEEPEST {
            return Err(Error::Budget { line: 0, problem: "puts lists into each other too deeply" });
        }
        Ok(Self::Seq(Rc::new(Seq { items, kind, read: Cell::new(0), depth })))
    }

    pub(crate) fn list(items: Vec<Value>) -> Result<Self> {
        Self::seq(SeqKind::List, items)
    }

    pub(crate) fn tuple(items: Vec<Value>) -> Result<Self> {
        Self::seq(SeqKind::Tuple, items)
    }

    pub(crate) fn function(name: &'static str) -> Self {
        Self::Callable(Rc::new(Callable::Function(name)))
    }

    pub(crate) fn depth(&self) -> usize {
        match self {
            Self::Seq(seq) => seq.depth,
            Self::Dict(dict) => dict.depth,
            Self::Namespace(_) => NAMESPACE_DEPTH,
            Self::Callable(callable) => match &**callable {
                Callable::Method(value, _) => 1 + value.depth(),
                Callable::Cycler { items, .. } => 1 + items.iter().map(Self::depth).max().unwrap_or(0),
                Callable::Joiner { separator, .. } => 1 + separator.depth(),
                Callable::Function(_) | Callable::Macro(..) => 0,
            },
            Self::Loop(state) => NAMESPACE_DEPTH.max(1 + state.items.iter().map(Self::depth).max().unwrap_or(0)),
            _ => 0,
        }
    }

    /// The type's name in messages.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Undefined(_) => "Undefined",
            Self::None => "NoneType",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float",
            Self::Str(_) => "str",
            Self::Seq(seq) => match seq.kind {
                SeqKind::List => "list",
                SeqKind::Tuple => "tuple",
                SeqKind::Range(..) => "range",
                SeqKind::Keys => "dict_keys",
                SeqKind::Values => "dict_values",
                SeqKind::Items => "dict_items",
                SeqKind::Generator => "generator",
            },
            Self::Dict(_) => "dict",
            Self::Namespace(_) => "Namespace",
            Self::Loop(_) => "LoopContext",
            Self::Callable(_) => "function",
        }
    }

    pub(crate) fn is_true(&self) -> bool {
        match self {
            Self::Undefined(_) | Self::None => false,
            Self::Bool(value) => *value,
            Self::Int(number) => *number != 0,
            Self::Float(number) => *number != 0.0,
            Self::Str(text) => text.len() > 0,
            Self::Seq(seq) => seq.kind == SeqKind::Generator || !seq.items.is_empty(),
            Self::Dict(dict) => !dict.entries.is_empty(),
            Self::Namespace(_) | Self::Loop(_) | Self::Callable(_) => true,
        }
    }

    pub(crate) fn as_text(&self) -> Option<&Text> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    pub(crate) fn as_str(&self) -> Option<&str> {
        self.as_text().map(Text::as_str)
    }

    /// An integer, as Python takes one where it wants an index.
    pub(crate) fn as_int(&self) -> Option<i128> {
        match self {
            Self::Bool(value) => Some(i128::from(*value)),
            Self::Int(number) => Some(*number),
            _ => None,
        }
    }

    pub(crate) fn as_float(&self) -> Option<f64> {
        match self {
            Self::Float(number) => Some(*number),
            #[expect(clippy::cast_precision_loss, reason = "as Python's float() rounds")]
            other => other.as_int().map(|number| number as f64),
        }
    }

    /// An error that says what the value is not.
    pub(crate) fn is_no(&self, wanted: &str) -> Error {
        match self {
            Self::Undefined(what) => Error::failed(&**what),
            other => Error::failed(format!("a value of type {} is not {wanted}", other.type_name())),
        }
    }

    /// The items that a loop sees.
    pub(crate) fn items(&self) -> Result<Vec<Value>> {
        match self {
            Self::Undefined(_) => Ok(Vec::new()),
            Self::Str(text) => Ok(text.chars().map(Self::Str).collect()),
            Self::Seq(seq) if seq.kind == SeqKind::Generator => {
                Ok(seq.items[seq.read.replace(seq.items.len())..].to_vec())
            }
            Self::Seq(seq) => Ok(seq.items.clone()),
            Self::Dict(dict) => Ok(dict.entries.iter().map(|(key, _)| key.clone()).collect()),
            Self::Loop(state) => Ok(state.items[state.index.get() + 1..].to_vec()),
            other => Err(Error::failed(format!("'{}' object is not iterable", other.type_name()))),
        }
    }

    /// The first of the items that a loop sees; a generator's others stay.
    pub(crate) fn first(&self) -> Result<Option<Self>> {
        match self {
            Self::Seq(seq) if seq.kind == SeqKind::Generator => {
                let first = seq.items.get(seq.read.get()).cloned();
                seq.read.set((seq.read.get() + 1).min(seq.items.len()));
                Ok(first)
            }
            other => Ok(other.items()?.into_iter().next()),
        }
    }

    /// Python's `len`.
    pub(crate) fn length(&self) -> Result<usize> {
        match self {
            Self::Undefined(_) => Ok(0),
            Self::Str(text) => Ok(text.as_str().chars().count()),
            Self::Seq(seq) if seq.kind != SeqKind::Generator => Ok(seq.items.len()),
            Self::Dict(dict) => Ok(dict.entries.len()),
            Self::Loop(state) => Ok(state.items.len()),
            other => Err(Error::failed(format!("object of type '{}' has no len()", other.type_name()))),
        }
    }

    /// Python's `==`.
    pub(crate) fn equals(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Undefined(_), Self::Undefined(_)) | (Self::None, Self::None) => true,
            (Self::Str(left), Self::Str(right)) => left.as_str() == right.as_str(),
            (Self::Seq(left), Self::Seq(right)) => {
                let same_kind = match (left.kind, right.kind) {
                    (SeqKind::Range(..), SeqKind::Range(..)) => true,
                    (SeqKind::Generator, _) => return Rc::ptr_eq(left, right),
                    (left, right) => left == right,
                };
                same_kind
                    && left.items.len() == right.items.len()
                    && left.items.iter().zip(&right.items).all(|(left, right)| left.equals(right))
            }
            (Self::Dict(left), Self::Dict(right)) => {
                left.entries.len() == right.entries.len()
                    && left
                        .entries
                        .iter()
                        .all(|(key, value)| right.get(key).ok().flatten().is_some_and(|other| value.equals(other)))
            }
            (Self::Namespace(left), Self::Namespace(right)) => Rc::ptr_eq(left, right),
            (Self::Callable(left), Self::Callable(right)) => Rc::ptr_eq(left, right),
            _ => matches!(self.compare_numbers(other), Some(Some(Ordering::Equal))),
        }
    }

    /// Two numbers in order; the outer `None` where one is no number, the inner where one is NaN.
    fn compare_numbers(&self, other: &Self) -> Option<Option<Ordering>> {
        if let (Some(left), Some(right)) = (self.as_int(), other.as_int()) {
            return Some(Some(left.cmp(&right)));
        }
        Some(self.as_float()?.partial_cmp(&other.as_float()?))
    }

    /// Python's order; `None` where NaN is in the way.
    pub(crate) fn compare(&self, other: &Self) -> Result<Option<Ordering>> {
        if let Some(order) = self.compare_numbers(other) {
            return Ok(order);
        }
        match (self, other) {
            (Self::Str(left), Self::Str(right)) => Ok(Some(left.as_str().cmp(right.as_str()))),
            (Self::Seq(left), Self::Seq(right))
                if left.kind == right.kind && matches!(left.kind, SeqKind::List | SeqKind::Tuple) =>
            {
                for (left, right) in left.items.iter().zip(&right.items) {
                    if !left.equals(right) {
                        return left.compare(right);
                    }
                }
                Ok(Some(left.items.len().cmp(&right.items.len())))
            }
            (Self::Undefined(what), _) | (_, Self::Undefined(what)) => Err(Error::failed(&**what)),
            _ => Err(Error::failed(format!(
                "values of types '{}' and '{}' have no order",
                self.type_name(),
                other.type_name()
            ))),
        }
    }

    /// Python's `needle in self`.
    pub(crate) fn contains(&self, needle: &Self) -> Result<bool> {
        match (self, needle) {
            (Self::Str(text), Self::Str(needle)) => Ok(text.as_str().contains(needle.as_str())),
            (Self::Str(_), other) => {
                Err(Error::failed(format!("'in <string>' requires string as left operand, not {}", other.type_name())))
            }
            (Self::Dict(dict), key) => Ok(dict.get(key)?.is_some()),
            (Self::Namespace(_), _) => Err(Error::failed("argument of type 'Namespace' is not iterable")),
            _ => Ok(self.items()?.iter().any(|item| item.equals(needle))),
        }
    }

    /// What the value is as a key.
    pub(crate) fn key(&self) -> Result<Key> {
        Ok(match self {
            Self::None => Key::None,
            Self::Bool(value) => Key::Int(i128::from(*value)),
            Self::Int(number) => Key::Int(*number),
            #[expect(clippy::cast_possible_truncation, reason = "the number is whole and small")]
            Self::Float(number) if number.fract() == 0.0 && number.abs() < 1e30 => Key::Int(*number as i128),
            Self::Float(number) => Key::Float(number.to_bits()),
            Self::Str(text) => Key::Str(text.as_str().into()),
            Self::Seq(seq) if seq.kind == SeqKind::Tuple => {
                Key::Tuple(seq.items.iter().map(Self::key).collect::<Result<_>>()?)
            }
            Self::Undefined(_) => Key::Undefined,
            other => return Err(Error::failed(format!("unhashable type: '{}'", other.type_name()))),
        })
    }
}

impl Dict {
    /// A dictionary of keys and values; a later value of a key takes the place of an earlier one.
    pub(crate) fn of(entries: impl IntoIterator<Item = (Value, Value)>) -> Result<Value> {
        let mut dict = Self { entries: Vec::new(), places: HashMap::new(), depth: 1 };
        for (key, value) in entries {
            dict.depth = dict.depth.max(1 + value.depth()).max(1 + key.depth());
            match dict.places.entry(key.key()?) {
                std::collections::hash_map::Entry::Occupied(place) => dict.entries[*place.get()].1 = value,
                std::collections::hash_map::Entry::Vacant(place) => {
                    place.insert(dict.entries.len());
                    dict.entries.push((key, value));
                }
            }
        }
        if dict.depth > DEEPEST {
            return Err(Error::Budget { line: 0, problem: "puts lists into each other too deeply" });
        }
        Ok(Value::Dict(Rc::new(dict)))
    }

    pub(crate) fn get(&self, key: &Value) -> Result<Option<&Value>> {
        Ok(self.places.get(&key.key()?).map(|&place| &self.entries[place].1))
    }

    pub(crate) fn get_str(&self, key: &str) -> Option<&Value> {
        self.get(&Value::str(key)).ok().flatten()
    }
}

impl Namespace {
    pub(crate) fn get(&self, name: &str) -> Option<Value> {
        let attributes = self.attributes.borrow();
        attributes.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone())
    }

    pub(crate) fn set(&self, name: &str, value: Value) -> Result<()> {
        if name.starts_with('_') {
            return Err(Error::failed(format!("a namespace cannot have an attribute {name}, which begins with `_`")));
        }
        if value.depth() >= NAMESPACE_DEPTH {
            let problem = "puts a namespace into a namespace, or lists into each other too deeply";
            return Err(Error::Budget { line: 0, problem });
        }
        let mut attributes = self.attributes.borrow_mut();
        match attributes.iter_mut().find(|(known, _)| known == name) {
            Some((_, place)) => *place = value,
            None => attributes.push((name.to_owned(), value)),
        }
        Ok(())
    }
}

impl Loop {
    /// The loop's fields.
    pub(crate) fn get(&self, name: &str) -> Option<Value> {
        let (index, length) = (self.index.get(), self.items.len());
        let int = |number: usize| i128::try_from(number).ok().map(Value::Int);
        match name {
            "index" => int(index + 1),
            "index0" => int(index),
            "revindex" => int(length - index),
            "revindex0" => int(length - index - 1),
            "first" => Some(Value::Bool(index == 0)),
            "last" => Some(Value::Bool(index + 1 == length)),
            "length" => int(length),
            "depth" => int(self.depth + 1),
            "depth0" => int(self.depth),
            "previtem" => Some(match index.checked_sub(1) {
                Some(before) => self.items[before].clone(),
                None => Value::undefined("there is no previous item"),
            }),
            "nextitem" => {
                let next = self.items.get(index + 1).cloned();
                Some(next.unwrap_or_else(|| Value::undefined("there is no next item")))
            }
            _ => None,
        }
    }
}
