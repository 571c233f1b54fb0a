//! `libtrtllm_gpu.so`, opened.

use std::ffi::{CStr, c_char, c_void};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::dynamic_library::DynamicLibrary;

use super::bindings::{TRTLLM_GPU_ABI, TRTLLM_GPU_ENTRY, trtllm_gpu_table};

/// The shim over TensorRT-LLM, and TensorRT-LLM with it, loaded until the process ends.
#[derive(Debug, Clone)]
pub struct GpuLibrary {
    path: PathBuf,
    table: Table,
    version: String,
    built_against: String,
}

/// The functions of `trtllm_gpu_table`, all of them there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Table(&'static trtllm_gpu_table);

// SAFETY: the table is constant, and its functions may be called on any thread (`trtllm_gpu.h`).
unsafe impl Send for Table {}
// SAFETY: as for `Send`.
unsafe impl Sync for Table {}

impl Table {
    pub(super) fn get(self) -> &'static trtllm_gpu_table {
        self.0
    }
}

/// How grave a line of the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Something failed.
    Error,
    /// Something may go wrong.
    Warning,
    /// Something happened.
    Info,
    /// Anything finer.
    Debug,
}

/// A line that TensorRT-LLM logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogLine<'a> {
    /// How grave it is.
    pub severity: Severity,
    /// The line, with TensorRT-LLM's own marks.
    pub text: &'a str,
}

/// Takes lines of a log.
pub(super) type Log = Box<dyn Fn(LogLine<'_>) + Send + Sync>;

impl GpuLibrary {
    /// Opens the shim at `path`, or by its bare name for the system's loader to find.
    ///
    /// # Errors
    /// Why it cannot be used, as a sentence: it or a library that it needs is not there or does not fit, it belongs to
    /// another version of this crate, it was built without TensorRT-LLM, against another release than the one loaded, or for the stand-in
    /// where a real library was loaded, or the reverse.
    pub fn open(path: &Path) -> Result<Self, String> {
        type Entry = unsafe extern "C" fn() -> *const trtllm_gpu_table;
        let library = DynamicLibrary::open(path)?;
        let name = CStr::from_bytes_with_nul(TRTLLM_GPU_ENTRY).unwrap_or_default();
        let address = library.symbol(name).ok_or_else(|| format!("it does not export `{}`", name.to_string_lossy()))?;
        // SAFETY: a library that exports this name has this function there (`trtllm_gpu.h`), and is never closed.
        let entry = unsafe { std::mem::transmute::<std::ptr::NonNull<c_void>, Entry>(address) };
        // SAFETY: no duty; the result is not null, constant, and valid for ever. `abi` is its first field in every version.
        let table = unsafe { entry() };
        // SAFETY: as above: the first field of any version's table is its number.
        let abi = unsafe { *table.cast::<u32>() };
        if abi != TRTLLM_GPU_ABI {
            return Err(format!(
                "it was built for version {abi} of the boundary, not for {TRTLLM_GPU_ABI}: build it again from this source"
            ));
        }
        // SAFETY: the version is this one's, so the whole table is there, constant, for ever.
        let table = Table(unsafe { &*table });
        if let Some(reason) = to_text(table.get().unavailable) {
            return Err(format!("it was built without TensorRT-LLM: {reason}"));
        }
        let version = table.get().version.ok_or("its table is not whole")?;
        // SAFETY: no duty; the result is a constant text.
        let version = to_text(unsafe { version() }).unwrap_or_default();
        let built_against = to_text(table.get().built_against).unwrap_or_default();
        if let Some(problem) = mixture(&built_against, |marker| library.symbol(marker).is_some()) {
            return Err(problem);
        }
        if !same_release(&built_against, &version) {
            return Err(format!(
                "it was compiled against TensorRT-LLM {built_against}, but {version} was loaded: put the libraries of {} first, or build it again",
                release(&built_against)
            ));
        }
        Ok(Self { path: path.to_owned(), table, version, built_against })
    }

    /// Where it was found.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of the TensorRT-LLM that is loaded.
    pub fn tensorrt_llm_dir(&self) -> Option<PathBuf> {
        crate::loader::mapped_dir("libtensorrt_llm.so")
    }

    /// The folders of the libraries that TensorRT-LLM was loaded with, its own first, for the search path of another program that needs
    /// them. Those where the system's loader looks anyway are left out.
    pub fn library_dirs(&self) -> Vec<PathBuf> {
        crate::loader::needed_dirs()
    }

    /// The version of TensorRT-LLM that is loaded.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The version of TensorRT-LLM whose headers the shim was compiled against.
    pub fn built_against(&self) -> &str {
        &self.built_against
    }

    /// Sends what TensorRT-LLM logs to `log` instead of standard output, from any thread, for as long as the process runs.
    /// TensorRT-LLM writes through C++'s `std::cout` and `std::cerr`, so what a host writes through these goes there too.
    /// Only the first call of a process counts, of this function or [`GpuLibrary::offer_log`].
    pub fn capture_log(&self, log: impl Fn(LogLine<'_>) + Send + Sync + 'static) {
        self.capture(true, move |line| {
            log(line);
            true
        });
    }

    /// As [`GpuLibrary::capture_log`], but leaves what a host writes as it is: lines that begin with TensorRT-LLM's mark are offered
    /// to `take`, and go where they would have gone where it answers false.
    pub fn offer_log(&self, take: impl Fn(LogLine<'_>) -> bool + Send + Sync + 'static) {
        self.capture(false, take);
    }

    fn capture(&self, everything: bool, take: impl Fn(LogLine<'_>) -> bool + Send + Sync + 'static) {
        type Take = Box<dyn Fn(LogLine<'_>) -> bool + Send + Sync>;
        static TAKE: OnceLock<Take> = OnceLock::new();
        extern "C" fn take_line(user_data: *mut c_void, severity: i32, line: *const c_char) -> bool {
            // SAFETY: the pointer was made from a `&'static Take` below.
            let take = unsafe { &*user_data.cast::<Take>() };
            with_line(severity, line, take).unwrap_or(true)
        }
        let mut is_first = false;
        let take: &'static Take = TAKE.get_or_init(|| {
            is_first = true;
            Box::new(take)
        });
        if let (true, Some(capture)) = (is_first, self.table.get().capture_log) {
            // SAFETY: both stay valid for ever, and the function may be called on any thread.
            unsafe { capture(Some(take_line), everything, std::ptr::from_ref(take).cast_mut().cast()) };
        }
    }

    pub(super) fn table(&self) -> Table {
        self.table
    }
}

/// Gives a line that C++ wrote to `log`.
pub(super) fn take_line(log: &Log, severity: i32, line: *const c_char) {
    with_line(severity, line, log);
}

/// What `take` says to a line that C++ wrote; `None` if it panics.
fn with_line<T>(severity: i32, line: *const c_char, take: impl Fn(LogLine<'_>) -> T) -> Option<T> {
    let severity = match severity {
        0 => Severity::Error,
        1 => Severity::Warning,
        2 => Severity::Info,
        _ => Severity::Debug,
    };
    let text = to_text(line).unwrap_or_default();
    // A panic may not leave through C++.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| take(LogLine { severity, text: &text }))).ok()
}

/// Major and minor version.
fn release(version: &str) -> String {
    version.split('.').take(2).collect::<Vec<_>>().join(".")
}

/// Whether two versions of TensorRT-LLM have the same major and minor number: what its C++ and its engines are bound to.
pub fn same_release(a: &str, b: &str) -> bool {
    release(a) == release(b)
}

/// In the version of TensorRT-LLM's stand-in.
const STAND_IN: &str = "trtllm-stand-in";

/// Libraries that the shim loads, each with the symbol that only the one of the stand-in has.
const MARKED: [(&str, &CStr); 4] = [
    ("libtensorrt_llm.so", c"trtllm_stand_in_tensorrt_llm"),
    ("libnvinfer_plugin_tensorrt_llm.so", c"trtllm_stand_in_nvinfer_plugin_tensorrt_llm"),
    ("libnvinfer.so", c"trtllm_stand_in_nvinfer"),
    ("libmpi.so", c"trtllm_stand_in_mpi"),
];

/// Why a shim that was compiled against `built_against` cannot use what was loaded, if that is the stand-in in part, or in whole where
/// it should not be: their classes have the same names and other layouts. `has` tells whether a symbol was loaded with the shim.
fn mixture(built_against: &str, has: impl Fn(&CStr) -> bool) -> Option<String> {
    let for_stand_in = built_against.contains(STAND_IN);
    let (library, _) = MARKED.into_iter().find(|(_, marker)| has(marker) != for_stand_in)?;
    let place = crate::loader::mapped_dir(library).map(|dir| format!(" in `{}`", dir.display())).unwrap_or_default();
    let advice =
        "no real library may be mixed with it: look at LD_LIBRARY_PATH and LD_PRELOAD, or build the shim again";
    Some(match for_stand_in {
        true => format!(
            "it was built for the stand-in that tests use, and `{library}`{place} is not the stand-in's: {advice}"
        ),
        false => {
            format!("it was built for TensorRT-LLM, and `{library}`{place} is the stand-in's that tests use: {advice}")
        }
    })
}

/// A copy of a C string of the table's; `None` for null.
pub(super) fn to_text(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: not null, so by `trtllm_gpu.h` a NUL-terminated text that is valid at least until the function returns.
    Some(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_major_and_minor_and_nobody_s_is_none() {
        assert!(same_release("1.2.1", "1.2.0rc4") && !same_release("1.2.1", "1.1.0"));
        assert!(!same_release("", "1.2.1") && !same_release("1.2.1", ""));
    }

    #[test]
    fn the_stand_in_and_real_libraries_are_not_mixed() {
        for (library, marker) in MARKED {
            let problem = mixture("1.2.0-trtllm-stand-in", |symbol| symbol != marker).unwrap();
            assert!(problem.contains(&format!("`{library}` is not the stand-in's")), "{problem}");
            let problem = mixture("1.2.1", |symbol| symbol == marker).unwrap();
            assert!(problem.contains(&format!("`{library}` is the stand-in's")), "{problem}");
        }
        assert_eq!(mixture("1.2.0-trtllm-stand-in", |_| true), None);
        assert_eq!(mixture("1.2.1", |_| false), None);
    }
}
