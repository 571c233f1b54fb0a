//! The few functions of the CUDA driver API that describe devices. None of them creates a context or uses GPU memory.
//!
//! Source of signatures and constants: CUDA driver API reference (`cuda.h`), sections Initialization, Version Management
//! and Device Management. The names with `_v2` are the ones that `cuda.h` maps the plain names to.

use std::ffi::{CStr, c_char, c_int, c_uint};
use std::path::Path;
use std::ptr::NonNull;

use crate::devices::DeviceError;
use crate::dynamic_library::DynamicLibrary;

/// `CUresult`; 0 is success.
type Status = c_int;

type Address = NonNull<libc::c_void>;
type Init = unsafe extern "C" fn(c_uint) -> Status;
type ErrorString = unsafe extern "C" fn(Status, *mut *const c_char) -> Status;
type ReadInt = unsafe extern "C" fn(*mut c_int) -> Status;
type GetDevice = unsafe extern "C" fn(*mut c_int, c_int) -> Status;
type GetName = unsafe extern "C" fn(*mut c_char, c_int, c_int) -> Status;
type TotalMemory = unsafe extern "C" fn(*mut usize, c_int) -> Status;
type Attribute = unsafe extern "C" fn(*mut c_int, c_int, c_int) -> Status;

const NAME_BYTES: usize = 256;
const COMPUTE_CAPABILITY_MAJOR: c_int = 75;
const COMPUTE_CAPABILITY_MINOR: c_int = 76;

/// The driver, opened and initialized: holding one means that `cuInit` succeeded.
pub(crate) struct Driver {
    error_string: ErrorString,
    version: ReadInt,
    count: ReadInt,
    device: GetDevice,
    name: GetName,
    total_memory: TotalMemory,
    attribute: Attribute,
}

impl Driver {
    /// Opens the driver library called `library` and initializes it.
    ///
    /// # Errors
    /// [`DeviceError::NoDriver`], [`DeviceError::IncompleteDriver`], or [`DeviceError::Call`] for `cuInit`.
    pub(crate) fn open(library: &Path) -> Result<Self, DeviceError> {
        let opened = DynamicLibrary::open(library).map_err(|reason| DeviceError::NoDriver { reason })?;
        let symbol = |name: &'static CStr| {
            opened
                .symbol(name)
                .ok_or_else(|| DeviceError::IncompleteDriver { symbol: name.to_string_lossy().into_owned() })
        };
        // SAFETY: `cuda.h` declares this function, and each of those below, with exactly the parameters and the result of the
        // type that its address is converted to (handles and enumerations are `int`), and the library is never closed.
        let init = unsafe { std::mem::transmute::<Address, Init>(symbol(c"cuInit")?) };
        let driver = Self {
            // SAFETY: as for `cuInit`.
            error_string: unsafe { std::mem::transmute::<Address, ErrorString>(symbol(c"cuGetErrorString")?) },
            // SAFETY: as for `cuInit`.
            version: unsafe { std::mem::transmute::<Address, ReadInt>(symbol(c"cuDriverGetVersion")?) },
            // SAFETY: as for `cuInit`.
            count: unsafe { std::mem::transmute::<Address, ReadInt>(symbol(c"cuDeviceGetCount")?) },
            // SAFETY: as for `cuInit`.
            device: unsafe { std::mem::transmute::<Address, GetDevice>(symbol(c"cuDeviceGet")?) },
            // SAFETY: as for `cuInit`.
            name: unsafe { std::mem::transmute::<Address, GetName>(symbol(c"cuDeviceGetName")?) },
            // SAFETY: as for `cuInit`.
            total_memory: unsafe { std::mem::transmute::<Address, TotalMemory>(symbol(c"cuDeviceTotalMem_v2")?) },
            // SAFETY: as for `cuInit`.
            attribute: unsafe { std::mem::transmute::<Address, Attribute>(symbol(c"cuDeviceGetAttribute")?) },
        };
        // SAFETY: the flags must be 0; may be called on any thread, any number of times.
        driver.check("cuInit", unsafe { init(0) })?;
        Ok(driver)
    }

    /// The newest CUDA version that the driver supports: 1000 * major + 10 * minor.
    pub(crate) fn version(&self) -> Result<i32, DeviceError> {
        // SAFETY: the driver writes one `int` to the pointer.
        self.read("cuDriverGetVersion", |out| unsafe { (self.version)(out) })
    }

    /// Number of GPUs that this process may see.
    pub(crate) fn count(&self) -> Result<i32, DeviceError> {
        // SAFETY: the driver is initialized (the type says so) and writes one `int` to the pointer.
        self.read("cuDeviceGetCount", |out| unsafe { (self.count)(out) })
    }

    /// The handle of device `index`, from 0 to [`Driver::count`] - 1; the driver refuses others.
    pub(crate) fn device(&self, index: i32) -> Result<i32, DeviceError> {
        // SAFETY: as for `count`; an index out of range is an error of the call.
        self.read("cuDeviceGet", |out| unsafe { (self.device)(out, index) })
    }

    /// The product's name.
    pub(crate) fn name(&self, device: i32) -> Result<String, DeviceError> {
        let mut buffer = [0u8; NAME_BYTES];
        // SAFETY: the driver writes at most `NAME_BYTES` bytes, a NUL included, to the buffer; an invalid handle is an
        // error of the call.
        let status = unsafe { (self.name)(buffer.as_mut_ptr().cast(), NAME_BYTES as c_int, device) };
        self.check("cuDeviceGetName", status)?;
        let name = CStr::from_bytes_until_nul(&buffer).unwrap_or_default();
        Ok(name.to_string_lossy().into_owned())
    }

    /// Memory in bytes.
    pub(crate) fn total_memory(&self, device: i32) -> Result<u64, DeviceError> {
        // SAFETY: the driver writes one `size_t` to the pointer; an invalid handle is an error of the call.
        self.read("cuDeviceTotalMem", |out| unsafe { (self.total_memory)(out, device) })
            .map(|bytes: usize| bytes as u64)
    }

    /// Compute capability, major and minor.
    pub(crate) fn compute_capability(&self, device: i32) -> Result<(i32, i32), DeviceError> {
        let attribute = |attribute| {
            // SAFETY: the driver writes one `int` to the pointer; an invalid handle is an error of the call.
            self.read("cuDeviceGetAttribute", |out| unsafe { (self.attribute)(out, attribute, device) })
        };
        Ok((attribute(COMPUTE_CAPABILITY_MAJOR)?, attribute(COMPUTE_CAPABILITY_MINOR)?))
    }

    /// Runs a call that writes one value.
    fn read<T: Default>(&self, call: &'static str, run: impl FnOnce(*mut T) -> Status) -> Result<T, DeviceError> {
        let mut value = T::default();
        self.check(call, run(&raw mut value))?;
        Ok(value)
    }

    fn check(&self, call: &'static str, status: Status) -> Result<(), DeviceError> {
        if status == 0 {
            return Ok(());
        }
        let mut text: *const c_char = std::ptr::null();
        // SAFETY: the driver writes one pointer, to a constant NUL-terminated string or null for an unknown status.
        unsafe { (self.error_string)(status, &raw mut text) };
        let reason = if text.is_null() {
            "unknown error".to_owned()
        } else {
            // SAFETY: not null, so it is that string.
            unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
        };
        Err(DeviceError::Call { call, status, reason })
    }
}
