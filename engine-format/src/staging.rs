//! Outputs that appear whole or not at all, whoever else writes there: threads, processes, or containers that share a volume.
//!
//! An output is written beside its place and put there in one step, after its files are on the disk. A writer that is killed at
//! any instant leaves the place as it was or with the whole new output, and beside it at most something that the next writer of
//! the same place removes (`staging::aside`). Nothing else stays.

mod aside;

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::error::{FormatError, Result};
use aside::{Aside, Kind};

/// A directory that is written beside its destination, and moved there when it is complete. Dropped before
/// [`StagedDir::commit`], it is removed: an interrupted build leaves nothing.
#[derive(Debug)]
pub struct StagedDir {
    aside: Aside,
    destination: PathBuf,
    replace: bool,
    marker: String,
}

impl StagedDir {
    /// Makes an empty directory beside `destination`, with `destination`'s missing parents. A `destination` that is a link to a
    /// directory stands for that directory.
    ///
    /// With `replace`, a directory at `destination` is replaced at commit, but only one that holds `marker` (a file that
    /// shows what kind of directory it is) or nothing. Then several may write the same place, and the last to commit stands.
    ///
    /// # Errors
    /// [`FormatError::Exists`] when `destination` exists and may not be replaced; without `replace`, [`FormatError::Busy`] when
    /// another is writing it; [`FormatError::Io`].
    pub fn create(destination: &Path, replace: bool, marker: &str) -> Result<Self> {
        let destination = resolved(destination)?;
        check(&destination, replace, marker)?;
        let (folder, _) = aside::split(&destination)?;
        fs::create_dir_all(folder).map_err(FormatError::io("create", folder))?;
        let aside = Aside::make(&destination, Kind::Directory, !replace)?;
        Ok(Self { aside, destination, replace, marker: marker.to_owned() })
    }

    /// The directory to write to until it is committed.
    pub fn path(&self) -> &Path {
        self.aside.path()
    }

    /// Writes one small file, and the folder that `name` may begin with.
    ///
    /// # Errors
    /// [`FormatError::Io`].
    pub fn write(&self, name: &str, content: &[u8]) -> Result<()> {
        let path = self.path().join(name);
        let folder = path.parent().filter(|&folder| folder != self.path());
        if let Some(folder) = folder {
            fs::create_dir_all(folder).map_err(FormatError::io("create", folder))?;
        }
        write_synced(&path, content).map_err(FormatError::io("write", &path))?;
        if let Some(folder) = folder {
            // On some network file systems a directory cannot be synced; its files have been.
            let _ = File::open(folder).and_then(|folder| folder.sync_all());
        }
        Ok(())
    }

    /// Moves the directory to its destination.
    ///
    /// # Errors
    /// [`FormatError::Exists`] when something that may not be replaced has come there meanwhile; [`FormatError::Io`]. What was
    /// there is then still there.
    pub fn commit(self) -> Result<()> {
        let Self { aside, destination, replace, marker } = self;
        aside.replace(&destination, || check(&destination, replace, &marker))
    }
}

/// Writes a file that is there whole or not at all: what was there before stays until it is. What is no regular file (a pipe, a
/// terminal) is written to.
///
/// # Errors
/// [`FormatError::Io`].
pub fn write_file(destination: &Path, content: &[u8]) -> Result<()> {
    let destination = resolved(destination)?;
    if fs::metadata(&destination).is_ok_and(|data| !data.is_file() && !data.is_dir()) {
        return fs::write(&destination, content).map_err(FormatError::io("write", &destination));
    }
    let aside = Aside::make(&destination, Kind::File, false)?;
    write_synced(aside.path(), content).map_err(FormatError::io("write", &destination))?;
    aside.replace(&destination, || Ok(()))
}

fn write_synced(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(content)?;
    file.sync_all()
}

/// What a link leads to, so that the link stays.
fn resolved(destination: &Path) -> Result<PathBuf> {
    if fs::symlink_metadata(destination).is_ok_and(|data| data.is_symlink()) {
        return fs::canonicalize(destination).map_err(FormatError::io("follow the link", destination));
    }
    Ok(destination.to_owned())
}

/// Whether an output may be put at `destination`.
fn check(destination: &Path, replace: bool, marker: &str) -> Result<()> {
    let Ok(data) = fs::symlink_metadata(destination) else {
        return Ok(());
    };
    let exists = |hint: String| Err(FormatError::Exists { path: destination.to_owned(), hint });
    let (folder, _) = aside::split(destination)?;
    if data.is_dir() && fs::metadata(folder).is_ok_and(|folder| folder.dev() != data.dev()) {
        return exists("another file system is mounted there; name a directory inside it".into());
    }
    let is_empty = fs::read_dir(destination).is_ok_and(|mut entries| entries.next().is_none());
    if !replace && !is_empty {
        return exists("choose another directory, or set `force` to replace it".into());
    }
    if !is_empty && !destination.join(marker).is_file() {
        return exists(format!("`force` replaces only a directory that holds `{marker}`; move it away yourself"));
    }
    Ok(())
}

/// Bytes free for the user on the file system that holds `path` or its nearest existing parent; `None` when the system
/// does not say.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let existing = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("."));
    crate::mmap::file_system_free_bytes(existing)
}

#[cfg(test)]
mod tests;
