//! The one place that maps files into memory, and asks the system about the file systems that hold them.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::error::{FormatError, Result};

/// A file mapped read-only, shared with every other process that maps it.
///
/// The bytes are untrusted. A file that is truncated by somebody else while it is mapped ends the process with
/// `SIGBUS` when the lost pages are touched; there is no portable defence, so sizes are checked once, at open.
#[derive(Debug)]
pub struct MappedFile {
    path: PathBuf,
    map: memmap2::Mmap,
}

impl MappedFile {
    /// Maps the whole of `path`.
    ///
    /// # Errors
    /// [`FormatError::Io`] when the file cannot be opened or mapped (a directory, for one).
    pub fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(FormatError::io("open", path))?;
        // SAFETY: the mapping is read-only and private to `&[u8]` views; the duty that nobody changes the file while it
        // is mapped is the user's, as the type's documentation says. Every reader validates what it reads.
        let map = unsafe { memmap2::Mmap::map(&file) };
        let map = map.map_err(|error| FormatError::io("map", path)(with_size(error, &file)))?;
        Ok(Self { path: path.to_owned(), map })
    }

    /// The file's path, as given to [`MappedFile::open`].
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file's content.
    pub fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Tells the system that the whole file will be read once, in order.
    pub fn advise_sequential(&self) {
        let _ = self.map.advise(memmap2::Advice::Sequential);
    }

    /// Tells the system that `range` (bytes of the file) will be read soon, so that it reads it from the disk meanwhile.
    pub fn prefetch(&self, range: Range<usize>) {
        let end = range.end.min(self.map.len());
        if let Some(length) = end.checked_sub(range.start).filter(|&length| length > 0) {
            let _ = self.map.advise_range(memmap2::Advice::WillNeed, range.start, length);
        }
    }

    /// Gives the pages inside `range` (bytes of the file) back to the system; reading them again is allowed and reads
    /// the file again. Pages that are only partly inside stay.
    pub fn release(&self, range: Range<usize>) {
        const PAGE: usize = 4096;
        let start = range.start.next_multiple_of(PAGE);
        let end = if range.end >= self.map.len() { self.map.len() } else { range.end / PAGE * PAGE };
        if start < end {
            // SAFETY: DONTNEED on a read-only file mapping only drops clean pages; later reads fault them in again with
            // the same content, so no `&[u8]` into the map changes value. The range lies inside the map.
            let _ = unsafe { self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start) };
        }
    }

    /// Where `part`, a slice of [`MappedFile::bytes`], begins in the file; `None` when it is not from this map.
    pub fn offset_of(&self, part: &[u8]) -> Option<usize> {
        let offset = (part.as_ptr() as usize).checked_sub(self.map.as_ptr() as usize)?;
        (offset + part.len() <= self.map.len()).then_some(offset)
    }
}

/// An error that says how much address space was refused, where it was, and keeps its kind.
fn with_size(error: io::Error, file: &File) -> io::Error {
    match file.metadata() {
        Ok(metadata) if error.kind() == io::ErrorKind::OutOfMemory => {
            let bytes = metadata.len();
            let advice = "let the process have more (`ulimit -v`)";
            io::Error::new(error.kind(), format!("its {bytes} bytes of address space are refused: {advice}"))
        }
        _ => error,
    }
}

/// Makes a write beyond the process's file-size limit an error like a full disk, rather than the end of the process,
/// which would leave a half-written output behind. For programs, at their start.
pub fn report_file_size_limit_as_error() {
    // SAFETY: SIG_IGN is a valid disposition for SIGXFSZ and runs no code of ours; no other thread of a program that is
    // starting changes this signal's disposition.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
}

/// Bytes that the user may still write on the file system that holds `path`.
pub(crate) fn file_system_free_bytes(path: &Path) -> Option<u64> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut facts = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `path` is a NUL-terminated string and `facts` has room for the structure; both outlive the call.
    let status = unsafe { libc::statvfs(path.as_ptr(), facts.as_mut_ptr()) };
    if status != 0 {
        return None;
    }
    // SAFETY: the call reported success, so it has filled the structure.
    let facts = unsafe { facts.assume_init() };
    Some(facts.f_bavail.saturating_mul(facts.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn released_pages_read_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("data");
        let content: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &content).unwrap();
        let map = MappedFile::open(&path).unwrap();
        assert_eq!(map.bytes(), content);
        map.prefetch(5_000..usize::MAX);
        map.prefetch(usize::MAX..usize::MAX);
        map.release(10..90_000);
        map.release(0..usize::MAX);
        assert_eq!(map.bytes(), content);
        assert_eq!(map.offset_of(&map.bytes()[17..30]), Some(17));
        assert_eq!(map.offset_of(&content), None);
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = MappedFile::open(Path::new("no/such/file")).unwrap_err();
        assert!(error.to_string().contains("no/such/file"), "{error}");
    }
}
