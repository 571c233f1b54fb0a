//! The directory of a zip archive, as far as PyTorch's checkpoints need it: entries that are stored as they are, in archives of any size.
//!
//! Source: PKWARE's APPNOTE 6.3.10. Nothing is unpacked and nothing is copied; checksums are not compared.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use engine_format::{FormatError, Result};

/// Entries of an archive at most.
const MAX_ENTRIES: u64 = 1 << 20;

/// Bytes of the record at the end, and of a comment behind it at most.
const END_BYTES: usize = 22;
const MAX_COMMENT_BYTES: usize = 0xffff;

/// What a number of 32 bits is where the real one is in a record for 64 bits; likewise of 16 bits.
const IN_64: u64 = 0xffff_ffff;
const IN_64_COUNT: u64 = 0xffff;

/// Places of the entries of the archive `bytes`, by name; `path` is named in errors.
///
/// # Errors
/// An entry that is compressed or encrypted; whatever lies outside the archive or contradicts itself.
pub(super) fn entries<'a>(path: &Path, bytes: &'a [u8]) -> Result<BTreeMap<&'a str, Range<usize>>> {
    let archive = Archive { path, bytes };
    let (count, mut at) = archive.directory()?;
    if count > MAX_ENTRIES {
        return Err(archive.damaged(format!("its zip directory has {count} entries; at most {MAX_ENTRIES} are read")));
    }
    let mut entries = BTreeMap::new();
    for _ in 0..count {
        let (name, range, next) = archive.entry(at)?;
        if entries.insert(name, range).is_some() {
            return Err(archive.damaged(format!("its zip entry `{name}` is there twice")));
        }
        at = next;
    }
    Ok(entries)
}

struct Archive<'p, 'a> {
    path: &'p Path,
    bytes: &'a [u8],
}

impl<'a> Archive<'_, 'a> {
    fn damaged(&self, problem: impl Into<String>) -> FormatError {
        FormatError::damaged(self.path, problem)
    }

    fn take(&self, at: u64, count: u64) -> Result<&'a [u8]> {
        let range = usize::try_from(at).ok().zip(at.checked_add(count).and_then(|end| usize::try_from(end).ok()));
        range
            .and_then(|(start, end)| self.bytes.get(start..end))
            .ok_or_else(|| self.damaged("it is not whole: its zip directory points outside the file; fetch it again"))
    }

    /// The little-endian number of `N` bytes at `at`.
    fn number<const N: u64>(&self, at: u64) -> Result<u64> {
        Ok(self.take(at, N)?.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
    }

    fn check_signature(&self, at: u64, signature: &[u8; 4], what: &str) -> Result<()> {
        let found = self.take(at, 4)? == signature;
        if found { Ok(()) } else { Err(self.damaged(format!("its zip {what} is not where it should be"))) }
    }

    /// The number of entries, and where the directory begins.
    fn directory(&self) -> Result<(u64, u64)> {
        let first = self.bytes.len().saturating_sub(END_BYTES + MAX_COMMENT_BYTES);
        let last = self.bytes.len().checked_sub(END_BYTES);
        let found = last.and_then(|last| (first..=last).rev().find(|&at| self.bytes[at..].starts_with(b"PK\x05\x06")));
        let end = found.ok_or_else(|| self.damaged("it is not whole: it has no zip directory; fetch it again"))? as u64;
        let (count, at) = (self.number::<2>(end + 10)?, self.number::<4>(end + 16)?);
        if count != IN_64_COUNT && at != IN_64 {
            return Ok((count, at));
        }
        let locator = end.checked_sub(20).ok_or_else(|| self.damaged("its zip directory for 64 bits is missing"))?;
        self.check_signature(locator, b"PK\x06\x07", "locator")?;
        let end = self.number::<8>(locator + 8)?;
        self.check_signature(end, b"PK\x06\x06", "directory for 64 bits")?;
        Ok((self.number::<8>(far(end, 32))?, self.number::<8>(far(end, 48))?))
    }

    /// Name and place of the entry that the directory has at `at`, and where the next one is there.
    fn entry(&self, at: u64) -> Result<(&'a str, Range<usize>, u64)> {
        self.check_signature(at, b"PK\x01\x02", "directory")?;
        let field = |offset| self.number::<2>(far(at, offset));
        let (flags, method) = (field(8)?, field(10)?);
        let (name_bytes, extra_bytes, comment_bytes) = (field(28)?, field(30)?, field(32)?);
        let long = |offset| self.number::<4>(far(at, offset));
        let (packed, size, local) = (long(20)?, long(24)?, long(42)?);
        let name = self.take(far(at, 46), name_bytes)?;
        let name = std::str::from_utf8(name).map_err(|_| self.damaged("the name of a zip entry is not UTF-8"))?;
        if method != 0 || flags & 1 != 0 {
            let value = if flags & 1 == 0 { format!("method {method}") } else { "encryption".to_owned() };
            return Err(FormatError::Unsupported {
                path: self.path.to_owned(),
                field: format!("compression of its zip entry {name}"),
                value,
                supported: "none, as PyTorch writes".to_owned(),
            });
        }
        let extra = self.take(far(at, 46 + name_bytes), extra_bytes)?;
        let [size, packed, local] = self.in_64(extra, [size, packed, local])?;
        if packed != size {
            return Err(self.damaged(format!("its zip entry `{name}` has two sizes")));
        }
        self.check_signature(local, b"PK\x03\x04", "entry")?;
        let skipped = 30 + self.number::<2>(far(local, 26))? + self.number::<2>(far(local, 28))?;
        let start = far(local, skipped);
        self.take(start, size)?;
        let range = start as usize..(start + size) as usize;
        Ok((name, range, far(at, 46 + name_bytes + extra_bytes + comment_bytes)))
    }

    /// Size, packed size and place, of which those that do not fit 32 bits are in an extra field, in this order.
    fn in_64(&self, mut extra: &[u8], mut fields: [u64; 3]) -> Result<[u64; 3]> {
        if !fields.contains(&IN_64) {
            return Ok(fields);
        }
        while let Some(([a, b, c, d], rest)) = extra.split_first_chunk::<4>() {
            let (id, length) = (u16::from_le_bytes([*a, *b]), u16::from_le_bytes([*c, *d]));
            let content =
                rest.get(..length.into()).ok_or_else(|| self.damaged("a zip entry's extra field is short"))?;
            if id == 1 {
                let mut numbers = content.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
                for field in fields.iter_mut().filter(|field| **field == IN_64) {
                    let number = numbers.next();
                    *field = number.ok_or_else(|| self.damaged("a zip entry lacks a number of 64 bits"))?;
                }
                return Ok(fields);
            }
            extra = &rest[length.into()..];
        }
        Ok(fields)
    }
}

/// A place behind another; one that is no place at all lies outside every archive.
fn far(at: u64, offset: u64) -> u64 {
    at.saturating_add(offset)
}
