//! Structs that begin with their size, so that they can grow.
//!
//! The host writes how large its struct is. An older host's is shorter: the rest has its defaults. A newer host's is
//! longer: what this library does not know has to be zero, that is, not asked for.

use std::mem::MaybeUninit;
use std::slice;

use super::pointers::{check, null};
use super::status::Failure;

/// A struct that begins with its size.
///
/// # Safety
/// The type is `repr(C)`, its first field is the `usize` `struct_size`, it has no `Drop`, and every pattern of bytes is a
/// value of it.
pub(crate) unsafe trait Options: Copy {
    /// Bytes of the struct in the first version that had it. Fields of later versions begin behind it, not in what pads
    /// it, which older hosts leave as it happens to be.
    const FIRST_SIZE: usize;

    /// All fields as they are when nothing is asked for; `struct_size` is the whole.
    fn defaults() -> Self;
}

/// No host has a struct larger than this.
const LARGEST: usize = 1 << 16;

/// The struct that a host filled in.
///
/// # Safety
/// Where `pointer` is neither NULL nor misaligned, the first field can be read there, and if its value is possible, so can
/// as many bytes as it says.
pub(crate) unsafe fn read<T: Options>(pointer: *const T, name: &str) -> Result<T, Failure> {
    check(pointer, name)?;
    if pointer.is_null() {
        return Err(null(name));
    }
    // SAFETY: not NULL and aligned; the first field is the size.
    let struct_size = unsafe { pointer.cast::<usize>().read() };
    check_size::<T>(struct_size, name)?;
    const { assert!(size_of::<T>() >= T::FIRST_SIZE, "a struct never becomes shorter") };
    let known = struct_size.min(size_of::<T>());
    let mut options = MaybeUninit::new(T::defaults());
    // SAFETY: as many bytes as the host says, of which no more are written than the struct has.
    let unknown = unsafe {
        options.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(pointer.cast::<u8>(), known);
        slice::from_raw_parts(pointer.cast::<u8>().add(known), struct_size - known)
    };
    if unknown.iter().any(|&byte| byte != 0) {
        return Err(Failure::argument(format!(
            "{name} sets fields that this version of the library does not know: use a newer one, or leave them zero"
        )));
    }
    // SAFETY: initialised whole by `defaults`, and every pattern of bytes is a value.
    Ok(unsafe { options.assume_init() })
}

/// Writes `value` into a host's struct of `struct_size` bytes: what it has room for, and zeros where it is longer.
///
/// # Safety
/// Where `pointer` is neither NULL nor misaligned and `struct_size` is possible, as many bytes can be written there.
pub(crate) unsafe fn write<T: Options>(
    pointer: *mut T,
    struct_size: usize,
    value: &T,
    name: &str,
) -> Result<(), Failure> {
    check(pointer, name)?;
    if pointer.is_null() {
        return Err(null(name));
    }
    check_size::<T>(struct_size, name)?;
    let known = struct_size.min(size_of::<T>());
    // SAFETY: as many bytes as the caller promises, and no more of `value` than it has; then the first field.
    unsafe {
        pointer.cast::<u8>().write_bytes(0, struct_size);
        pointer.cast::<u8>().copy_from_nonoverlapping(std::ptr::from_ref(value).cast::<u8>(), known);
        pointer.cast::<usize>().write(struct_size);
    }
    Ok(())
}

/// The size that a host wrote into the first field of a struct that is to be filled.
///
/// # Safety
/// Where `pointer` is neither NULL nor misaligned, its first field can be read.
pub(crate) unsafe fn size_of_output<T: Options>(pointer: *const T, name: &str) -> Result<usize, Failure> {
    check(pointer, name)?;
    if pointer.is_null() {
        return Err(null(name));
    }
    // SAFETY: not NULL and aligned; the first field is the size.
    let struct_size = unsafe { pointer.cast::<usize>().read() };
    check_size::<T>(struct_size, name)?;
    Ok(struct_size)
}

fn check_size<T: Options>(struct_size: usize, name: &str) -> Result<(), Failure> {
    if (T::FIRST_SIZE..=LARGEST).contains(&struct_size) {
        return Ok(());
    }
    Err(Failure::argument(format!(
        "the struct_size of {name} is {struct_size}, but it has {} bytes: set it to the size of the struct",
        size_of::<T>()
    )))
}
