//! The tokenizer's files and what else travels with a model, copied as they are.

use std::path::Path;

use engine_format::FormatError;
use engine_format::engine_dir::COMPANION_FILES;

use crate::error::Result;

/// The companion files that the directory has, with their content.
///
/// # Errors
/// A file that is there and cannot be read.
pub(crate) fn read(dir: &Path) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let mut files = Vec::new();
    for name in COMPANION_FILES {
        let path = dir.join(name);
        match std::fs::read(&path) {
            Ok(content) => files.push((name, content)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(FormatError::io("read", &path)(error).into()),
        }
    }
    Ok(files)
}
