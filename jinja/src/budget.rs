//! What a template may use: a file from strangers is run, so its time, memory and nesting end somewhere.

use crate::error::{Error, Result};

/// Bytes that a template may touch in all; an operation counts as 32. Some two seconds of work.
const WORK: u64 = 1 << 30;
const OPERATION: u64 = 32;

/// Bytes of a text, or items of a list, at most.
pub(crate) const LARGEST: usize = 64 << 20;

/// Expressions and statements within each other, calls of macros included. A level takes about 1 KiB of stack.
pub(crate) const NESTING: usize = 400;

pub(crate) struct Budget {
    left: u64,
    nesting: usize,
}

impl Budget {
    pub(crate) fn new() -> Self {
        Self { left: WORK, nesting: 0 }
    }

    /// One operation.
    pub(crate) fn step(&mut self) -> Result<()> {
        self.spend(OPERATION)
    }

    /// A text of so many bytes is about to be made.
    pub(crate) fn bytes(&mut self, bytes: usize) -> Result<()> {
        if bytes > LARGEST {
            return Err(Error::Budget { line: 0, problem: "makes a text of more than 64 MiB" });
        }
        self.spend(bytes as u64)
    }

    /// A list of so many items is about to be made.
    pub(crate) fn items(&mut self, items: usize) -> Result<()> {
        if items > LARGEST / 64 {
            return Err(Error::Budget { line: 0, problem: "makes a list of more than a million items" });
        }
        self.spend(items as u64 * OPERATION)
    }

    fn spend(&mut self, cost: u64) -> Result<()> {
        self.left = self
            .left
            .checked_sub(cost)
            .ok_or(Error::Budget { line: 0, problem: "works for too long: it may loop without end" })?;
        Ok(())
    }

    pub(crate) fn enter(&mut self) -> Result<()> {
        if self.nesting == NESTING {
            return Err(Error::Budget { line: 0, problem: "nests too deeply: a macro may call itself without end" });
        }
        self.nesting += 1;
        self.step()
    }

    pub(crate) fn leave(&mut self) {
        self.nesting -= 1;
    }
}
