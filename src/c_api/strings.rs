//! Texts and lists of ids: borrowed, as views; owned, as handles.

use std::ffi::c_char;
use std::ptr;

use super::entry::entry;
use super::handles::{Kind, Table};
use super::pointers::Out;
use super::status::{Failure, trtllm_status};

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

/// A text that the library made and the host frees, with `trtllm_free_string`.
pub struct trtllm_string(());

/// Token ids that the library made and the host frees, with `trtllm_free_token_ids`.
pub struct trtllm_token_ids(());

static STRINGS: Table<Box<str>, trtllm_string> = Table::new(Kind::String);
static TOKEN_IDS: Table<Box<[u32]>, trtllm_token_ids> = Table::new(Kind::TokenIds);

/// A text, with a NUL behind its end, as a new handle.
pub(crate) fn new_string(text: &str) -> Result<*mut trtllm_string, Failure> {
    STRINGS.insert([text, "\0"].concat().into())
}

/// Ids as a new handle.
pub(crate) fn new_token_ids(ids: Vec<u32>) -> Result<*mut trtllm_token_ids, Failure> {
    TOKEN_IDS.insert(ids.into())
}

/// Looks into a string: writes to `text` where it is. The text is NUL-terminated behind `len`, and valid until the string is
/// freed. Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_view_string(string: *const trtllm_string, text: *mut trtllm_str) -> trtllm_status {
    entry(|| {
        let found = STRINGS.get(string)?;
        // SAFETY: as the caller promises.
        let text = unsafe { Out::new(text, "text") }?;
        text.write(trtllm_str::of(&found[..found.len() - 1]));
        Ok(())
    })
}

/// Frees a string. Views of it are no longer valid. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn trtllm_free_string(string: *mut trtllm_string) -> trtllm_status {
    entry(|| STRINGS.remove(string).map(drop))
}

/// Looks into a list of ids: writes to `ids` where they are. They are valid until the list is freed. Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_view_token_ids(list: *const trtllm_token_ids, ids: *mut trtllm_ids) -> trtllm_status {
    entry(|| {
        let found = TOKEN_IDS.get(list)?;
        // SAFETY: as the caller promises.
        let ids = unsafe { Out::new(ids, "ids") }?;
        ids.write(trtllm_ids::of(&found));
        Ok(())
    })
}

/// Frees a list of ids. Views of it are no longer valid. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn trtllm_free_token_ids(list: *mut trtllm_token_ids) -> trtllm_status {
    entry(|| TOKEN_IDS.remove(list).map(drop))
}
