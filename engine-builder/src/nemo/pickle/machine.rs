//! The machine: a stack of values, marks on it, and a memo.

use std::collections::HashMap;
use std::path::Path;

use engine_format::{FormatError, Result};

use super::bytes::Bytes;
use super::{MAX_BYTES, MAX_OPCODES, Node, Pickle, Value, global};

/// Protocols that are read.
const PROTOCOLS: std::ops::RangeInclusive<u8> = 2..=5;

const PROTO: u8 = 0x80;

/// Opcodes that are refused, so that an error can name them.
const REFUSED: [(u8, &str); 27] = [
    (b'0', "POP"),
    (b'1', "POP_MARK"),
    (b'2', "DUP"),
    (b'F', "FLOAT"),
    (b'I', "INT"),
    (b'L', "LONG"),
    (b'P', "PERSID"),
    (b'S', "STRING"),
    (b'T', "BINSTRING"),
    (b'U', "SHORT_BINSTRING"),
    (b'V', "UNICODE"),
    (b'd', "DICT"),
    (b'g', "GET"),
    (b'i', "INST"),
    (b'l', "LIST"),
    (b'o', "OBJ"),
    (b'p', "PUT"),
    (0x82, "EXT1"),
    (0x83, "EXT2"),
    (0x84, "EXT4"),
    (0x8b, "LONG4"),
    (0x8f, "EMPTY_SET"),
    (0x90, "ADDITEMS"),
    (0x91, "FROZENSET"),
    (0x92, "NEWOBJ_EX"),
    (0x97, "NEXT_BUFFER"),
    (0x98, "READONLY_BUFFER"),
];

struct Machine<'a> {
    bytes: Bytes<'a>,
    nodes: Vec<Node<'a>>,
    stack: Vec<Value<'a>>,
    /// Heights of the stack at marks: what is below the last one stays.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
}

/// Reads the pickle at the start of `all`.
pub(super) fn run<'a>(path: &'a Path, all: &'a [u8]) -> Result<Pickle<'a>> {
    let all = &all[..all.len().min(MAX_BYTES)];
    let bytes = Bytes::new(path, all);
    let mut machine = Machine { bytes, nodes: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: HashMap::new() };
    if machine.bytes.u8()? != PROTO {
        return Err(machine.bytes.damaged("it does not begin with its protocol"));
    }
    machine.bytes.position = 0;
    for _ in 0..MAX_OPCODES {
        if let Some(root) = machine.step()? {
            return Ok(Pickle { nodes: machine.nodes, root, length: machine.bytes.position });
        }
    }
    Err(machine.bytes.damaged(&format!("it has more than {MAX_OPCODES} opcodes")))
}

impl<'a> Machine<'a> {
    /// Does what the next opcode says; the result where that ends the pickle.
    fn step(&mut self) -> Result<Option<Value<'a>>> {
        let at = self.bytes.position;
        let value = match self.bytes.u8()? {
            PROTO => return self.protocol(),
            b'.' => return self.pop().map(Some),
            // FRAME: how much a reader may fetch at once.
            0x95 => return self.bytes.u64().map(|_| None),
            b'(' => {
                self.marks.push(self.stack.len());
                return Ok(None);
            }
            b'q' => {
                let key = self.bytes.u8()?.into();
                return self.remember(key);
            }
            b'r' => {
                let key = self.bytes.u32()?;
                return self.remember(key);
            }
            0x94 => return self.remember(self.memo.len() as u32),
            b'a' => {
                let value = self.pop()?;
                return self.append(vec![value]);
            }
            b'e' => {
                let values = self.pop_to_mark()?;
                return self.append(values);
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                return self.set(vec![key, value]);
            }
            b'u' => {
                let values = self.pop_to_mark()?;
                return self.set(values);
            }
            b'b' => return self.build(),
            b'N' => Value::None,
            0x88 => Value::Bool(true),
            0x89 => Value::Bool(false),
            b'K' => Value::Int(self.bytes.u8()?.into()),
            b'M' => Value::Int(self.bytes.u16()?.into()),
            b'J' => Value::Int(self.bytes.i32()?.into()),
            0x8a => {
                let count = self.bytes.u8()?;
                Value::Int(self.bytes.integer(count)?)
            }
            b'G' => Value::Float(self.bytes.f64()?),
            0x8c => {
                let count = self.bytes.u8()?.into();
                Value::Text(self.bytes.text(count)?)
            }
            b'X' => {
                let count = self.bytes.u32()?.into();
                Value::Text(self.bytes.text(count)?)
            }
            0x8d => {
                let count = self.bytes.u64()?;
                Value::Text(self.bytes.text(count)?)
            }
            b'C' => {
                let count = self.bytes.u8()?.into();
                Value::Bytes(self.bytes.take(count)?)
            }
            b'B' => {
                let count = self.bytes.u32()?.into();
                Value::Bytes(self.bytes.take(count)?)
            }
            // BINBYTES8, and BYTEARRAY8 of protocol 5.
            0x8e | 0x96 => {
                let count = self.bytes.u64()?;
                Value::Bytes(self.bytes.take(count)?)
            }
            b'h' => {
                let key = self.bytes.u8()?.into();
                self.recall(key)?
            }
            b'j' => {
                let key = self.bytes.u32()?;
                self.recall(key)?
            }
            b')' => self.node(Node::Tuple(Vec::new())),
            b'}' => self.node(Node::Dict(Vec::new())),
            b']' => self.node(Node::List(Vec::new())),
            b't' => {
                let values = self.pop_to_mark()?;
                self.node(Node::Tuple(values))
            }
            count @ 0x85..=0x87 => {
                let mut values = vec![Value::None; usize::from(count - 0x84)];
                for place in values.iter_mut().rev() {
                    *place = self.pop()?;
                }
                self.node(Node::Tuple(values))
            }
            b'c' => {
                let (module, name) = (self.bytes.line()?, self.bytes.line()?);
                global(self.bytes.path, module, name)?
            }
            0x93 => match (self.pop()?, self.pop()?) {
                (Value::Text(name), Value::Text(module)) => global(self.bytes.path, module, name)?,
                _ => return Err(self.bytes.damaged("a name is no string")),
            },
            b'Q' => {
                let name = self.pop()?;
                self.node(Node::Persistent(name))
            }
            // REDUCE and NEWOBJ.
            b'R' | 0x81 => self.call()?,
            other => return Err(self.refuse(at, other)),
        };
        self.stack.push(value);
        Ok(None)
    }

    fn protocol(&mut self) -> Result<Option<Value<'a>>> {
        let protocol = self.bytes.u8()?;
        if PROTOCOLS.contains(&protocol) {
            return Ok(None);
        }
        Err(FormatError::Unsupported {
            path: self.bytes.path.to_owned(),
            field: "protocol of its pickle".to_owned(),
            value: protocol.to_string(),
            supported: format!("{} to {}", PROTOCOLS.start(), PROTOCOLS.end()),
        })
    }

    fn refuse(&self, at: usize, opcode: u8) -> FormatError {
        let name = REFUSED.iter().find(|(known, _)| *known == opcode).map(|(_, name)| (*name).to_owned());
        FormatError::Unsupported {
            path: self.bytes.path.to_owned(),
            field: "an opcode of its pickle".to_owned(),
            value: format!("{} at byte {at}", name.unwrap_or_else(|| format!("{opcode:#04x}"))),
            supported: "those that PyTorch writes tensors with; nothing was run".to_owned(),
        }
    }

    fn node(&mut self, node: Node<'a>) -> Value<'a> {
        self.nodes.push(node);
        Value::Node(self.nodes.len() - 1)
    }

    /// The value on top, above the last mark.
    fn top(&self) -> Result<Value<'a>> {
        let floor = self.marks.last().copied().unwrap_or(0);
        self.stack[floor..].last().copied().ok_or_else(|| self.bytes.damaged("its stack is empty"))
    }

    fn pop(&mut self) -> Result<Value<'a>> {
        let value = self.top()?;
        self.stack.pop();
        Ok(value)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Value<'a>>> {
        let mark = self.marks.pop().ok_or_else(|| self.bytes.damaged("its stack has no mark"))?;
        Ok(self.stack.split_off(mark))
    }

    fn remember(&mut self, key: u32) -> Result<Option<Value<'a>>> {
        self.memo.insert(key, self.top()?);
        Ok(None)
    }

    fn recall(&self, key: u32) -> Result<Value<'a>> {
        self.memo.get(&key).copied().ok_or_else(|| self.bytes.damaged("it refers to a value that is not there"))
    }

    /// The node of the value on top, which may be changed.
    fn top_node(&mut self) -> Result<&mut Node<'a>> {
        let (top, missing) = (self.top()?, self.bytes.damaged("a value is put into one that holds none"));
        match top {
            Value::Node(number) => self.nodes.get_mut(number).ok_or(missing),
            _ => Err(missing),
        }
    }

    fn append(&mut self, values: Vec<Value<'a>>) -> Result<Option<Value<'a>>> {
        let error = self.bytes.damaged("values are appended to what is no list");
        match self.top_node()? {
            Node::List(list) => list.extend(values),
            _ => return Err(error),
        }
        Ok(None)
    }

    fn set(&mut self, values: Vec<Value<'a>>) -> Result<Option<Value<'a>>> {
        let error = self.bytes.damaged("pairs are put into what is no dictionary");
        let (pairs, []) = values.as_chunks::<2>() else {
            return Err(self.bytes.damaged("a key has no value"));
        };
        match self.top_node()? {
            Node::Dict(dict) => dict.extend(pairs.iter().map(|&[key, value]| (key, value))),
            _ => return Err(error),
        }
        Ok(None)
    }

    /// A call as a value; an `OrderedDict` without content is a dictionary.
    fn call(&mut self) -> Result<Value<'a>> {
        let (arguments, callee) = (self.pop()?, self.pop()?);
        let is_empty = |value| matches!(value, Value::Node(number) if self.nodes[number] == Node::Tuple(Vec::new()));
        match callee {
            Value::Global("collections", "OrderedDict") if is_empty(arguments) => Ok(self.node(Node::Dict(Vec::new()))),
            Value::Global(..) => Ok(self.node(Node::Call(callee, arguments))),
            _ => Err(self.bytes.damaged("what it calls has no name")),
        }
    }

    /// BUILD gives an object attributes. Those of a dictionary, as PyTorch's `_metadata`, say nothing about tensors.
    fn build(&mut self) -> Result<Option<Value<'a>>> {
        self.pop()?;
        let error = self.bytes.damaged("attributes are given to what is no dictionary");
        match self.top_node()? {
            Node::Dict(_) => Ok(None),
            _ => Err(error),
        }
    }
}
