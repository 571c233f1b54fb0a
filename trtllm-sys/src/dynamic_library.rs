//! Shared objects opened at run time: the one place that calls `dlopen` and `dlsym`.

use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr::NonNull;

use crate::HostSignals;

/// A shared object that stays loaded until the process ends. Drivers start threads and register exit handlers, so a
/// library that was opened once is never closed.
#[derive(Debug)]
pub(crate) struct DynamicLibrary {
    handle: NonNull<libc::c_void>,
}

impl DynamicLibrary {
    /// Opens `name`: a path when it has a slash, else a name for the system's loader to find.
    ///
    /// # Errors
    /// The loader's own message.
    pub(crate) fn open(name: &Path) -> Result<Self, String> {
        let name = CString::new(name.as_os_str().as_bytes()).map_err(|_| "the path contains a NUL byte".to_owned())?;
        let _signals = HostSignals::note();
        // SAFETY: `name` is NUL-terminated and outlives the call. Opening runs the library's initializers: the callers in
        // this crate open NVIDIA's driver and our own shim only, which may be opened on any thread.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        NonNull::new(handle).map(|handle| Self { handle }).ok_or_else(last_error)
    }

    /// The address of `symbol`, or `None` when the library does not export it.
    pub(crate) fn symbol(&self, symbol: &CStr) -> Option<NonNull<libc::c_void>> {
        // SAFETY: the handle came from `dlopen` and is never closed; `symbol` is NUL-terminated and outlives the call.
        NonNull::new(unsafe { libc::dlsym(self.handle.as_ptr(), symbol.as_ptr()) })
    }
}

/// What the loader says about the last failure on this thread.
fn last_error() -> String {
    // SAFETY: no duty; the result is null or a NUL-terminated string of this thread, valid until its next `dl*` call.
    let message = unsafe { libc::dlerror() };
    if message.is_null() {
        return "the loader gave no reason".to_owned();
    }
    // SAFETY: not null, so it is that string; it is copied before any other `dl*` call of this thread.
    unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_there_is_named() {
        let error = DynamicLibrary::open(Path::new("libno-such-library.so.7")).unwrap_err();
        assert!(error.contains("libno-such-library.so.7"), "{error}");
    }

    #[test]
    fn symbols_are_found_by_name() {
        let library = DynamicLibrary::open(Path::new("libc.so.6")).unwrap();
        assert!(library.symbol(c"getpid").is_some());
        assert!(library.symbol(c"no_such_symbol_at_all").is_none());
    }
}
