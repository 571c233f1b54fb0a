//! The members of a model: of a `.nemo` file, which is a tar archive and is read in place, or of a directory that was unpacked of one.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use engine_format::mmap::MappedFile;
use engine_format::{ForeignFile, FormatError};
use tar::EntryType;

use crate::error::Result;
use crate::huggingface::config::CONFIG_FILE;

/// The member with the model's configuration.
pub(crate) const MODEL_CONFIG: &str = "model_config.yaml";

/// Members of an archive at most.
const MAX_MEMBERS: usize = 1 << 20;

/// The members, by name.
#[derive(Debug)]
pub(crate) struct Archive {
    path: PathBuf,
    files: Vec<MappedFile>,
    members: BTreeMap<String, (usize, Range<usize>)>,
}

/// One member.
#[derive(Debug, Clone)]
pub(super) struct Member<'a> {
    /// Its name, as a path in the archive.
    pub(super) path: PathBuf,
    /// The number of its file, [`Archive::file`].
    pub(super) file: usize,
    /// Where it begins there.
    pub(super) start: usize,
    pub(super) bytes: &'a [u8],
}

/// The NeMo model that `path` names: an archive, a directory with one, or one that was unpacked; `None` for anything else.
///
/// # Errors
/// A directory with several archives.
pub(crate) fn find(path: &Path) -> Result<Option<PathBuf>> {
    if !path.is_dir() {
        let mut start = [0; 512];
        let read = std::fs::File::open(path).and_then(|mut file| std::io::Read::read(&mut file, &mut start));
        let is_tar = ForeignFile::recognise(&start[..read.unwrap_or(0)]) == Some(ForeignFile::Tar);
        let is_named_so = path.is_file() && is_archive_name(path);
        return Ok((is_tar || is_named_so).then(|| path.to_owned()));
    }
    if path.join(CONFIG_FILE).is_file() {
        return Ok(None);
    }
    if path.join(MODEL_CONFIG).is_file() {
        return Ok(Some(path.to_owned()));
    }
    let entries = std::fs::read_dir(path).map_err(FormatError::io("read", path))?;
    let mut archives: Vec<_> =
        entries.flatten().map(|entry| entry.path()).filter(|file| is_archive_name(file)).collect();
    archives.sort();
    match archives.as_slice() {
        [] => Ok(None),
        [archive] => Ok(Some(archive.clone())),
        [first, second, ..] => {
            let (first, second) = (first.display(), second.display());
            let hint = format!("the directory holds several, `{first}` and `{second}` among them: name one of them");
            Err(FormatError::Missing { path: path.join("*.nemo"), hint }.into())
        }
    }
}

fn is_archive_name(path: &Path) -> bool {
    path.extension().is_some_and(|end| end == "nemo")
}

impl Archive {
    /// Opens what [`find`] found.
    ///
    /// # Errors
    /// A file that is no tar archive; a member that is a link or something else than a file, that has a name which leads out of the
    /// archive, that is there twice or lies outside the file.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let mut archive = Self { path: path.to_owned(), files: Vec::new(), members: BTreeMap::new() };
        if path.is_dir() {
            archive.add_directory("")?;
        } else {
            let file = MappedFile::open(path)?;
            archive.members =
                members(path, file.bytes())?.into_iter().map(|(name, range)| (name, (0, range))).collect();
            archive.files.push(file);
        }
        Ok(archive)
    }

    /// Adds the files in a folder that may be part of a model, and in the folders of ranks.
    fn add_directory(&mut self, folder: &str) -> Result<()> {
        let path = self.path.join(folder);
        let entries = std::fs::read_dir(&path).map_err(FormatError::io("read", &path))?;
        for entry in entries.flatten() {
            let Ok(name) = entry.file_name().into_string() else { continue };
            let path = entry.path();
            if path.is_dir() && folder.is_empty() && (name.contains("_rank_") || name == super::source::DISTRIBUTED) {
                self.add_directory(&format!("{name}/"))?;
            } else if path.is_file() && self.members.len() < MAX_MEMBERS {
                let file = MappedFile::open(&path)?;
                let range = 0..file.bytes().len();
                self.members.insert(format!("{folder}{name}"), (self.files.len(), range));
                self.files.push(file);
            }
        }
        Ok(())
    }

    /// The archive, or the directory.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&self, number: usize) -> &MappedFile {
        &self.files[number]
    }

    /// Names of the members, sorted.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.members.keys().map(String::as_str)
    }

    /// The member called `name`.
    pub(super) fn member(&self, name: &str) -> Option<Member<'_>> {
        let (file, range) = self.members.get(name)?;
        let bytes = &self.files[*file].bytes()[range.clone()];
        Some(Member { path: self.path.join(name), file: *file, start: range.start, bytes })
    }

    /// A member that has to be there.
    pub(super) fn required(&self, name: &str) -> Result<Member<'_>> {
        let hint = "every model of NeMo has one: the archive is not one, or not whole".to_owned();
        Ok(self.member(name).ok_or_else(|| FormatError::Missing { path: self.path.join(name), hint })?)
    }

    /// Bytes of all files.
    pub(super) fn total_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes().len() as u64).sum()
    }
}

/// The files in the tar archive `bytes`, by name.
fn members(path: &Path, bytes: &[u8]) -> engine_format::Result<BTreeMap<String, Range<usize>>> {
    let damaged = |problem: String| FormatError::damaged(path, problem);
    if bytes.starts_with(b"\x1f\x8b") {
        return Err(FormatError::Unsupported {
            path: path.to_owned(),
            field: "compression".to_owned(),
            value: "gzip".to_owned(),
            supported: "a plain tar archive, which is read in place; make one by `gunzip -c FILE > PLAIN.nemo`"
                .to_owned(),
        });
    }
    let broken = |error: std::io::Error| {
        damaged(format!("it is no tar archive, as NeMo writes its models: {}", error.to_string().escape_debug()))
    };
    let mut archive = tar::Archive::new(std::io::Cursor::new(bytes));
    let mut members = BTreeMap::new();
    for entry in archive.entries_with_seek().map_err(broken)? {
        let entry = entry.map_err(broken)?;
        let stored = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
        match entry.header().entry_type() {
            EntryType::Directory | EntryType::XGlobalHeader => continue,
            EntryType::Regular | EntryType::Continuous => {}
            other => {
                return Err(FormatError::Unsupported {
                    path: path.to_owned(),
                    field: format!("the type of its member {stored}"),
                    value: format!("{other:?}"),
                    supported: "files and directories".to_owned(),
                });
            }
        }
        let name = stored.strip_prefix("./").unwrap_or(&stored).to_owned();
        let is_plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\\', '\0', '\u{fffd}']);
        if !name.split('/').all(is_plain) {
            return Err(damaged(format!("its member `{stored}` has a name that is no place inside an archive")));
        }
        let start = entry.raw_file_position();
        let range = start.checked_add(entry.size()).filter(|&end| end <= bytes.len() as u64);
        let range = range.map(|end| start as usize..end as usize);
        let range = range.ok_or_else(|| damaged(format!("it ends inside its member `{name}`: fetch it again")))?;
        if members.len() == MAX_MEMBERS {
            return Err(damaged(format!("it has more than {MAX_MEMBERS} members")));
        }
        if members.insert(name.clone(), range).is_some() {
            return Err(damaged(format!("its member `{name}` is there twice")));
        }
    }
    if members.is_empty() {
        return Err(damaged("it is no tar archive, as NeMo writes its models: it has no members".to_owned()));
    }
    Ok(members)
}
