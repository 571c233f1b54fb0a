//! What C and Rust pass by value: truth, texts and lists of ids, the last two as views of somebody else's memory.

use std::ffi::c_char;
use std::ptr;

/// A bool of C, read as a byte: a host's uninitialised one is not undefined behaviour here. Anything but 0 is true.
#[repr(transparent)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CBool(u8);

impl From<bool> for CBool {
    fn from(value: bool) -> Self {
        Self(u8::from(value))
    }
}

impl CBool {
    pub(crate) const TRUE: Self = Self(1);
    pub(crate) const FALSE: Self = Self(0);

    pub(crate) fn get(self) -> bool {
        self.0 != 0
    }
}

/// A text that belongs to somebody else: `len` bytes of UTF-8 at `data`, not necessarily NUL-terminated. Zeros where
/// there is none.
///
/// What the host hands in is read during the call only. What the library hands out says how long it is valid.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct trtllm_str {
    /// The first byte.
    pub data: *const c_char,
    /// Bytes.
    pub len: usize,
}

impl trtllm_str {
    pub(crate) const EMPTY: Self = Self { data: ptr::null(), len: 0 };

    /// A view of `text`.
    pub(crate) const fn of(text: &str) -> Self {
        Self { data: text.as_ptr().cast(), len: text.len() }
    }
}

/// Token ids that belong to somebody else. Zeros where there are none.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct trtllm_ids {
    /// The first id.
    pub data: *const u32,
    /// Ids.
    pub len: usize,
}

impl trtllm_ids {
    pub(crate) const EMPTY: Self = Self { data: ptr::null(), len: 0 };

    /// A view of `ids`.
    pub(crate) const fn of(ids: &[u32]) -> Self {
        Self { data: ids.as_ptr(), len: ids.len() }
    }
}
