//! The head of a safetensors file, checked before anything in the file is believed.
//!
//! Format: <https://huggingface.co/docs/safetensors>: the length of a JSON object in 8 bytes, little-endian, the object,
//! then the data. That offsets leave no hole and do not overlap, and that sizes follow from shapes, is checked by the
//! `safetensors` crate; how the head and the data fit into the file, and that no tensor is listed twice, here.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::path::Path;

use safetensors::tensor::Metadata;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use crate::error::{FormatError, Result};
use crate::foreign_file::ForeignFile;
use crate::python_json;

/// The most that the `safetensors` library takes for a header, in bytes.
const MAX_HEADER: usize = 100_000_000;

const PREFIX: usize = size_of::<u64>();

/// One tensor of a safetensors file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTensor {
    /// Element type, which need not be one that this crate reads.
    pub dtype: safetensors::Dtype,
    /// Shape, as stored.
    pub shape: Vec<usize>,
    /// Its bytes, from the start of the file.
    pub range: Range<usize>,
}

/// Every tensor of the safetensors file with content `bytes`, by name; `path` is named in errors.
///
/// The ranges lie inside `bytes`, do not overlap, and have the sizes that their shapes and types ask for.
///
/// # Errors
/// [`FormatError::Damaged`] with what is invalid; [`FormatError::Foreign`] when it is clear what the file is instead.
pub fn parse(path: &Path, bytes: &[u8]) -> Result<BTreeMap<String, StoredTensor>> {
    if let Some(foreign) = ForeignFile::recognise(bytes) {
        return Err(foreign.error(path));
    }
    let damaged = |problem: String| FormatError::damaged(path, problem);
    let prefix = bytes.first_chunk::<PREFIX>();
    let prefix = prefix.ok_or_else(|| damaged("it is shorter than the length of a safetensors header".into()))?;
    let length = usize::try_from(u64::from_le_bytes(*prefix)).ok().filter(|&length| length <= MAX_HEADER);
    let length =
        length.ok_or_else(|| damaged(format!("its safetensors header is said to exceed {MAX_HEADER} bytes")))?;
    let data = PREFIX + length;
    let header = bytes.get(PREFIX..data);
    let header = header.ok_or_else(|| damaged("it ends before its safetensors header does".into()))?;
    let refused = |error: serde_json::Error| {
        damaged(format!("its safetensors header is invalid: {}", python_json::in_words(&error.to_string())))
    };
    let UniqueKeys = serde_json::from_slice(header).map_err(refused)?;
    let metadata: Metadata = serde_json::from_slice(header).map_err(refused)?;
    // The sum is checked: sizes of many tensors may pass 2^64 together though none does alone.
    let end = data.checked_add(metadata.data_len());
    if end != Some(bytes.len()) {
        let (stated, found) = (metadata.data_len(), bytes.len() - data);
        return Err(damaged(format!("its safetensors header describes {stated} bytes of data, the file has {found}")));
    }
    let tensors = metadata.tensors().into_iter().map(|(name, info)| {
        let (start, end) = info.data_offsets;
        let range = data + start..data + end;
        (name, StoredTensor { dtype: info.dtype, shape: info.shape.clone(), range })
    });
    Ok(tensors.collect())
}

/// A JSON object without two equal keys: of those, a map would silently keep the last.
struct UniqueKeys;

impl<'de> Deserialize<'de> for UniqueKeys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Self)
    }
}

impl<'de> Visitor<'de> for UniqueKeys {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self, A::Error> {
        let mut keys = HashSet::new();
        while let Some((key, IgnoredAny)) = map.next_entry::<String, _>()? {
            if let Some(key) = keys.replace(key) {
                return Err(A::Error::custom(format_args!("`{key}` is listed twice")));
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        bytes
    }

    fn refused(bytes: &[u8], word: &str) {
        let error = parse(Path::new("x.safetensors"), bytes).unwrap_err().to_string();
        assert!(error.contains("`x.safetensors` is damaged") && error.contains(word), "{error}");
    }

    #[test]
    fn ranges_count_from_the_start_of_the_file() {
        let bytes = file(
            r#"{"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]},"a":{"dtype":"BF16","shape":[1,2],"data_offsets":[0,4]}}"#,
            12,
        );
        let tensors = parse(Path::new("x.safetensors"), &bytes).unwrap();
        let start = bytes.len() - 12;
        assert_eq!(
            tensors["a"],
            StoredTensor { dtype: safetensors::Dtype::BF16, shape: vec![1, 2], range: start..start + 4 }
        );
        assert_eq!(tensors["b"].range, start + 4..start + 12);
    }

    #[test]
    fn lies_are_refused() {
        refused(b"", "shorter");
        refused(&[0xff; 40], "exceed");
        refused(&file("{}", 0)[..9], "ends before");
        refused(&file("{}", 1), "describes 0 bytes");
        let twice = r#"{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}"#;
        refused(&file(twice, 0), "listed twice");
    }

    #[test]
    fn sizes_whose_sum_overflows_are_refused() {
        let size = usize::MAX / 8;
        let tensor = |index: usize, bytes: usize| {
            let start = index * size;
            format!(r#""t{index}":{{"dtype":"U8","shape":[{bytes}],"data_offsets":[{start},{}]}}"#, start + bytes)
        };
        let tensors: Vec<_> = (0..8).map(|index| tensor(index, size)).chain([tensor(8, 7)]).collect();
        refused(&file(&format!("{{{}}}", tensors.join(",")), 0), "describes 18446744073709551615 bytes");
    }
}
