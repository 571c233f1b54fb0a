//! Which GGUF files a path names: a file, a directory with one, or the parts of one that was split.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use engine_format::FormatError;
use engine_format::checkpoint::rank_file;
use engine_format::safetensors_dir::{INDEX_FILE, SINGLE_FILE};

use super::container::MAGIC;
use crate::error::Result;

/// Parts of a split file at most.
const MAX_PARTS: usize = 1000;

/// The files of the model at `path`, all parts in their order; `None` where it is no GGUF model. A directory that has the weights of
/// another format too is one of that.
///
/// # Errors
/// A directory with several models, or a part that is missing.
pub(crate) fn find(path: &Path) -> Result<Option<Vec<PathBuf>>> {
    if path.is_dir() {
        if [SINGLE_FILE, INDEX_FILE, &rank_file(0)].iter().any(|name| path.join(name).is_file()) {
            return Ok(None);
        }
        let entries = std::fs::read_dir(path).map_err(FormatError::io("read", path))?;
        let files = entries.flatten().map(|entry| entry.path());
        let mut files: Vec<_> = files.filter(|file| file.extension().is_some_and(|end| end == "gguf")).collect();
        // The first part stands for the others.
        files.retain(|file| split(file).is_none_or(|(_, part, _)| part == 1));
        files.sort();
        return match files.as_slice() {
            [] => Ok(None),
            [file] => parts(file).map(Some),
            [first, second, ..] => {
                let (first, second) = (first.display(), second.display());
                let hint =
                    format!("the directory holds several, `{first}` and `{second}` among them: name one of them");
                Err(FormatError::Missing { path: path.join("*.gguf"), hint }.into())
            }
        };
    }
    let mut start = [0; MAGIC.len()];
    let is_gguf = File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == MAGIC;
    if is_gguf { parts(path).map(Some) } else { Ok(None) }
}

/// The parts of the file that `file` is a part of, or itself.
fn parts(file: &Path) -> Result<Vec<PathBuf>> {
    let Some((name, _, count)) = split(file) else { return Ok(vec![file.to_owned()]) };
    let parts: Vec<_> =
        (1..=count).map(|part| file.with_file_name(format!("{name}-{part:05}-of-{count:05}.gguf"))).collect();
    match parts.iter().find(|part| !part.is_file()) {
        None => Ok(parts),
        Some(missing) => {
            let hint = format!("it is one of the {count} parts of a model, which have to be together");
            Err(FormatError::Missing { path: missing.clone(), hint }.into())
        }
    }
}

/// Name, number and count of a part, as `llama-gguf-split` calls it.
fn split(file: &Path) -> Option<(&str, usize, usize)> {
    let name = file.file_name()?.to_str()?.strip_suffix(".gguf")?;
    let (rest, count) = name.rsplit_once("-of-")?;
    let (name, part) = rest.rsplit_once('-')?;
    let number = |digits: &str| digits.parse().ok().filter(|_| digits.len() == 5);
    let (part, count) = (number(part)?, number(count)?);
    (1..=count).contains(&part).then_some((name, part, count)).filter(|_| count <= MAX_PARTS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_known_by_their_names() {
        assert_eq!(split(Path::new("a/b-c-00002-of-00003.gguf")), Some(("b-c", 2, 3)));
        for other in
            ["b.gguf", "b-00004-of-00003.gguf", "b-2-of-3.gguf", "b-00001-of-00003.bin", "b-00000-of-00003.gguf"]
        {
            assert_eq!(split(Path::new(other)), None, "{other}");
        }
    }
}
