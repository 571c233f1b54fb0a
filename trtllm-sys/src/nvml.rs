//! The few functions of NVML that tell what the CUDA driver does not without a context: free memory, MIG, the driver's version.
//!
//! Signatures are `nvml.h`'s (`scripts/update-bindings`); what they mean, the NVML reference. NVML numbers GPUs as they are on the
//! bus and does not look at `CUDA_VISIBLE_DEVICES`, so a device is asked for by its PCI bus id.

mod bindings;

use std::ffi::{CStr, CString, c_char};
use std::path::Path;
use std::ptr::NonNull;

use crate::dynamic_library::DynamicLibrary;

use bindings::{
    NVML_SUCCESS, fn_nvmlDeviceGetHandleByPciBusId_v2, fn_nvmlDeviceGetMemoryInfo, fn_nvmlDeviceGetMigMode,
    fn_nvmlInit_v2, fn_nvmlSystemGetDriverVersion, nvmlDevice_t, nvmlMemory_t,
};

/// NVML, opened and initialized. It stays so until the process ends.
pub(crate) struct Nvml {
    driver_version: fn_nvmlSystemGetDriverVersion,
    by_bus_id: fn_nvmlDeviceGetHandleByPciBusId_v2,
    memory: fn_nvmlDeviceGetMemoryInfo,
    mig_mode: fn_nvmlDeviceGetMigMode,
}

/// What NVML says of a device; `None` for what it does not.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeviceState {
    /// Free memory in bytes.
    pub(crate) memory_free_bytes: Option<u64>,
    /// Whether the device is cut into instances.
    pub(crate) is_mig: Option<bool>,
}

/// `NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE`.
const VERSION_BYTES: u32 = 80;

impl Nvml {
    /// Opens the library called `library`; `None` where it is not there, lacks a function, or cannot be initialized.
    pub(crate) fn open(library: &Path) -> Option<Self> {
        type Address = NonNull<libc::c_void>;
        let opened = DynamicLibrary::open(library).ok()?;
        // SAFETY: `nvml.h` declares the function of this name, and each of those below, with the type that its address is converted
        // to, and the library is never closed.
        let init = unsafe { std::mem::transmute::<Address, fn_nvmlInit_v2>(opened.symbol(c"nvmlInit_v2")?) };
        let version = opened.symbol(c"nvmlSystemGetDriverVersion")?;
        let by_bus_id = opened.symbol(c"nvmlDeviceGetHandleByPciBusId_v2")?;
        let memory = opened.symbol(c"nvmlDeviceGetMemoryInfo")?;
        let mig_mode = opened.symbol(c"nvmlDeviceGetMigMode")?;
        let nvml = Self {
            // SAFETY: as for `nvmlInit_v2`.
            driver_version: unsafe { std::mem::transmute::<Address, fn_nvmlSystemGetDriverVersion>(version) },
            // SAFETY: as for `nvmlInit_v2`.
            by_bus_id: unsafe { std::mem::transmute::<Address, fn_nvmlDeviceGetHandleByPciBusId_v2>(by_bus_id) },
            // SAFETY: as for `nvmlInit_v2`.
            memory: unsafe { std::mem::transmute::<Address, fn_nvmlDeviceGetMemoryInfo>(memory) },
            // SAFETY: as for `nvmlInit_v2`.
            mig_mode: unsafe { std::mem::transmute::<Address, fn_nvmlDeviceGetMigMode>(mig_mode) },
        };
        // SAFETY: no duty; counts its calls, and is never undone.
        let status = unsafe { init?() };
        (status == NVML_SUCCESS).then_some(nvml)
    }

    /// The driver's version, as `580.65.06`.
    pub(crate) fn driver_version(&self) -> Option<String> {
        let mut buffer = [0u8; VERSION_BYTES as usize];
        // SAFETY: NVML is initialized and writes at most as many bytes as it is told, a NUL included.
        let status = unsafe { self.driver_version?(buffer.as_mut_ptr().cast::<c_char>(), VERSION_BYTES) };
        let text = CStr::from_bytes_until_nul(&buffer).ok()?;
        (status == NVML_SUCCESS).then(|| text.to_string_lossy().into_owned())
    }

    /// What is known of the device at `pci_bus_id`.
    pub(crate) fn state(&self, pci_bus_id: &str) -> DeviceState {
        self.handle(pci_bus_id).map_or_else(DeviceState::default, |device| DeviceState {
            memory_free_bytes: self.free_memory(device),
            is_mig: self.is_mig(device),
        })
    }

    fn handle(&self, pci_bus_id: &str) -> Option<nvmlDevice_t> {
        let id = CString::new(pci_bus_id).ok()?;
        let mut device = std::ptr::null_mut();
        // SAFETY: NVML is initialized, reads the NUL-terminated text, and writes one handle.
        let status = unsafe { self.by_bus_id?(id.as_ptr(), &raw mut device) };
        (status == NVML_SUCCESS).then_some(device)
    }

    fn free_memory(&self, device: nvmlDevice_t) -> Option<u64> {
        let mut memory = nvmlMemory_t { total: 0, free: 0, used: 0 };
        // SAFETY: the handle is NVML's own, and it writes one struct.
        let status = unsafe { self.memory?(device, &raw mut memory) };
        (status == NVML_SUCCESS).then_some(memory.free)
    }

    fn is_mig(&self, device: nvmlDevice_t) -> Option<bool> {
        let (mut current, mut pending) = (0, 0);
        // SAFETY: the handle is NVML's own, and it writes two numbers.
        let status = unsafe { self.mig_mode?(device, &raw mut current, &raw mut pending) };
        (status == NVML_SUCCESS).then_some(current != 0)
    }
}
