//! What is written beside its place: made, locked, put into place, and cleared away when its writer was killed.
//!
//! Names are `.NAME.partial-` and twelve random characters, made with calls that only create. A writer holds a lock (`flock`) on
//! what it writes: what has such a name and no lock was left behind by a writer that was killed, in whatever process or container
//! that was, and the next writer removes it. The folder is locked only for moments, while something is made or put into place, so
//! that nothing is seen between its making and its lock. On a file system without locks nothing is ever taken for left behind.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::error::{FormatError, Result};

/// How long others may hold the folder's lock; they hold it for moments.
const PATIENCE: Duration = Duration::from_secs(20);

/// Random characters of a name: guessing one is hopeless.
const RANDOM: usize = 12;

/// A file or directory beside its place, removed when it is dropped before [`Aside::replace`].
#[derive(Debug)]
pub(super) struct Aside {
    path: PathBuf,
    /// Held for as long as the writer lives; `None` where the file system has no locks.
    lock: Option<File>,
}

/// What is made aside.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    File,
    Directory,
}

impl Aside {
    /// Makes an empty file or directory beside `place`, and removes what killed writers left there.
    ///
    /// # Errors
    /// With `alone`, [`FormatError::Busy`] where somebody else is writing the same place; [`FormatError::Io`].
    pub(super) fn make(place: &Path, kind: Kind, alone: bool) -> Result<Self> {
        let (folder, name) = split(place)?;
        let folder_lock = lock_folder(folder)?;
        let others = others(folder, name);
        let is_busy = others.iter().any(|other| matches!(other, Other::Written));
        if alone && is_busy {
            return Err(FormatError::Busy { path: place.to_owned() });
        }
        let path = create(folder, name, kind).map_err(FormatError::io("create", place))?;
        let lock = match lock(&path) {
            Locked::Mine(lock) => Some(lock),
            Locked::Others | Locked::Unknown => None,
        };
        drop(folder_lock);
        for other in others {
            if let Other::LeftBehind(path, _lock) = other {
                remove(&path)?;
            }
        }
        Ok(Self { path, lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts it in the place of what is at `place`, which must be absent or pass `may_replace`, in one step; then removes what was
    /// there.
    ///
    /// # Errors
    /// What `may_replace` says; [`FormatError::Io`]. What was there is then still there.
    pub(super) fn replace(mut self, place: &Path, may_replace: impl FnOnce() -> Result<()>) -> Result<()> {
        if let Some(lock) = &self.lock {
            // On some network file systems a directory cannot be synced; its files have been.
            let _ = lock.sync_all();
        }
        let (folder, name) = split(place)?;
        let folder_lock = lock_folder(folder)?;
        may_replace()?;
        let old = match fs::rename(&self.path, place) {
            Ok(()) => None,
            // A directory that is not empty, which rename(2) does not replace.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {
                let old = exchange(&self.path, place, folder, name).map_err(FormatError::io("replace", place))?;
                Some((lock(&old), old))
            }
            Err(error) => return Err(FormatError::io("write", place)(error)),
        };
        self.path = PathBuf::new();
        // It is nobody's to write any more.
        self.lock = None;
        // A folder that cannot be synced (some network file systems) has been changed all the same.
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
        drop(folder_lock);
        old.map_or(Ok(()), |(_lock, old)| remove(&old))
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            // What cannot be removed now is removed by the next writer.
            let _ = remove(&self.path);
        }
    }
}

/// The folder of a place, and its name there.
pub(super) fn split(place: &Path) -> Result<(&Path, &OsStr)> {
    let hint = || FormatError::Exists { path: place.to_owned(), hint: "give the output a name".into() };
    let name = place.file_name().ok_or_else(hint)?;
    let folder = place.parent().filter(|folder| !folder.as_os_str().is_empty());
    Ok((folder.unwrap_or(Path::new(".")), name))
}

fn prefix(name: &OsStr) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(name);
    prefix.push(".partial-");
    prefix
}

fn create(folder: &Path, name: &OsStr, kind: Kind) -> io::Result<PathBuf> {
    let prefix = prefix(name);
    let mut builder = tempfile::Builder::new();
    builder.prefix(&prefix).rand_bytes(RANDOM);
    // As other programs make files and folders: the process's umask decides.
    match kind {
        Kind::Directory => Ok(builder.permissions(Permissions::from_mode(0o777)).tempdir_in(folder)?.keep()),
        Kind::File => {
            let file = builder.permissions(Permissions::from_mode(0o666)).tempfile_in(folder)?;
            file.into_temp_path().keep().map_err(|error| error.error)
        }
    }
}

/// What else is beside a place.
enum Other {
    /// Somebody holds its lock.
    Written,
    /// Nobody did; now this one does.
    LeftBehind(PathBuf, File),
}

/// Everything aside for the place `name`, as far as the folder may be read and has locks.
fn others(folder: &Path, name: &OsStr) -> Vec<Other> {
    let prefix = prefix(name);
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let aside = entries.filter(|entry| {
        let name = entry.file_name();
        name.as_bytes()
            .strip_prefix(prefix.as_bytes())
            .is_some_and(|rest| !rest.is_empty() && rest.iter().all(u8::is_ascii_alphanumeric))
    });
    aside
        .filter_map(|entry| match lock(&entry.path()) {
            Locked::Mine(lock) => Some(Other::LeftBehind(entry.path(), lock)),
            Locked::Others => Some(Other::Written),
            Locked::Unknown => None,
        })
        .collect()
}

enum Locked {
    Mine(File),
    Others,
    /// It is not there, or its file system has no locks.
    Unknown,
}

fn lock(path: &Path) -> Locked {
    let Ok(file) = File::open(path) else {
        return Locked::Unknown;
    };
    match file.try_lock() {
        Ok(()) => Locked::Mine(file),
        Err(TryLockError::WouldBlock) => Locked::Others,
        Err(TryLockError::Error(_)) => Locked::Unknown,
    }
}

/// The folder's lock; `None` where it may not be read, or has no locks.
fn lock_folder(folder: &Path) -> Result<Option<File>> {
    let start = Instant::now();
    loop {
        match lock(folder) {
            Locked::Mine(lock) => return Ok(Some(lock)),
            Locked::Unknown => return Ok(None),
            Locked::Others if start.elapsed() < PATIENCE => std::thread::sleep(Duration::from_millis(2)),
            Locked::Others => {
                let error = io::Error::new(io::ErrorKind::ResourceBusy, "another program has locked the folder");
                return Err(FormatError::io("lock", folder)(error));
            }
        }
    }
}

/// Puts `new` in the place of a directory in one step, and returns where that is now. Where the system cannot do that, in two:
/// killed between them, nothing is at the place, and both are aside.
fn exchange(new: &Path, place: &Path, folder: &Path, name: &OsStr) -> io::Result<PathBuf> {
    match renameat_with(CWD, new, CWD, place, RenameFlags::EXCHANGE) {
        Ok(()) => Ok(new.to_owned()),
        Err(Errno::NOSYS | Errno::INVAL | Errno::NOTSUP) => exchange_in_two_steps(new, place, folder, name),
        Err(error) => Err(error.into()),
    }
}

fn exchange_in_two_steps(new: &Path, place: &Path, folder: &Path, name: &OsStr) -> io::Result<PathBuf> {
    let old = create(folder, name, Kind::Directory)?;
    fs::rename(place, &old)?;
    fs::rename(new, place).inspect_err(|_| {
        // Nothing more can be done where not even this is possible.
        let _ = fs::rename(&old, place);
    })?;
    Ok(old)
}

/// Removes a file or a directory that somebody else may be removing too.
fn remove(path: &Path) -> Result<()> {
    let removed = fs::symlink_metadata(path)
        .and_then(|data| if data.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) });
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FormatError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_steps_do_what_one_does() {
        let dir = tempfile::tempdir().unwrap();
        let (new, place) = (dir.path().join("new"), dir.path().join("place"));
        for (path, file) in [(&new, "n"), (&place, "p")] {
            fs::create_dir(path).unwrap();
            fs::write(path.join(file), "").unwrap();
        }
        let old = exchange_in_two_steps(&new, &place, dir.path(), OsStr::new("place")).unwrap();
        assert!(place.join("n").exists() && old.join("p").exists() && !new.exists());
        let old = exchange(&old, &place, dir.path(), OsStr::new("place")).unwrap();
        assert!(place.join("p").exists() && old.join("n").exists());
    }

    #[test]
    fn only_what_is_named_so_and_has_no_lock_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        for name in [".out.partial-1234", ".out.partial-", ".out.partial-a.b", ".outer.partial-1", "out.partial-1"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let alive = Aside::make(&dir.path().join("out"), Kind::Directory, true).unwrap();
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(!left.contains(&".out.partial-1234".into()), "{left:?}");
        assert_eq!(left.len(), 5, "{left:?}");
        let second = Aside::make(&dir.path().join("out"), Kind::Directory, true).unwrap_err();
        assert!(matches!(second, FormatError::Busy { .. }), "{second}");
        let second = Aside::make(&dir.path().join("out"), Kind::Directory, false).unwrap();
        assert!(alive.path().is_dir() && second.path().is_dir());
    }
}
