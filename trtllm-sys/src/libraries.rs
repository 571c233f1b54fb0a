//! Versions of NVIDIA's libraries and of MPI, as the libraries tell them. Each is opened, and none is asked to do anything else.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;
use std::ptr::NonNull;

use crate::dynamic_library::DynamicLibrary;

/// What a library is called, newest first, and its version; or why there is none: the loader's words for the last name.
pub type Version = Result<(&'static str, String), String>;

/// TensorRT. Source: `NvInferRuntime.h`, `getInferLibVersion`: 10000 major + 100 minor + patch since 10.
pub fn tensorrt() -> Version {
    let number = |library: &DynamicLibrary| {
        type GetVersion = unsafe extern "C" fn() -> c_int;
        let address = library.symbol(c"getInferLibVersion")?;
        // SAFETY: TensorRT declares this function without parameters and with an `int` for a result.
        let version = unsafe { std::mem::transmute::<NonNull<c_void>, GetVersion>(address)() };
        let split = if version >= 100_000 { 10_000 } else { 1000 };
        Some(format!("{}.{}.{}", version / split, version % split / 100, version % 100))
    };
    first(&["libnvinfer.so.10", "libnvinfer.so.11", "libnvinfer.so.8"], number)
}

/// CUDA's runtime. Source: `cuda_runtime_api.h`, `cudaRuntimeGetVersion`: 1000 major + 10 minor.
pub fn cuda_runtime() -> Version {
    let number = |library: &DynamicLibrary| {
        type GetVersion = unsafe extern "C" fn(*mut c_int) -> c_int;
        let address = library.symbol(c"cudaRuntimeGetVersion")?;
        let mut version = 0;
        // SAFETY: CUDA declares this function with a pointer to one `int`, which it writes, and a status for a result.
        let status = unsafe { std::mem::transmute::<NonNull<c_void>, GetVersion>(address)(&raw mut version) };
        (status == 0).then(|| format!("{}.{}", version / 1000, version % 1000 / 10))
    };
    first(&["libcudart.so.13", "libcudart.so.12"], number)
}

/// MPI. Source: the MPI standard, section 9.1.1, `MPI_Get_library_version`, which may be called before `MPI_Init`.
pub fn mpi() -> Version {
    /// Of Open MPI, MPICH and Intel MPI none has a larger `MPI_MAX_LIBRARY_VERSION_STRING`.
    const LENGTH: usize = 8192;
    let text = |library: &DynamicLibrary| {
        type GetVersion = unsafe extern "C" fn(*mut c_char, *mut c_int) -> c_int;
        let address = library.symbol(c"MPI_Get_library_version")?;
        let (mut text, mut length) = ([0 as c_char; LENGTH], 0);
        // SAFETY: the standard declares this function with a text of `MPI_MAX_LIBRARY_VERSION_STRING`, which is not longer than
        // this, and one `int`; it writes both.
        let status =
            unsafe { std::mem::transmute::<NonNull<c_void>, GetVersion>(address)(text.as_mut_ptr(), &raw mut length) };
        let bytes = text.map(|byte| byte as u8);
        let text = CStr::from_bytes_until_nul(&bytes).ok()?.to_string_lossy();
        (status == 0).then(|| text.lines().next().unwrap_or_default().split(',').next().unwrap_or_default().to_owned())
    };
    first(&["libmpi.so.40", "libmpi.so.12", "libmpi.so"], text)
}

fn first(names: &[&'static str], version: impl Fn(&DynamicLibrary) -> Option<String>) -> Version {
    let mut reason = String::new();
    for &name in names {
        match DynamicLibrary::open(Path::new(name)) {
            Ok(library) => match version(&library) {
                Some(version) => return Ok((name, version)),
                None => return Err(format!("`{name}` does not tell its version")),
            },
            Err(error) if reason.is_empty() => reason = error,
            Err(_) => {}
        }
    }
    Err(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_there_is_a_sentence() {
        let error = first(&["libno-such-thing.so.1", "libnor-such.so"], |_| None).unwrap_err();
        assert!(error.contains("libno-such-thing.so.1"), "{error}");
        let error = first(&["libc.so.6"], |_| None).unwrap_err();
        assert!(error.contains("does not tell"), "{error}");
        let found = first(&["libno-such-thing.so.1", "libc.so.6"], |_| Some("2".into()));
        assert_eq!(found, Ok(("libc.so.6", "2".to_owned())));
    }
}
