//! Texts and lists of ids that the library made: owned by the host, as handles, and looked into through views.

use super::entry::entry;
use super::handles::{Kind, Table};
use super::pointers::Out;
use super::status::{Failure, trtllm_status};

pub use super::views::{CBool, trtllm_ids, trtllm_str};

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
