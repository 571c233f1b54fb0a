//! The NVIDIA GPUs of this machine.
#![forbid(unsafe_code)]

use std::path::Path;

use crate::driver::Driver;

/// The driver's library, as the system's loader finds it.
const DRIVER_LIBRARY: &str = "libcuda.so.1";

/// `CUDA_ERROR_NO_DEVICE`.
const NO_DEVICE: i32 = 100;

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
}

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

/// Lists the GPUs, in the driver's order; never empty.
///
/// # Errors
/// [`DeviceError`]; [`DeviceError::NoDevice`] when there is a driver and no GPU.
pub fn list() -> Result<Vec<Device>, DeviceError> {
    list_through(Path::new(DRIVER_LIBRARY))
}

fn list_through(library: &Path) -> Result<Vec<Device>, DeviceError> {
    let describe = || {
        let driver = Driver::open(library)?;
        let version = driver.version()?;
        (0..driver.count()?).map(|index| describe(&driver, index, version)).collect::<Result<Vec<_>, _>>()
    };
    match describe() {
        Ok(devices) if devices.is_empty() => Err(DeviceError::NoDevice),
        Err(DeviceError::Call { status: NO_DEVICE, .. }) => Err(DeviceError::NoDevice),
        result => result,
    }
}

fn describe(driver: &Driver, index: i32, version: i32) -> Result<Device, DeviceError> {
    let device = driver.device(index)?;
    let unsigned = |value: i32| u32::try_from(value).unwrap_or(0);
    let (major, minor) = driver.compute_capability(device)?;
    Ok(Device {
        index: usize::try_from(index).unwrap_or(0),
        name: driver.name(device)?,
        memory_bytes: driver.total_memory(device)?,
        compute_capability: (unsigned(major), unsigned(minor)),
        driver_cuda_version: (unsigned(version / 1000), unsigned(version % 1000 / 10)),
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
            int cuDeviceTotalMem_v2(size_t *bytes, int device) {{ *bytes = 85899345920u; return 0; }}
            int cuDeviceGetAttribute(int *value, int attribute, int device) {{ *value = attribute == 75 ? 9 : attribute == 76 ? 0 : -1; return 0; }}
            "#
        );
        let (code, library) = (dir.join("driver.c"), dir.join("libdriver.so"));
        std::fs::write(&code, source).unwrap();
        let status = Command::new("cc").args(["-shared", "-fPIC", "-o"]).args([&library, &code]).status().unwrap();
        assert!(status.success(), "cc failed");
        library
    }

    #[test]
    fn devices_are_described() {
        let dir = tempfile::tempdir().unwrap();
        let devices = list_through(&stand_in(dir.path(), 0, 2)).unwrap();
        assert_eq!(devices.len(), 2);
        let expected = Device {
            index: 1,
            name: "Stand-in 41".into(),
            memory_bytes: 80 << 30,
            compute_capability: (9, 0),
            driver_cuda_version: (12, 8),
        };
        assert_eq!(devices[1], expected);
    }

    #[test]
    fn every_failure_is_a_sentence() {
        let check = |init, count, expected: &str| {
            let dir = tempfile::tempdir().unwrap();
            let error = list_through(&stand_in(dir.path(), init, count)).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        };
        check(100, 0, "sees no GPU");
        check(0, 0, "sees no GPU");
        check(803, 1, "cuInit failed with status 803 (it is broken)");
        check(999, 1, "unknown error");
        let error = list_through(Path::new("libno-such-driver.so.1")).unwrap_err();
        assert!(error.to_string().contains("no NVIDIA driver"), "{error}");
        let error = list_through(Path::new("libc.so.6")).unwrap_err();
        assert!(error.to_string().contains("does not export `cuInit`"), "{error}");
    }
}
