//! The boundary to NVIDIA's driver and to TensorRT-LLM.
//!
//! Everything on the other side is opened at run time, so that every program of the workspace starts on every machine: a
//! GPU or a library that is not there is a sentence, not a loader error. [`probe`] looks for both and changes nothing.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`devices`] | the NVIDIA GPUs of this machine, as the driver describes them |
//! | [`loader`] | finding `libtrtllm_gpu.so`, the shared object with the C++ shim over TensorRT-LLM |
//! | [`gpu`] | TensorRT-LLM's executor, through that library |
//! | [`libraries`] | versions of TensorRT, CUDA and MPI |
//!
//! The shim itself is the crate in `gpu/`, which is built against TensorRT-LLM's headers; `stand-in/` is a library to build and
//! test it against where there is no TensorRT-LLM.

pub mod devices;
mod driver;
mod dynamic_library;
pub mod gpu;
pub mod libraries;
pub mod loader;
mod nvml;
mod signals;

pub use devices::{Device, DeviceError};
pub use gpu::GpuLibrary;
pub use loader::LoaderError;
pub use signals::HostSignals;

/// What this machine has of the two things that a GPU engine needs.
#[derive(Debug)]
pub struct GpuSupport {
    /// The GPUs, at least one, or why there are none.
    pub devices: Result<Vec<Device>, DeviceError>,
    /// What the shim loads, or where the shim was looked for.
    pub library: Result<LibraryVersions, LoaderError>,
}

/// Versions of what the shim loads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibraryVersions {
    /// TensorRT-LLM.
    pub tensorrt_llm: String,
    /// TensorRT; `None` where the shim was built without its headers, so that it can run engines and build none.
    pub tensorrt: Option<String>,
    /// The TensorRT whose headers the shim was compiled against; empty without.
    pub tensorrt_built_against: String,
}

impl GpuSupport {
    /// What is missing, one sentence each, without a full stop; empty when a GPU and the library are there.
    pub fn missing(&self) -> Vec<String> {
        let devices = self.devices.as_ref().err().map(ToString::to_string);
        let library = self.library.as_ref().err().map(ToString::to_string);
        devices.into_iter().chain(library).collect()
    }
}

/// Looks for GPUs and for the shim library.
pub fn probe() -> GpuSupport {
    let versions = |library: GpuLibrary| LibraryVersions {
        tensorrt_llm: library.version().to_owned(),
        tensorrt: library.tensorrt_version(),
        tensorrt_built_against: library.tensorrt_built_against().to_owned(),
    };
    GpuSupport { devices: devices::list(), library: loader::open().map(versions) }
}
