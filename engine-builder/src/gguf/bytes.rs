//! Reading numbers and strings, with limits on what a file may ask for.

use engine_format::{FormatError, Result};
use serde_json::{Number, Value};
use std::path::Path;

/// Bytes of a string at most: chat templates are the longest.
const MAX_STRING_BYTES: u64 = 16 << 20;

/// Elements of all arrays of a file at most: the tokens and merges of a large vocabulary are half a million.
const MAX_ELEMENTS: u64 = 1 << 22;

/// Arrays inside arrays at most.
const MAX_DEPTH: usize = 2;

/// The type of a value that is an array.
const ARRAY: u32 = 9;

/// What of a file's head has not been read yet.
pub(super) struct Bytes<'a> {
    path: &'a Path,
    all: &'a [u8],
    position: usize,
    elements: u64,
}

impl<'a> Bytes<'a> {
    pub(super) fn new(path: &'a Path, all: &'a [u8]) -> Self {
        Self { path, all, position: 0, elements: 0 }
    }

    /// Bytes that were read.
    pub(super) fn position(&self) -> usize {
        self.position
    }

    pub(super) fn damaged(&self, problem: impl Into<String>) -> FormatError {
        FormatError::damaged(self.path, problem)
    }

    /// The next bytes, which are part of `what`.
    fn take(&mut self, count: u64, what: &str) -> Result<&'a [u8]> {
        let rest = &self.all[self.position..];
        let taken = usize::try_from(count).ok().and_then(|count| rest.get(..count));
        let taken = taken.ok_or_else(|| self.damaged(format!("it ends inside {what}")))?;
        self.position += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N as u64, what)?);
        Ok(bytes)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A number of things that may be no more than `limit`.
    pub(super) fn count(&mut self, limit: u64, what: &str) -> Result<u64> {
        let count = self.u64(what)?;
        if count > limit {
            return Err(self.damaged(format!("{what} is {count}; at most {limit} are read")));
        }
        Ok(count)
    }

    /// A string of at most `limit` bytes.
    pub(super) fn string(&mut self, limit: u64, what: &str) -> Result<&'a str> {
        let length = self.u64(what)?;
        if length > limit {
            return Err(self.damaged(format!("{what} is {length} bytes long; at most {limit} are read")));
        }
        let bytes = self.take(length, what)?;
        std::str::from_utf8(bytes).map_err(|_| self.damaged(format!("{what} is not UTF-8")))
    }

    /// The value of the key `key`: its type, then itself.
    pub(super) fn value(&mut self, key: &str) -> Result<Value> {
        let what = format!("the value of `{key}`");
        let kind = self.u32(&what)?;
        self.value_of(kind, 0, &what)
    }

    fn value_of(&mut self, kind: u32, depth: usize, what: &str) -> Result<Value> {
        Ok(match kind {
            0 => Value::from(u8::from_le_bytes(self.array(what)?)),
            1 => Value::from(i8::from_le_bytes(self.array(what)?)),
            2 => Value::from(u16::from_le_bytes(self.array(what)?)),
            3 => Value::from(i16::from_le_bytes(self.array(what)?)),
            4 => Value::from(u32::from_le_bytes(self.array(what)?)),
            5 => Value::from(i32::from_le_bytes(self.array(what)?)),
            6 => float(f64::from(f32::from_le_bytes(self.array(what)?))),
            7 => match self.array(what)? {
                [0] => Value::from(false),
                [1] => Value::from(true),
                [other] => return Err(self.damaged(format!("{what} is {other}, which is no truth value"))),
            },
            8 => Value::from(self.string(MAX_STRING_BYTES, what)?),
            ARRAY => self.values(depth, what)?,
            10 => Value::from(self.u64(what)?),
            11 => Value::from(i64::from_le_bytes(self.array(what)?)),
            12 => float(f64::from_le_bytes(self.array(what)?)),
            other => return Err(self.damaged(format!("{what} has the type {other}, which is unknown"))),
        })
    }

    fn values(&mut self, depth: usize, what: &str) -> Result<Value> {
        if depth == MAX_DEPTH {
            return Err(self.damaged(format!("{what} has more than {MAX_DEPTH} arrays inside each other")));
        }
        let kind = self.u32(what)?;
        let count = self.u64(what)?;
        self.elements = self.elements.saturating_add(count);
        // Every element takes a byte, so that a short file cannot ask for much.
        let rest = (self.all.len() - self.position) as u64;
        if self.elements > MAX_ELEMENTS || count > rest {
            let problem = format!("{what} has {count} elements; at most {MAX_ELEMENTS} are read of a file");
            return Err(self.damaged(if count > rest { format!("it ends inside {what}") } else { problem }));
        }
        let values: Result<Vec<Value>> = (0..count).map(|_| self.value_of(kind, depth + 1, what)).collect();
        Ok(Value::Array(values?))
    }
}

/// JSON has no other numbers than finite ones: those are told by their names, which no reader takes for numbers.
fn float(number: f64) -> Value {
    Number::from_f64(number).map_or_else(|| Value::from(number.to_string()), Value::Number)
}
