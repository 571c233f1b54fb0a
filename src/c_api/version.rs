//! Versions, and what this build can run on this machine.

use std::ffi::{CStr, c_char};
use std::path::Path;

use super::entry::entry;
use super::pointers::{Out, optional_text};
use super::status::{Failure, trtllm_status};
use super::strings::{CBool, new_string, trtllm_str, trtllm_string};

/// The version that this header belongs to. Within a major version, and before 1.0 within a minor one, a program built with
/// an older header runs with a newer library.
pub const TRTLLM_VERSION_MAJOR: u32 = 0;
/// See `TRTLLM_VERSION_MAJOR`.
pub const TRTLLM_VERSION_MINOR: u32 = 1;
/// See `TRTLLM_VERSION_MAJOR`.
pub const TRTLLM_VERSION_PATCH: u32 = 0;
/// The version in one number that grows: major * 10000 + minor * 100 + patch.
pub const TRTLLM_VERSION_NUMBER: u32 = 100;

/// What runs an engine.
pub type trtllm_executor_kind = u32;

/// The embedded executor, on this machine's processor: engines for the target `none`.
pub const TRTLLM_EXECUTOR_CPU: trtllm_executor_kind = 0;
/// TensorRT-LLM's C++ executor: engines for GPU targets.
pub const TRTLLM_EXECUTOR_TENSORRT_LLM: trtllm_executor_kind = 1;

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => c"",
};

/// The version of the library that runs, for example `0.1.0`. A NUL-terminated text that is always valid. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn trtllm_version() -> *const c_char {
    VERSION.as_ptr()
}

/// The version of the library that runs, as a number: see `TRTLLM_VERSION_NUMBER`. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn trtllm_version_number() -> u32 {
    TRTLLM_VERSION_NUMBER
}

/// Asks whether this library can run engines on such an executor, on this machine: writes the answer to `available`, and to
/// `explanation` a new string that says what was found, or what is missing and what was tried. Changes nothing on the
/// machine. Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_query_executor(
    executor: trtllm_executor_kind,
    available: *mut CBool,
    explanation: *mut *mut trtllm_string,
) -> trtllm_status {
    entry(|| {
        // SAFETY: as the caller promises, for both.
        let (available, explanation) =
            unsafe { (Out::new(available, "available")?, Out::new(explanation, "explanation")?) };
        let (is_available, text) = match executor {
            TRTLLM_EXECUTOR_CPU => cpu(),
            TRTLLM_EXECUTOR_TENSORRT_LLM => tensorrt_llm(),
            other => return Err(Failure::argument(format!("{other} is no trtllm_executor_kind"))),
        };
        explanation.write(new_string(&text)?);
        available.write(is_available.into());
        Ok(())
    })
}

/// Looks at everything that a TensorRT engine needs (GPU, driver, CUDA, TensorRT, TensorRT-LLM, MPI), and at the engine directory
/// `engine` unless that is empty; of an engine for the CPU, at what that needs: writes to `healthy` whether it is all there and fits together, and to `report` a new string
/// with a line for each thing, and what to do about it. The same as `run-engine doctor`. It may load NVIDIA's libraries into the
/// process. Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_diagnose(
    engine: trtllm_str,
    healthy: *mut CBool,
    report: *mut *mut trtllm_string,
) -> trtllm_status {
    entry(|| {
        // SAFETY: as the caller promises, for the three arguments.
        let (engine, healthy, report) =
            unsafe { (optional_text(engine, "engine")?, Out::new(healthy, "healthy")?, Out::new(report, "report")?) };
        let diagnosis = runner::doctor::diagnose(engine.filter(|path| !path.is_empty()).map(Path::new));
        report.write(new_string(&diagnosis.to_string())?);
        healthy.write(diagnosis.is_healthy().into());
        Ok(())
    })
}

fn cpu() -> (bool, String) {
    let cores = system::cores::cores();
    match cpu_kernels::Kernels::detect() {
        Ok(kernels) => (true, format!("the CPU executor runs here with {} on {cores} cores", kernels.isa())),
        Err(error) => (false, error.to_string()),
    }
}

fn tensorrt_llm() -> (bool, String) {
    let support = trtllm_sys::probe();
    match (support.missing().as_slice(), &support.library) {
        ([], Ok(library)) => (true, format!("TensorRT-LLM {} runs here", library.tensorrt_llm)),
        (missing, _) => (false, missing.join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_has_the_version_of_the_package() {
        let header = format!("{TRTLLM_VERSION_MAJOR}.{TRTLLM_VERSION_MINOR}.{TRTLLM_VERSION_PATCH}");
        assert_eq!(header, env!("CARGO_PKG_VERSION"));
        assert_eq!(VERSION.to_str().unwrap(), header);
        let number = TRTLLM_VERSION_MAJOR * 10_000 + TRTLLM_VERSION_MINOR * 100 + TRTLLM_VERSION_PATCH;
        assert_eq!(TRTLLM_VERSION_NUMBER, number);
        let inline_namespace =
            format!("inline namespace v{}_{}_{} {{", TRTLLM_VERSION_MAJOR, TRTLLM_VERSION_MINOR, TRTLLM_VERSION_PATCH);
        assert!(include_str!("../../include/trtllm.hpp").contains(&inline_namespace), "{inline_namespace}");
    }
}
