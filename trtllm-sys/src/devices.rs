//! The NVIDIA GPUs of this machine.
#![forbid(unsafe_code)]

use std::path::Path;

pub use crate::driver::DeviceError;
use crate::driver::{DRIVER_LIBRARY, Driver, NO_DEVICE};
use crate::nvml::Nvml;

/// NVML, which comes with the driver.
const NVML_LIBRARY: &str = "libnvidia-ml.so.1";

/// One GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The driver's number for it, from 0.
    pub index: usize,
    /// The product's name, as `NVIDIA H100 80GB HBM3`.
    pub name: String,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Compute capability, major and minor.
    pub compute_capability: (u32, u32),
    /// The newest CUDA version that the driver supports, major and minor.
    pub driver_cuda_version: (u32, u32),
    /// Where it is on the PCI bus, as `0000:3b:00.0`.
    pub pci_bus_id: String,
    /// Free memory in bytes, where NVML is there to tell.
    pub memory_free_bytes: Option<u64>,
    /// Whether it is cut into instances (MIG), where NVML is there to tell; each instance is smaller than the GPU.
    pub is_mig: Option<bool>,
    /// The driver's version, as `580.65.06`, where NVML is there to tell.
    pub driver_version: Option<String>,
}

/// Lists the GPUs, in the driver's order; never empty.
///
/// # Errors
/// [`DeviceError`]; [`DeviceError::NoDevice`] when there is a driver and no GPU.
pub fn list() -> Result<Vec<Device>, DeviceError> {
    list_through(Path::new(DRIVER_LIBRARY), Path::new(NVML_LIBRARY))
}

fn list_through(library: &Path, nvml: &Path) -> Result<Vec<Device>, DeviceError> {
    let describe = || {
        let driver = Driver::open(library)?;
        let version = driver.version()?;
        let nvml = Nvml::open(nvml);
        let describe = |index| describe(&driver, nvml.as_ref(), index, version);
        (0..driver.count()?).map(describe).collect::<Result<Vec<_>, _>>()
    };
    match describe() {
        Ok(devices) if devices.is_empty() => Err(DeviceError::NoDevice),
        Err(DeviceError::Call { status: NO_DEVICE, .. }) => Err(DeviceError::NoDevice),
        result => result,
    }
}

fn describe(driver: &Driver, nvml: Option<&Nvml>, index: i32, version: i32) -> Result<Device, DeviceError> {
    let device = driver.device(index)?;
    let pci_bus_id = driver.pci_bus_id(device)?;
    let state = nvml.map(|nvml| nvml.state(&pci_bus_id)).unwrap_or_default();
    let unsigned = |value: i32| u32::try_from(value).unwrap_or(0);
    let (major, minor) = driver.compute_capability(device)?;
    Ok(Device {
        index: usize::try_from(index).unwrap_or(0),
        name: driver.name(device)?,
        memory_bytes: driver.total_memory(device)?,
        compute_capability: (unsigned(major), unsigned(minor)),
        driver_cuda_version: (unsigned(version / 1000), unsigned(version % 1000 / 10)),
        pci_bus_id,
        memory_free_bytes: state.memory_free_bytes,
        is_mig: state.is_mig,
        driver_version: nvml.and_then(Nvml::driver_version),
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// A driver library that knows `count` GPUs and whose `cuInit` answers `init`.
    fn stand_in(dir: &Path, init: i32, count: i32) -> std::path::PathBuf {
        let source = format!(
            r#"#include <stddef.h>
            #include <stdio.h>
            int cuInit(unsigned flags) {{ return flags ? 1 : {init}; }}
            int cuGetErrorString(int status, const char **text) {{ *text = status == 100 || status == 803 ? "it is broken" : NULL; return 0; }}
            int cuDriverGetVersion(int *version) {{ *version = 12080; return 0; }}
            int cuDeviceGetCount(int *count) {{ *count = {count}; return 0; }}
            int cuDeviceGet(int *device, int index) {{ *device = index + 40; return index < {count} ? 0 : 101; }}
            int cuDeviceGetName(char *name, int size, int device) {{ snprintf(name, size, "Stand-in %d", device); return 0; }}
            int cuDeviceGetPCIBusId(char *id, int size, int device) {{ snprintf(id, size, "0000:%02d:00.0", device); return 0; }}
            int cuDeviceTotalMem_v2(size_t *bytes, int device) {{ *bytes = 85899345920u; return 0; }}
            int cuDeviceGetAttribute(int *value, int attribute, int device) {{ *value = attribute == 75 ? 9 : attribute == 76 ? 0 : -1; return 0; }}
            "#
        );
        compile(dir, "driver", &source)
    }

    /// An NVML that knows the device at `0000:41:00.0` and whose `nvmlInit_v2` answers `init`.
    fn stand_in_nvml(dir: &Path, init: i32) -> std::path::PathBuf {
        let source = format!(
            r#"#include <stdio.h>
            #include <string.h>
            struct memory {{ unsigned long long total, free, used; }};
            int nvmlInit_v2(void) {{ return {init}; }}
            int nvmlSystemGetDriverVersion(char *text, unsigned size) {{ snprintf(text, size, "580.1"); return 0; }}
            int nvmlDeviceGetHandleByPciBusId_v2(const char *id, void **device) {{ *device = &nvmlInit_v2; return strcmp(id, "0000:41:00.0") == 0 ? 0 : 6; }}
            int nvmlDeviceGetMemoryInfo(void *device, struct memory *memory) {{ memory->free = 12345; return 0; }}
            int nvmlDeviceGetMigMode(void *device, unsigned *now, unsigned *then) {{ *now = 1; *then = 0; return 0; }}
            "#
        );
        compile(dir, "nvml", &source)
    }

    fn compile(dir: &Path, name: &str, source: &str) -> std::path::PathBuf {
        let (code, library) = (dir.join(format!("{name}.c")), dir.join(format!("lib{name}.so")));
        std::fs::write(&code, source).unwrap();
        let status =
            Command::new("cc").args(["-shared", "-fPIC", "-w", "-o"]).args([&library, &code]).status().unwrap();
        assert!(status.success(), "cc failed");
        library
    }

    const NOWHERE: &str = "libno-such-nvml.so.1";

    #[test]
    fn devices_are_described() {
        let dir = tempfile::tempdir().unwrap();
        let devices = list_through(&stand_in(dir.path(), 0, 2), Path::new(NOWHERE)).unwrap();
        assert_eq!(devices.len(), 2);
        let expected = Device {
            index: 1,
            name: "Stand-in 41".into(),
            memory_bytes: 80 << 30,
            compute_capability: (9, 0),
            driver_cuda_version: (12, 8),
            pci_bus_id: "0000:41:00.0".into(),
            memory_free_bytes: None,
            is_mig: None,
            driver_version: None,
        };
        assert_eq!(devices[1], expected);
    }

    #[test]
    fn nvml_adds_what_it_knows_by_the_bus() {
        let dir = tempfile::tempdir().unwrap();
        let driver = stand_in(dir.path(), 0, 2);
        let devices = list_through(&driver, &stand_in_nvml(dir.path(), 0)).unwrap();
        // NVML does not know the first: the orders differ, and a device may be hidden from one of them.
        assert_eq!((devices[0].memory_free_bytes, devices[0].is_mig), (None, None));
        assert_eq!((devices[1].memory_free_bytes, devices[1].is_mig), (Some(12345), Some(true)));
        assert!(devices.iter().all(|device| device.driver_version.as_deref() == Some("580.1")));
        let other = tempfile::tempdir().unwrap();
        for broken in [stand_in_nvml(other.path(), 9), "libc.so.6".into()] {
            let devices = list_through(&driver, &broken).unwrap();
            assert!(devices[1].memory_free_bytes.is_none() && devices[1].driver_version.is_none());
        }
    }

    #[test]
    fn every_failure_is_a_sentence() {
        let check = |init, count, expected: &str| {
            let dir = tempfile::tempdir().unwrap();
            let error = list_through(&stand_in(dir.path(), init, count), Path::new(NOWHERE)).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        };
        check(100, 0, "sees no GPU");
        check(0, 0, "sees no GPU");
        check(803, 1, "cuInit failed with status 803 (it is broken)");
        check(999, 1, "unknown error");
        let error = list_through(Path::new("libno-such-driver.so.1"), Path::new(NOWHERE)).unwrap_err();
        assert!(error.to_string().contains("no NVIDIA driver"), "{error}");
        let error = list_through(Path::new("libc.so.6"), Path::new(NOWHERE)).unwrap_err();
        assert!(error.to_string().contains("does not export `cuInit`"), "{error}");
    }
}
