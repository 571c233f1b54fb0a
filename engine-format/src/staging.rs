//! Output directories that appear whole or not at all.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{FormatError, Result};

/// A directory that is written next to its destination, under a temporary name, and renamed when it is complete. Dropped before
/// [`StagedDir::commit`], it is removed: an interrupted build leaves nothing.
#[derive(Debug)]
pub struct StagedDir {
    temporary: PathBuf,
    destination: PathBuf,
    committed: bool,
}

impl StagedDir {
    /// Makes an empty directory next to `destination`, with `destination`'s missing parents.
    ///
    /// With `replace`, a directory at `destination` is replaced at commit, but only one that holds `marker` (a file that
    /// shows what kind of directory it is) or nothing.
    ///
    /// # Errors
    /// [`FormatError::Exists`] when `destination` exists and may not be replaced; [`FormatError::Io`].
    pub fn create(destination: &Path, replace: bool, marker: &str) -> Result<Self> {
        if destination.symlink_metadata().is_ok() {
            let is_empty = fs::read_dir(destination).is_ok_and(|mut entries| entries.next().is_none());
            if !replace && !is_empty {
                let hint = "choose another directory, or give --force to replace it".to_owned();
                return Err(FormatError::Exists { path: destination.to_owned(), hint });
            }
            if !is_empty && !destination.join(marker).is_file() {
                let hint = format!("--force replaces only a directory that holds `{marker}`; move it away yourself");
                return Err(FormatError::Exists { path: destination.to_owned(), hint });
            }
        }
        let name = destination.file_name().ok_or_else(|| FormatError::Exists {
            path: destination.to_owned(),
            hint: "name a directory to create".into(),
        })?;
        let parent = match destination.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(parent).map_err(FormatError::io("create", parent))?;
        let temporary = parent.join(format!(".{}.partial-{}", name.to_string_lossy(), std::process::id()));
        if temporary.exists() {
            fs::remove_dir_all(&temporary).map_err(FormatError::io("remove", &temporary))?;
        }
        fs::create_dir(&temporary).map_err(FormatError::io("create", &temporary))?;
        Ok(Self { temporary, destination: destination.to_owned(), committed: false })
    }

    /// The directory to write to until it is committed.
    pub fn path(&self) -> &Path {
        &self.temporary
    }

    /// Writes one small file.
    ///
    /// # Errors
    /// [`FormatError::Io`].
    pub fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.temporary.join(name);
        let mut file = File::create(&path).map_err(FormatError::io("create", &path))?;
        file.write_all(content).map_err(FormatError::io("write", &path))?;
        file.sync_all().map_err(FormatError::io("write", &path))
    }

    /// Renames the directory to its destination.
    ///
    /// # Errors
    /// [`FormatError::Io`]; the directory that was there, if any, is then still there.
    pub fn commit(mut self) -> Result<()> {
        let old = self.temporary.with_extension("old");
        let exists = self.destination.symlink_metadata().is_ok();
        if exists {
            fs::rename(&self.destination, &old).map_err(FormatError::io("rename", &self.destination))?;
        }
        if let Err(error) = fs::rename(&self.temporary, &self.destination) {
            if exists {
                fs::rename(&old, &self.destination).map_err(FormatError::io("rename", &old))?;
            }
            return Err(FormatError::io("rename", &self.temporary)(error));
        }
        self.committed = true;
        if exists {
            fs::remove_dir_all(&old).map_err(FormatError::io("remove", &old))?;
        }
        if let Some(parent) = self.destination.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            // A directory that cannot be synced (some network file systems) is still renamed.
            let _ = File::open(parent).and_then(|directory| directory.sync_all());
        }
        Ok(())
    }
}

impl Drop for StagedDir {
    fn drop(&mut self) {
        if !self.committed {
            let _ = fs::remove_dir_all(&self.temporary);
        }
    }
}

/// Bytes free for the user on the file system that holds `path` or its nearest existing parent; `None` when the system
/// does not say.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let existing = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("."));
    crate::mmap::file_system_free_bytes(existing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_directory_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let destination = dir.path().join("deep/out");
        let staged = StagedDir::create(&destination, false, "marker").unwrap();
        staged.write("file", b"x").unwrap();
        drop(staged);
        assert_eq!(fs::read_dir(dir.path().join("deep")).unwrap().count(), 0);
    }

    #[test]
    fn only_a_marked_directory_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let destination = dir.path().join("out");
        fs::create_dir(&destination).unwrap();
        fs::write(destination.join("precious"), "x").unwrap();
        assert!(matches!(StagedDir::create(&destination, false, "marker"), Err(FormatError::Exists { .. })));
        assert!(matches!(StagedDir::create(&destination, true, "marker"), Err(FormatError::Exists { .. })));
        fs::write(destination.join("marker"), "x").unwrap();
        let staged = StagedDir::create(&destination, true, "marker").unwrap();
        staged.write("new", b"y").unwrap();
        staged.commit().unwrap();
        assert!(destination.join("new").exists() && !destination.join("precious").exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
