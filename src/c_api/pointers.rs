//! Every conversion of what C hands in and takes out.
//!
//! What can be checked is: NULL, alignment, and lengths that no object can have. What cannot is the caller's promise, as
//! every function of the header has it: a pointer that is not NULL points to as much as is said.

use std::ptr::NonNull;
use std::slice;

use super::status::Failure;
use super::views::trtllm_str;

/// A checked place for a result.
#[derive(Debug)]
pub(crate) struct Out<T>(NonNull<T>);

impl<T> Out<T> {
    /// Checks an out-parameter.
    ///
    /// # Safety
    /// Where `pointer` is neither NULL nor misaligned, it is valid for a write of `T` until this value is gone.
    pub(crate) unsafe fn new(pointer: *mut T, name: &str) -> Result<Self, Failure> {
        check(pointer, name)?;
        NonNull::new(pointer).map(Self).ok_or_else(|| null(name))
    }

    /// Writes the result.
    pub(crate) fn write(&self, value: T) {
        // SAFETY: `new` was promised that the place is valid for this write; it is not NULL and aligned.
        unsafe { self.0.write(value) }
    }
}

/// The `len` elements at `data`; none where `len` is 0, whatever `data` is.
///
/// # Safety
/// Where `data` is neither NULL nor misaligned and `len` is possible, `len` elements of `T` can be read there for `'a`, and
/// nobody writes to them.
pub(crate) unsafe fn elements<'a, T>(data: *const T, len: usize, name: &str) -> Result<&'a [T], Failure> {
    if len == 0 {
        return Ok(&[]);
    }
    check(data, name)?;
    if data.is_null() {
        return Err(null(name));
    }
    if len.checked_mul(size_of::<T>()).is_none_or(|bytes| bytes > isize::MAX as usize) {
        return Err(Failure::argument(format!("{name} cannot have {len} elements")));
    }
    // SAFETY: not NULL, aligned, of a possible size; the rest is the caller's promise.
    Ok(unsafe { slice::from_raw_parts(data, len) })
}

/// A text of C.
///
/// # Safety
/// As [`elements`].
pub(crate) unsafe fn text<'a>(text: trtllm_str, name: &str) -> Result<&'a str, Failure> {
    // SAFETY: as the caller promises.
    let bytes = unsafe { elements(text.data.cast::<u8>(), text.len, name) }?;
    std::str::from_utf8(bytes).map_err(|error| {
        Failure::argument(format!("{name} is not UTF-8: byte {} does not continue a character", error.valid_up_to()))
    })
}

/// A text of C that can be left out.
///
/// # Safety
/// As [`elements`].
pub(crate) unsafe fn optional_text<'a>(value: trtllm_str, name: &str) -> Result<Option<&'a str>, Failure> {
    if value.data.is_null() && value.len == 0 {
        return Ok(None);
    }
    // SAFETY: as the caller promises.
    unsafe { text(value, name) }.map(Some)
}

/// Texts of C.
///
/// # Safety
/// As [`elements`], for the list and each of its texts.
pub(crate) unsafe fn texts(list: *const trtllm_str, len: usize, name: &str) -> Result<Vec<String>, Failure> {
    // SAFETY: as the caller promises.
    let list = unsafe { elements(list, len, name) }?;
    let owned = |(place, &entry): (usize, &trtllm_str)| {
        // SAFETY: as the caller promises.
        unsafe { text(entry, &format!("{name}[{place}]")) }.map(str::to_owned)
    };
    list.iter().enumerate().map(owned).collect()
}

/// Whether a pointer that is not NULL is aligned.
pub(crate) fn check<T>(pointer: *const T, name: &str) -> Result<(), Failure> {
    if pointer.is_aligned() {
        return Ok(());
    }
    Err(Failure::argument(format!("{name} is not aligned to {} bytes", align_of::<T>())))
}

pub(crate) fn null(name: &str) -> Failure {
    Failure::argument(format!("{name} is NULL"))
}
