//! Files that are something else than their names say: what people have when a download went another way than they think.

use std::path::Path;

use crate::error::FormatError;

/// What a file is, told by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ForeignFile {
    /// What `git clone` leaves without Git LFS: three lines of text that stand for a large file.
    GitLfsPointer,
    /// A page of a web site, such as one that asks to log in.
    HtmlPage,
    /// Weights for llama.cpp.
    Gguf,
    /// A Zip archive, such as PyTorch's pickled weights.
    Zip,
    /// A Tar archive, such as NeMo's models.
    Tar,
}

impl ForeignFile {
    /// Recognises a file by its content or its start; `None` for anything else, and for what the start of a JSON or safetensors
    /// file can be.
    pub fn recognise(start: &[u8]) -> Option<Self> {
        let text = start.trim_ascii_start();
        let begins = |words: &[u8]| text.get(..words.len()).is_some_and(|text| text.eq_ignore_ascii_case(words));
        // <https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md>
        if start.starts_with(b"version https://git-lfs.github.com/spec/") {
            Some(Self::GitLfsPointer)
        } else if begins(b"<!doctype html") || begins(b"<html") {
            Some(Self::HtmlPage)
        } else if start.starts_with(b"GGUF") {
            Some(Self::Gguf)
        } else if start.starts_with(b"PK\x03\x04") {
            Some(Self::Zip)
        } else if start.get(257..262) == Some(b"ustar") {
            Some(Self::Tar)
        } else {
            None
        }
    }

    /// What it is, with an article, and what to do.
    pub fn describe(self) -> (&'static str, &'static str) {
        match self {
            Self::GitLfsPointer => (
                "a Git LFS pointer",
                "the file itself was not fetched; run `git lfs install` and `git lfs pull` in the model's repository",
            ),
            Self::HtmlPage => (
                "an HTML page",
                "the server answered with a page instead of the file; log in there, and download it again",
            ),
            Self::Gguf => ("a GGUF file", "give the file itself as the model, outside a directory of other weights"),
            Self::Zip => ("a Zip archive, as PyTorch writes its weights", "use the model's safetensors files instead"),
            Self::Tar => (
                "a Tar archive, as NeMo writes its models",
                "give the archive itself as the model, outside a directory of other weights",
            ),
        }
    }

    /// The error for the file at `path`.
    pub fn error(self, path: &Path) -> FormatError {
        let (what, advice) = self.describe();
        FormatError::Foreign { path: path.to_owned(), what, advice }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_recognised_by_how_they_begin() {
        let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n";
        assert_eq!(ForeignFile::recognise(pointer), Some(ForeignFile::GitLfsPointer));
        assert_eq!(ForeignFile::recognise(b"\n <!DOCTYPE html>"), Some(ForeignFile::HtmlPage));
        assert_eq!(ForeignFile::recognise(b"<HTML lang=en>"), Some(ForeignFile::HtmlPage));
        assert_eq!(ForeignFile::recognise(b"GGUF\x03\0\0\0"), Some(ForeignFile::Gguf));
        assert_eq!(ForeignFile::recognise(b"PK\x03\x04\0"), Some(ForeignFile::Zip));
        let mut tar = [0; 512];
        tar[257..262].copy_from_slice(b"ustar");
        assert_eq!(ForeignFile::recognise(&tar), Some(ForeignFile::Tar));
        for other in [&b""[..], b"{\"version\": \"https://git-lfs\"}", b"GGU", b"\x40\0\0\0\0\0\0\0{}"] {
            assert_eq!(ForeignFile::recognise(other), None);
        }
    }
}
