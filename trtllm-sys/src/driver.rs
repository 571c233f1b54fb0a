//! The few functions of the CUDA driver API that describe devices. None of them creates a context or uses GPU memory.
//!
//! Signatures and constants are `cuda.h`'s (`scripts/update-bindings`); what they mean, the CUDA driver API reference, sections
//! Initialization, Version Management and Device Management.

mod bindings;

use std::ffi::{CStr, c_char, c_int};
use std::path::Path;
use std::ptr::NonNull;

use crate::dynamic_library::DynamicLibrary;

use bindings::{
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, CUDA_SUCCESS, CUresult,
    fn_cuDeviceGet, fn_cuDeviceGetAttribute, fn_cuDeviceGetCount, fn_cuDeviceGetName, fn_cuDeviceGetPCIBusId,
    fn_cuDeviceTotalMem_v2, fn_cuDriverGetVersion, fn_cuGetErrorString, fn_cuInit,
};

/// `CUDA_ERROR_NO_DEVICE`.
pub(crate) const NO_DEVICE: i32 = bindings::CUDA_ERROR_NO_DEVICE as i32;

/// The driver's library, as the system's loader finds it.
pub(crate) const DRIVER_LIBRARY: &str = "libcuda.so.1";

const NAME_BYTES: usize = 256;

/// Why no GPU was found.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// The driver's library cannot be opened.
    #[error("no NVIDIA driver was found: {reason}")]
    NoDriver {
        /// The loader's message.
        reason: String,
    },
    /// The driver's library lacks a function.
    #[error("the NVIDIA driver is incomplete: `{DRIVER_LIBRARY}` does not export `{symbol}`")]
    IncompleteDriver {
        /// The function.
        symbol: String,
    },
    /// The driver is there and sees no GPU.
    #[error("the NVIDIA driver sees no GPU")]
    NoDevice,
    /// The driver refused a call.
    #[error("the NVIDIA driver cannot be used: {call} failed with status {status} ({reason})")]
    Call {
        /// The function.
        call: &'static str,
        /// `CUresult`.
        status: i32,
        /// The driver's message.
        reason: String,
    },
}

/// The driver, opened and initialized: holding one means that `cuInit` succeeded. Every function is there.
pub(crate) struct Driver {
    error_string: fn_cuGetErrorString,
    version: fn_cuDriverGetVersion,
    count: fn_cuDeviceGetCount,
    device: fn_cuDeviceGet,
    name: fn_cuDeviceGetName,
    pci_bus_id: fn_cuDeviceGetPCIBusId,
    total_memory: fn_cuDeviceTotalMem_v2,
    attribute: fn_cuDeviceGetAttribute,
}

impl Driver {
    /// Opens the driver library called `library` and initializes it.
    ///
    /// # Errors
    /// [`DeviceError::NoDriver`], [`DeviceError::IncompleteDriver`], or [`DeviceError::Call`] for `cuInit`.
    pub(crate) fn open(library: &Path) -> Result<Self, DeviceError> {
        type Address = NonNull<libc::c_void>;
        let opened = DynamicLibrary::open(library).map_err(|reason| DeviceError::NoDriver { reason })?;
        let symbol = |name: &'static CStr| {
            opened
                .symbol(name)
                .ok_or_else(|| DeviceError::IncompleteDriver { symbol: name.to_string_lossy().into_owned() })
        };
        // SAFETY: `cuda.h` declares the function of this name, and each of those below, with the type that its address is converted
        // to, and the library is never closed.
        let init = unsafe { std::mem::transmute::<Address, fn_cuInit>(symbol(c"cuInit")?) };
        let driver = Self {
            // SAFETY: as for `cuInit`.
            error_string: unsafe { std::mem::transmute::<Address, fn_cuGetErrorString>(symbol(c"cuGetErrorString")?) },
            // SAFETY: as for `cuInit`.
            version: unsafe { std::mem::transmute::<Address, fn_cuDriverGetVersion>(symbol(c"cuDriverGetVersion")?) },
            // SAFETY: as for `cuInit`.
            count: unsafe { std::mem::transmute::<Address, fn_cuDeviceGetCount>(symbol(c"cuDeviceGetCount")?) },
            // SAFETY: as for `cuInit`.
            device: unsafe { std::mem::transmute::<Address, fn_cuDeviceGet>(symbol(c"cuDeviceGet")?) },
            // SAFETY: as for `cuInit`.
            name: unsafe { std::mem::transmute::<Address, fn_cuDeviceGetName>(symbol(c"cuDeviceGetName")?) },
            // SAFETY: as for `cuInit`.
            pci_bus_id: unsafe {
                std::mem::transmute::<Address, fn_cuDeviceGetPCIBusId>(symbol(c"cuDeviceGetPCIBusId")?)
            },
            // SAFETY: as for `cuInit`.
            total_memory: unsafe {
                std::mem::transmute::<Address, fn_cuDeviceTotalMem_v2>(symbol(c"cuDeviceTotalMem_v2")?)
            },
            // SAFETY: as for `cuInit`.
            attribute: unsafe {
                std::mem::transmute::<Address, fn_cuDeviceGetAttribute>(symbol(c"cuDeviceGetAttribute")?)
            },
        };
        // SAFETY: the flags must be 0; may be called on any thread, any number of times.
        driver.check("cuInit", init.map_or(CUDA_SUCCESS, |init| unsafe { init(0) }))?;
        Ok(driver)
    }

    /// The newest CUDA version that the driver supports: 1000 * major + 10 * minor.
    pub(crate) fn version(&self) -> Result<i32, DeviceError> {
        // SAFETY: the driver writes one `int` to the pointer.
        self.read("cuDriverGetVersion", |out| Some(unsafe { self.version?(out) }))
    }

    /// Number of GPUs that this process may see.
    pub(crate) fn count(&self) -> Result<i32, DeviceError> {
        // SAFETY: the driver is initialized (the type says so) and writes one `int` to the pointer.
        self.read("cuDeviceGetCount", |out| Some(unsafe { self.count?(out) }))
    }

    /// The handle of device `index`, from 0 to [`Driver::count`] - 1; the driver refuses others.
    pub(crate) fn device(&self, index: i32) -> Result<i32, DeviceError> {
        // SAFETY: as for `count`; an index out of range is an error of the call.
        self.read("cuDeviceGet", |out| Some(unsafe { self.device?(out, index) }))
    }

    /// The product's name.
    pub(crate) fn name(&self, device: i32) -> Result<String, DeviceError> {
        // SAFETY: the driver writes at most as many bytes as it is told, a NUL included; an invalid handle is an error of the call.
        self.text("cuDeviceGetName", |out, size| Some(unsafe { self.name?(out, size, device) }))
    }

    /// Where the device is on the PCI bus, as `0000:3b:00.0`.
    pub(crate) fn pci_bus_id(&self, device: i32) -> Result<String, DeviceError> {
        // SAFETY: as for `name`.
        self.text("cuDeviceGetPCIBusId", |out, size| Some(unsafe { self.pci_bus_id?(out, size, device) }))
    }

    /// Memory in bytes.
    pub(crate) fn total_memory(&self, device: i32) -> Result<u64, DeviceError> {
        // SAFETY: the driver writes one `size_t` to the pointer; an invalid handle is an error of the call.
        self.read("cuDeviceTotalMem", |out| Some(unsafe { self.total_memory?(out, device) }))
            .map(|bytes: usize| bytes as u64)
    }

    /// Compute capability, major and minor.
    pub(crate) fn compute_capability(&self, device: i32) -> Result<(i32, i32), DeviceError> {
        let attribute = |attribute| {
            // SAFETY: the driver writes one `int` to the pointer; an invalid handle is an error of the call.
            self.read("cuDeviceGetAttribute", |out| Some(unsafe { self.attribute?(out, attribute, device) }))
        };
        let major = attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        Ok((major, attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?))
    }

    /// Runs a call that writes a text.
    fn text(
        &self,
        call: &'static str,
        run: impl FnOnce(*mut c_char, c_int) -> Option<CUresult>,
    ) -> Result<String, DeviceError> {
        let mut buffer = [0u8; NAME_BYTES];
        self.check(call, run(buffer.as_mut_ptr().cast(), NAME_BYTES as c_int).unwrap_or(CUDA_SUCCESS))?;
        let text = CStr::from_bytes_until_nul(&buffer).unwrap_or_default();
        Ok(text.to_string_lossy().into_owned())
    }

    /// Runs a call that writes one value.
    fn read<T: Default>(
        &self,
        call: &'static str,
        run: impl FnOnce(*mut T) -> Option<CUresult>,
    ) -> Result<T, DeviceError> {
        let mut value = T::default();
        self.check(call, run(&raw mut value).unwrap_or(CUDA_SUCCESS))?;
        Ok(value)
    }

    fn check(&self, call: &'static str, status: CUresult) -> Result<(), DeviceError> {
        if status == CUDA_SUCCESS {
            return Ok(());
        }
        let mut text: *const c_char = std::ptr::null();
        if let Some(error_string) = self.error_string {
            // SAFETY: the driver writes one pointer, to a constant NUL-terminated string or null for an unknown status.
            unsafe { error_string(status, &raw mut text) };
        }
        let reason = if text.is_null() {
            "unknown error".to_owned()
        } else {
            // SAFETY: not null, so it is that string.
            unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
        };
        Err(DeviceError::Call { call, status: i32::try_from(status).unwrap_or(i32::MAX), reason })
    }
}
