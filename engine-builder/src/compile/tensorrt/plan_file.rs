//! An engine file: the plan that TensorRT hands over in pieces, written and hashed as it comes.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use engine_format::FormatError;
use engine_format::manifest::FileRecord;

/// An engine file that is written in pieces and hashed on the way.
pub(super) struct PlanFile<'a> {
    path: &'a Path,
    file: File,
    hasher: blake3::Hasher,
    bytes: u64,
    error: Option<std::io::Error>,
}

impl<'a> PlanFile<'a> {
    pub(super) fn create(path: &'a Path) -> Result<Self, FormatError> {
        let file = File::create(path).map_err(FormatError::io("create", path))?;
        Ok(Self { path, file, hasher: blake3::Hasher::new(), bytes: 0, error: None })
    }

    /// Appends `bytes`. After the first error nothing more is written, and the answer is `false`;
    /// [`PlanFile::finish`] has the error.
    pub(super) fn write(&mut self, bytes: &[u8]) -> bool {
        if self.error.is_none() {
            self.hasher.update(bytes);
            self.bytes += bytes.len() as u64;
            self.error = self.file.write_all(bytes).err();
        }
        self.error.is_none()
    }

    /// The finished file's size and hash.
    ///
    /// # Errors
    /// What the system said to the first write that failed.
    pub(super) fn finish(self) -> Result<FileRecord, FormatError> {
        let io = FormatError::io("write", self.path);
        match self.error {
            Some(error) => Err(io(error)),
            None => {
                self.file.sync_all().map_err(io)?;
                let blake3 = self.hasher.finalize().to_hex().to_string();
                Ok(FileRecord { bytes: self.bytes, blake3, head_blake3: None })
            }
        }
    }
}
