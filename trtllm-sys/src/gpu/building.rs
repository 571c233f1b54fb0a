//! One process runs engines or builds them: TensorRT-LLM's plugins compute nothing while one of its engines is built. Why, and how it
//! is kept apart, is in the shim (`gpu/cpp/use.h`), of which a process has one, however often this library is in it.

use super::executor::{ErrorBuffer, function};
use super::library::Table;
use super::{GpuError, GpuLibrary};

/// A build in this process, from its first step to its last: no engine can be opened in the process until this is dropped.
#[derive(Debug)]
pub struct GpuBuilding {
    table: Table,
}

impl GpuLibrary {
    /// Begins a build.
    ///
    /// # Errors
    /// [`GpuError::Busy`] where this process has an executor open, or one that is being opened.
    pub fn begin_build(&self) -> Result<GpuBuilding, GpuError> {
        let begin = function!(self.table(), begin_build)?;
        let mut error = ErrorBuffer::new();
        // SAFETY: no duty but the pointer's; every success is ended once, below.
        let status = unsafe { begin(error.get()) };
        error.check(status)?;
        Ok(GpuBuilding { table: self.table() })
    }
}

impl Drop for GpuBuilding {
    fn drop(&mut self) {
        if let Some(end) = self.table.get().end_build {
            // SAFETY: this value's own beginning, ended once.
            unsafe { end() };
        }
    }
}
