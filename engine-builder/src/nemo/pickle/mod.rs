//! Pickles, read symbolically: what a pickle would import and call stays a name and its arguments, and nothing is ever run.
//!
//! The machine knows the opcodes with which PyTorch writes checkpoints, and the names that those need. Every other opcode and every
//! other name is refused. Compound values lie in one list and refer to each other by number, so that nothing here recurses, however
//! deep a file nests. Memory is bounded by the number of opcodes.
//!
//! Source: the comments of Python's module `pickletools`.

mod bytes;
mod machine;

use std::path::Path;

use engine_format::{FormatError, Result};

/// Bytes of a pickle at most: that of a large model has a few hundred thousand.
pub const MAX_BYTES: usize = 64 << 20;

/// Opcodes of a pickle at most.
pub const MAX_OPCODES: usize = 1 << 22;

/// A value, as far as it can be held without others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    /// `None`.
    None,
    /// `True` or `False`.
    Bool(bool),
    /// An integer of at most 16 bytes.
    Int(i128),
    /// A float.
    Float(f64),
    /// A string.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
    /// The name of something that a program would import: module and name.
    Global(&'a str, &'a str),
    /// One of [`Pickle::node`].
    Node(usize),
}

/// A value that is made of others.
#[derive(Debug, Clone, PartialEq)]
pub enum Node<'a> {
    /// A tuple.
    Tuple(Vec<Value<'a>>),
    /// A list.
    List(Vec<Value<'a>>),
    /// A dictionary, or an `OrderedDict`; a key may be there twice.
    Dict(Vec<(Value<'a>, Value<'a>)>),
    /// What a program would make by calling the first with the second.
    Call(Value<'a>, Value<'a>),
    /// What a program would fetch by this name from beside the pickle.
    Persistent(Value<'a>),
}

/// What a pickle says.
#[derive(Debug)]
pub struct Pickle<'a> {
    nodes: Vec<Node<'a>>,
    root: Value<'a>,
    length: usize,
}

impl<'a> Pickle<'a> {
    /// Reads the pickle at the start of `bytes`; `path` is named in errors.
    ///
    /// # Errors
    /// An opcode or a name that is not known, by its name; whatever breaks the format or a limit.
    pub fn parse(path: &'a Path, bytes: &'a [u8]) -> Result<Self> {
        machine::run(path, bytes)
    }

    /// The value itself.
    pub fn root(&self) -> Value<'a> {
        self.root
    }

    /// Bytes that the pickle takes.
    pub fn length(&self) -> usize {
        self.length
    }

    /// What a value is made of; `None` where it is not made of others.
    pub fn node(&self, value: Value<'a>) -> Option<&Node<'a>> {
        match value {
            Value::Node(number) => self.nodes.get(number),
            _ => None,
        }
    }

    /// The elements of a tuple.
    pub fn tuple(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        match self.node(value)? {
            Node::Tuple(values) => Some(values),
            _ => None,
        }
    }

    /// The pairs of a dictionary.
    pub fn dict(&self, value: Value<'a>) -> Option<&[(Value<'a>, Value<'a>)]> {
        match self.node(value)? {
            Node::Dict(pairs) => Some(pairs),
            _ => None,
        }
    }

    /// Module and name of what would be called, and the arguments.
    pub fn call(&self, value: Value<'a>) -> Option<((&'a str, &'a str), &[Value<'a>])> {
        match *self.node(value)? {
            Node::Call(Value::Global(module, name), arguments) => Some(((module, name), self.tuple(arguments)?)),
            _ => None,
        }
    }
}

/// Names that are known, beside the classes of storages and types of elements in `torch`. None of them is ever looked up.
const GLOBALS: [(&str, &str); 7] = [
    ("collections", "OrderedDict"),
    ("torch", "Size"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_tensor_v3"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch.storage", "UntypedStorage"),
    // What Transformer Engine keeps its state in.
    ("_io", "BytesIO"),
];

/// Types of elements, as `torch` calls them.
const TYPES: [&str; 12] = [
    "bfloat16",
    "float16",
    "float32",
    "float64",
    "float8_e4m3fn",
    "float8_e5m2",
    "uint8",
    "int8",
    "int16",
    "int32",
    "int64",
    "bool",
];

/// A name as a value, if it is known.
fn global<'a>(path: &Path, module: &'a str, name: &'a str) -> Result<Value<'a>> {
    let is_storage =
        || name.strip_suffix("Storage").is_some_and(|kind| kind.chars().all(|c| c.is_ascii_alphanumeric()));
    let of_torch = module == "torch" && (TYPES.contains(&name) || is_storage());
    if of_torch || GLOBALS.contains(&(module, name)) {
        return Ok(Value::Global(module, name));
    }
    let shown = |text: &str| text.chars().take(80).collect::<String>();
    Err(FormatError::Unsupported {
        path: path.to_owned(),
        field: "a name in its pickle".to_owned(),
        value: format!("{}.{}", shown(module), shown(name)),
        supported: "tensors in dictionaries; nothing was run".to_owned(),
    })
}
