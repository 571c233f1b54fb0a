//! Reading the arguments of opcodes.

use std::path::Path;

use engine_format::{FormatError, Result};

/// A pickle, and how far it was read.
pub(super) struct Bytes<'a> {
    pub(super) path: &'a Path,
    all: &'a [u8],
    pub(super) position: usize,
}

impl<'a> Bytes<'a> {
    pub(super) fn new(path: &'a Path, all: &'a [u8]) -> Self {
        Self { path, all, position: 0 }
    }

    pub(super) fn damaged(&self, problem: &str) -> FormatError {
        FormatError::damaged(self.path, format!("its pickle, at byte {}: {problem}", self.position))
    }

    /// The next bytes.
    pub(super) fn take(&mut self, count: u64) -> Result<&'a [u8]> {
        let rest = &self.all[self.position..];
        let taken = usize::try_from(count).ok().and_then(|count| rest.get(..count));
        let taken = taken.ok_or_else(|| self.damaged("it ends inside a value"))?;
        self.position += taken.len();
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        bytes.copy_from_slice(self.take(N as u64)?);
        Ok(bytes)
    }

    pub(super) fn u8(&mut self) -> Result<u8> {
        self.array().map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32> {
        self.array().map(i32::from_le_bytes)
    }

    /// A float, which pickles have big-endian.
    pub(super) fn f64(&mut self) -> Result<f64> {
        self.array().map(f64::from_be_bytes)
    }

    /// An integer in the next `count` bytes.
    pub(super) fn integer(&mut self, count: u8) -> Result<i128> {
        let bytes = self.take(count.into())?;
        let Some(&last) = bytes.last() else { return Ok(0) };
        if bytes.len() > size_of::<i128>() {
            return Err(self.damaged("an integer is longer than 16 bytes"));
        }
        let mut all = [if last >= 0x80 { 0xff } else { 0 }; size_of::<i128>()];
        all[..bytes.len()].copy_from_slice(bytes);
        Ok(i128::from_le_bytes(all))
    }

    /// A string of `count` bytes.
    pub(super) fn text(&mut self, count: u64) -> Result<&'a str> {
        let bytes = self.take(count)?;
        std::str::from_utf8(bytes).map_err(|_| self.damaged("a string is not UTF-8"))
    }

    /// A string up to the end of the line.
    pub(super) fn line(&mut self) -> Result<&'a str> {
        let rest = &self.all[self.position..];
        let end = rest.iter().position(|&byte| byte == b'\n').ok_or_else(|| self.damaged("it ends inside a name"))?;
        let text = self.text(end as u64)?;
        self.position += 1;
        Ok(text)
    }
}
