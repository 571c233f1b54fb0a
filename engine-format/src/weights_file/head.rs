//! The head of a weights file: laid out before the weights are written, and checked before any is read.
//!
//! `weights_file.rs` draws the format.

use std::collections::BTreeMap;
use std::path::Path;

use half::bf16;
use serde::{Deserialize, Serialize};

use crate::error::{FormatError, Result};
use crate::rebuild::Rebuild;
use crate::shape;
use crate::target::Target;
use crate::weight_type::WeightType;

/// The newest version that this program reads; it reads all before it. It writes 1 where all tensors are bfloat16, so that programs
/// that know nothing else read those. In files of version 2 queries, keys and values are always one tensor.
pub const VERSION: u32 = 3;

/// The version without codes, and the first.
const PLAIN_VERSION: u32 = 1;

/// How many columns of codes share a scale.
const BLOCK: usize = 32;

const MAGIC: &[u8; 8] = b"TRTLLMWT";
const PREFIX: usize = 24;
const ALIGNMENT: usize = 64;

/// How a tensor's elements are ordered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// As its shape says.
    RowMajor,
    /// For matrix products: panels of 16 rows of `[out, in]`, in each of them pairs of `in`, in each pair 16 rows of 2
    /// elements; `out` is padded with zeros to a multiple of 16 and `in` to a multiple of 32.
    #[serde(rename = "panels_16x2")]
    Panels,
    /// Codes of eight bits: panels of 16 rows, each of them its codes, by four of `in`, in each four 16 rows of 4 bytes; then
    /// for each 32 of `in` 16 scales in float16. `out` is padded to a multiple of 16 and `in` to a multiple of 64.
    #[serde(rename = "panels_16x4")]
    PanelsInt8,
    /// Codes of four bits: panels of 16 rows, each of them its codes, by eight of `in`, in each eight 16 rows of 4 bytes, whose
    /// lower halves are the first four of `in`; then scales as above; then for each 32 of `in` 16 zeros of a byte, in
    /// sixteenths of a code. Padded as above, and each panel to a multiple of 64 bytes.
    #[serde(rename = "panels_16x8")]
    PanelsInt4,
}

impl Layout {
    /// The `dtype` of tensors in this layout.
    fn dtype(self) -> &'static str {
        match self {
            Layout::RowMajor | Layout::Panels => "bfloat16",
            Layout::PanelsInt8 => "int8_block",
            Layout::PanelsInt4 => "int4_block",
        }
    }

    /// How many of `in` share a scale.
    fn block(self) -> Option<usize> {
        self.weight_type().filter(|&weights| weights != WeightType::Bf16).map(|_| BLOCK)
    }

    /// The type of a matrix's weights; `None` for what is no matrix of a product.
    pub fn weight_type(self) -> Option<WeightType> {
        match self {
            Layout::RowMajor => None,
            Layout::Panels => Some(WeightType::Bf16),
            Layout::PanelsInt8 => Some(WeightType::Int8),
            Layout::PanelsInt4 => Some(WeightType::Int4),
        }
    }
}

/// A tensor's entry in the header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorEntry {
    /// TensorRT-LLM's name.
    pub name: String,
    /// Element type: `bfloat16`, `int8_block` or `int4_block`.
    pub dtype: String,
    /// Order of the elements.
    pub layout: Layout,
    /// Of codes: how many columns share a scale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<usize>,
    /// Logical shape, without padding.
    pub shape: Vec<usize>,
    /// First byte, from the start of the file.
    pub offset: usize,
    /// Size in bytes, with padding.
    pub bytes: usize,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Header {
    tensors: Vec<TensorEntry>,
}

/// Bytes that a tensor takes, with padding; `None` when the shape does not suit the layout or overflows.
pub fn tensor_bytes(layout: Layout, dims: &[usize]) -> Option<usize> {
    match (layout, dims) {
        (Layout::RowMajor, _) => shape::bytes(dims, size_of::<bf16>()),
        (Layout::Panels, &[rows, columns]) => {
            let padded = [rows.checked_next_multiple_of(16)?, columns.checked_next_multiple_of(32)?];
            shape::bytes(&padded, size_of::<bf16>())
        }
        (Layout::PanelsInt8 | Layout::PanelsInt4, &[rows, columns]) => {
            let (panels, columns) = (rows.div_ceil(16), columns.checked_next_multiple_of(64)?);
            // For each column 16 codes; for each block of 32 columns 16 scales of two bytes and 16 zeros of one.
            let row = match layout {
                Layout::PanelsInt4 => columns.checked_mul(8)? + columns / 2 * 3,
                _ => columns.checked_mul(16)?.checked_add(columns)?,
            };
            panels.checked_mul(row.checked_next_multiple_of(ALIGNMENT)?)
        }
        (Layout::Panels | Layout::PanelsInt8 | Layout::PanelsInt4, _) => None,
    }
}

/// The head of a weights file and the offset of each tensor, before any weight is written.
#[derive(Debug)]
pub struct Plan {
    /// Everything before the first tensor: magic, version, JSON, zeros.
    pub head: Vec<u8>,
    /// The tensors, in file order.
    pub tensors: Vec<TensorEntry>,
    /// Size of the whole file in bytes.
    pub total_bytes: usize,
}

impl Plan {
    /// Lays out tensors of the given names, layouts and shapes. `path` is named in errors.
    ///
    /// # Errors
    /// [`FormatError::Field`] when a size overflows.
    pub fn new(path: &Path, tensors: impl IntoIterator<Item = (String, Layout, Vec<usize>)>) -> Result<Self> {
        let mut entries = Vec::new();
        for (name, layout, shape) in tensors {
            let bytes = tensor_bytes(layout, &shape)
                .ok_or_else(|| FormatError::field(path, name.clone(), format!("of shape {shape:?} is too large")))?;
            let (dtype, block) = (layout.dtype().to_owned(), layout.block());
            entries.push(TensorEntry { name, dtype, layout, block, shape, offset: 0, bytes });
        }
        // Offsets are part of the JSON whose length decides them: lay out again until the head's length settles.
        let mut head = Vec::new();
        loop {
            let mut offset = head.len();
            for entry in &mut entries {
                entry.offset = offset;
                offset = (offset + entry.bytes).next_multiple_of(ALIGNMENT);
            }
            let next = encode_head(path, &entries, head.len())?;
            if next.len() == head.len() {
                let total_bytes = entries.last().map_or(head.len(), |last| last.offset + last.bytes);
                return Ok(Self { head: next, tensors: entries, total_bytes });
            }
            head = next;
        }
    }
}

/// The head for these entries, at least `minimum` bytes long so that laying out settles.
fn encode_head(path: &Path, entries: &[TensorEntry], minimum: usize) -> Result<Vec<u8>> {
    let json = serde_json::to_vec(&Header { tensors: entries.to_vec() })
        .map_err(|source| FormatError::Json { path: path.to_owned(), source })?;
    let mut head = Vec::with_capacity(PREFIX + json.len() + ALIGNMENT);
    head.extend(MAGIC);
    let plain = entries.iter().all(|entry| entry.block.is_none());
    head.extend(if plain { PLAIN_VERSION } else { VERSION }.to_le_bytes());
    head.extend([0; 4]);
    head.extend((json.len() as u64).to_le_bytes());
    head.extend(json);
    head.resize(head.len().next_multiple_of(ALIGNMENT).max(minimum), 0);
    Ok(head)
}

/// What the head of a weights file says. The tensors lie inside the file and do not overlap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// Bytes before the first tensor.
    pub bytes: usize,
    /// Every tensor, by name.
    pub tensors: BTreeMap<String, TensorEntry>,
}

impl Head {
    /// Reads and checks the head of the weights file with content `bytes`; `path` is named in errors.
    ///
    /// # Errors
    /// [`FormatError::Damaged`] when anything in the head is invalid, [`FormatError::Version`] for another version.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let damaged = |problem: String| FormatError::damaged(path, problem);
        let prefix = bytes.get(..PREFIX).ok_or_else(|| damaged("it is shorter than a weights file's head".into()))?;
        if &prefix[..8] != MAGIC {
            return Err(damaged("it does not begin as a weights file does".into()));
        }
        let u32_at =
            |at: usize| prefix[at..at + 4].iter().rev().fold(0u64, |value, &byte| value << 8 | u64::from(byte));
        let version = u32_at(8);
        if !(u64::from(PLAIN_VERSION)..=u64::from(VERSION)).contains(&version) {
            let rebuild = Rebuild::new(path, None, Some(Target::Cpu.name()), None);
            return Err(FormatError::Version {
                path: path.to_owned(),
                found: version,
                expected: u64::from(VERSION),
                rebuild,
            });
        }
        let json_end =
            usize::try_from(u32_at(20) << 32 | u32_at(16)).ok().and_then(|length| PREFIX.checked_add(length));
        let json = json_end.and_then(|end| bytes.get(PREFIX..end));
        let json = json.ok_or_else(|| damaged("its header is longer than the file".into()))?;
        let header: Header =
            serde_json::from_slice(json).map_err(|error| damaged(format!("its header cannot be read: {error}")))?;
        let mut end = PREFIX + json.len();
        let mut head_bytes = bytes.len();
        let mut tensors = BTreeMap::new();
        for (position, entry) in header.tensors.into_iter().enumerate() {
            let name = &entry.name;
            let (dtype, block) = (entry.layout.dtype(), entry.layout.block());
            if entry.dtype != dtype || entry.block != block {
                return Err(damaged(format!(
                    "tensor `{name}` has dtype `{}` and blocks of {}, this program reads {dtype} and blocks of {} in its layout",
                    entry.dtype,
                    entry.block.unwrap_or(1),
                    block.unwrap_or(1)
                )));
            }
            if tensor_bytes(entry.layout, &entry.shape) != Some(entry.bytes) {
                return Err(damaged(format!("tensor `{name}` has a size that does not follow from its shape")));
            }
            let tensor_end = entry.offset.checked_add(entry.bytes).filter(|&tensor_end| tensor_end <= bytes.len());
            let tensor_end = tensor_end.filter(|_| entry.offset >= end && entry.offset.is_multiple_of(ALIGNMENT));
            if position == 0 {
                head_bytes = entry.offset;
            }
            end = tensor_end
                .ok_or_else(|| damaged(format!("tensor `{name}` lies outside the file or over another tensor")))?;
            if tensors.insert(entry.name.clone(), entry).is_some() {
                return Err(damaged("a tensor is listed twice".into()));
            }
        }
        Ok(Self { bytes: head_bytes, tensors })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample() -> (Plan, Vec<u8>) {
        let tensors = [
            ("a".to_owned(), Layout::RowMajor, vec![3, 5]),
            ("b".to_owned(), Layout::Panels, vec![17, 33]),
            ("c".to_owned(), Layout::RowMajor, vec![7]),
            ("d".to_owned(), Layout::PanelsInt8, vec![17, 33]),
            ("e".to_owned(), Layout::PanelsInt4, vec![17, 65]),
        ];
        let plan = Plan::new(Path::new("w"), tensors).unwrap();
        let mut file = plan.head.clone();
        file.resize(plan.total_bytes, 7);
        (plan, file)
    }

    #[test]
    fn what_is_planned_is_parsed() {
        let (plan, file) = sample();
        let head = Head::parse(Path::new("w"), &file).unwrap();
        assert_eq!(head.bytes, plan.head.len());
        assert_eq!(head.tensors.into_values().collect::<Vec<_>>(), plan.tensors);
        assert_eq!(plan.tensors[1].bytes, 32 * 64 * 2);
        assert_eq!(plan.tensors[3].bytes, 2 * (64 * 16 + 2 * 32));
        assert_eq!(plan.tensors[4].bytes, 2 * (128 * 8 + 4 * (32 + 16)));
    }

    #[test]
    fn only_codes_need_a_newer_version() {
        let version = |layout| {
            let plan = Plan::new(Path::new("w"), [("a".to_owned(), layout, vec![3, 5])]).unwrap();
            let mut file = plan.head.clone();
            file.resize(plan.total_bytes, 0);
            let head = Head::parse(Path::new("w"), &file).unwrap();
            assert_eq!(head.tensors["a"].block, layout.block());
            plan.head[8]
        };
        let layouts = [Layout::RowMajor, Layout::Panels, Layout::PanelsInt8, Layout::PanelsInt4];
        assert_eq!(layouts.map(version), [1, 1, 3, 3]);
    }

    #[test]
    fn every_version_up_to_this_one_is_read() {
        let (plan, mut file) = sample();
        let read = [0, 1, 2, 3, 4].map(|version| {
            file[8] = version;
            Head::parse(Path::new("w"), &file).map(|head| head.tensors.len())
        });
        let [before_all, .., after_all] = read.each_ref().map(Result::is_ok);
        assert_eq!((before_all, after_all), (false, false));
        assert!(read[1..4].iter().all(|read| matches!(read, Ok(count) if *count == plan.tensors.len())));
    }

    proptest! {
        #[test]
        fn damaged_heads_are_refused_or_harmless(position in 0usize..200, byte: u8, cut in 0usize..400) {
            let (_, mut file) = sample();
            file[position] = byte;
            let _ = Head::parse(Path::new("w"), &file);
            file.truncate(cut);
            prop_assert!(Head::parse(Path::new("w"), &file).is_err());
        }
    }
}
