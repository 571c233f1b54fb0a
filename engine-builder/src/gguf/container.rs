//! The head of a GGUF file: what it says about the model, and where its tensors are.
//!
//! ```text
//! bytes 0..4    magic, "GGUF"
//! bytes 4..8    version, u32 little-endian: 2 or 3, which differ in nothing that is read here
//! then          number of tensors and number of pairs, u64 each
//! then          pairs: key, type of the value (u32), value; a string is its length (u64) and UTF-8
//! then          tensors: name, number of extents (u32), extents (u64 each, the fastest first), type (u32), offset (u64)
//! then          data, from a multiple of `general.alignment` on, which offsets are counted from and are multiples of
//! ```

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use engine_format::json::MAX_DIMENSION;
use engine_format::{Dtype, FormatError, Result, shape};
use serde_json::{Map, Value};

use super::blocks::BlockType;
use super::bytes::Bytes;

/// The first bytes of a file.
pub const MAGIC: [u8; 4] = *b"GGUF";

/// Tensors, and pairs, of a file at most.
const MAX_COUNT: u64 = 1 << 16;

/// Bytes of a name at most.
const MAX_NAME_BYTES: u64 = 1 << 10;

/// Extents of a tensor at most.
const MAX_EXTENTS: u32 = 4;

/// Where data begins, unless a file says otherwise.
const DEFAULT_ALIGNMENT: u64 = 32;

/// The largest alignment that is read.
const MAX_ALIGNMENT: u64 = 1 << 20;

/// What a file says.
#[derive(Debug, Clone)]
pub struct Container {
    /// The format's version.
    pub version: u32,
    /// Keys and values. Numbers that are not finite are strings.
    pub metadata: Map<String, Value>,
    /// Tensors by name.
    pub tensors: BTreeMap<String, StoredTensor>,
}

/// One tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTensor {
    /// What its rows are.
    pub element: ElementType,
    /// Its extents, the fastest last.
    pub shape: Vec<usize>,
    /// Its bytes in the file.
    pub range: Range<usize>,
}

/// What the rows of a tensor are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElementType {
    /// One number after the other.
    Plain(Dtype),
    /// Codes in blocks.
    Blocks(BlockType),
}

impl ElementType {
    /// The type with the format's number `id`, or what the format calls it where it cannot be read.
    fn from_id(id: u32) -> Result<Self, String> {
        let plain = [(0, Dtype::F32), (1, Dtype::F16), (30, Dtype::Bf16)];
        if let Some((_, dtype)) = plain.into_iter().find(|(known, _)| *known == id) {
            return Ok(Self::Plain(dtype));
        }
        if let Some(block) = BlockType::ALL.into_iter().find(|block| block.id() == id) {
            return Ok(Self::Blocks(block));
        }
        let unread = UNREAD.iter().find(|(known, _)| *known == id);
        Err(unread.map_or_else(|| format!("number {id}"), |(_, name)| (*name).to_owned()))
    }

    /// Bytes of a row of `columns` elements; `None` where they are no whole blocks.
    pub fn row_bytes(self, columns: usize) -> Option<usize> {
        match self {
            Self::Plain(dtype) => columns.checked_mul(dtype.size()),
            Self::Blocks(block) => {
                columns.is_multiple_of(block.len()).then(|| columns / block.len())?.checked_mul(block.bytes())
            }
        }
    }
}

/// Types that the format has and that cannot be read.
const UNREAD: [(u32, &str); 27] = [
    (4, "Q4_2"),
    (5, "Q4_3"),
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (24, "I8"),
    (25, "I16"),
    (26, "I32"),
    (27, "I64"),
    (28, "F64"),
    (29, "IQ1_M"),
    (31, "Q4_0_4_4"),
    (32, "Q4_0_4_8"),
    (33, "Q4_0_8_8"),
    (34, "TQ1_0"),
    (35, "TQ2_0"),
    (39, "MXFP4"),
    (40, "NVFP4"),
    (41, "Q1_0"),
];

/// What can be read, for messages.
fn readable() -> String {
    let blocks: Vec<_> = BlockType::ALL.iter().map(|block| block.name()).collect();
    format!("F32, F16, BF16, {}", blocks.join(", "))
}

impl Container {
    /// Reads the head of the file `bytes`; `path` is named in errors.
    ///
    /// # Errors
    /// A version or a type that cannot be read, by name; whatever breaks the format: lengths and counts beyond the file or the
    /// limits, keys or tensors that are there twice, tensors that overlap or lie outside the file.
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let mut head = Bytes::new(path, bytes);
        if head.u32("its magic")? != u32::from_le_bytes(MAGIC) {
            return Err(head.damaged("it does not begin with `GGUF`"));
        }
        let version = head.u32("its version")?;
        if ![2, 3].contains(&version) {
            let swapped = version.swap_bytes();
            let value = if [2, 3].contains(&swapped) { format!("{swapped}, big-endian") } else { version.to_string() };
            return Err(FormatError::Unsupported {
                path: path.to_owned(),
                field: "version of GGUF".into(),
                value,
                supported: "2 and 3, little-endian".into(),
            });
        }
        let tensor_count = head.count(MAX_COUNT, "its number of tensors")?;
        let pair_count = head.count(MAX_COUNT, "its number of keys")?;
        let mut metadata = Map::new();
        for _ in 0..pair_count {
            let key = head.string(MAX_NAME_BYTES, "a key")?;
            let value = head.value(key)?;
            if metadata.insert(key.to_owned(), value).is_some() {
                return Err(head.damaged(format!("the key `{key}` is there twice")));
            }
        }
        let infos: Result<Vec<_>> = (0..tensor_count).map(|_| Info::read(path, &mut head)).collect();
        let alignment = alignment(path, &metadata)?;
        let data = (head.position() as u64).next_multiple_of(alignment);
        let mut tensors = BTreeMap::new();
        for info in infos? {
            let Info { name, element, shape, bytes: length, offset } = info;
            let refuse = |problem: String| FormatError::tensor(path, name, problem);
            if !offset.is_multiple_of(alignment) {
                return Err(refuse(format!("has the offset {offset}, which is no multiple of {alignment}")));
            }
            let start = data.checked_add(offset).and_then(|start| usize::try_from(start).ok());
            let range = start.and_then(|start| Some(start..start.checked_add(length)?));
            let range = range
                .filter(|range| range.end <= bytes.len())
                .ok_or_else(|| refuse("lies outside the file: it is not whole, fetch it again".to_owned()))?;
            if tensors.insert(name.to_owned(), StoredTensor { element, shape, range }).is_some() {
                return Err(head.damaged(format!("tensor `{name}` is there twice")));
            }
        }
        let mut ranges: Vec<_> = tensors.iter().map(|(name, tensor)| (tensor.range.clone(), name)).collect();
        ranges.sort_by_key(|(range, _)| range.start);
        if let Some([(_, first), (_, second)]) = ranges.windows(2).find(|pair| pair[0].0.end > pair[1].0.start) {
            return Err(head.damaged(format!("tensors `{first}` and `{second}` overlap")));
        }
        Ok(Self { version, metadata, tensors })
    }
}

fn alignment(path: &Path, metadata: &Map<String, Value>) -> Result<u64> {
    let key = "general.alignment";
    let Some(value) = metadata.get(key) else { return Ok(DEFAULT_ALIGNMENT) };
    value.as_u64().filter(|alignment| alignment.is_power_of_two() && *alignment <= MAX_ALIGNMENT).ok_or_else(|| {
        FormatError::field(path, key, format!("must be a power of two, at most {MAX_ALIGNMENT}, not `{value}`"))
    })
}

/// A tensor before its place is known.
struct Info<'a> {
    name: &'a str,
    element: ElementType,
    shape: Vec<usize>,
    bytes: usize,
    offset: u64,
}

impl<'a> Info<'a> {
    fn read(path: &Path, head: &mut Bytes<'a>) -> Result<Self> {
        let name = head.string(MAX_NAME_BYTES, "the name of a tensor")?;
        let what = format!("tensor `{name}`");
        let refuse = |problem: String| FormatError::tensor(path, name, problem);
        let count = head.u32(&what)?;
        if !(1..=MAX_EXTENTS).contains(&count) {
            return Err(refuse(format!("has {count} extents; from 1 to {MAX_EXTENTS} are read")));
        }
        let mut shape = Vec::new();
        for _ in 0..count {
            let extent = head.u64(&what)?;
            let extent = usize::try_from(extent).ok().filter(|extent| (1..=MAX_DIMENSION).contains(extent));
            shape.push(extent.ok_or_else(|| refuse(format!("has an extent that is not from 1 to {MAX_DIMENSION}")))?);
        }
        let columns = shape[0];
        shape.reverse();
        let element = ElementType::from_id(head.u32(&what)?).map_err(|value| FormatError::Unsupported {
            path: path.to_owned(),
            field: format!("the type of tensor {name}"),
            value,
            supported: readable(),
        })?;
        let offset = head.u64(&what)?;
        let rows = shape::elements(&shape[..shape.len() - 1]);
        let row_bytes = element
            .row_bytes(columns)
            .ok_or_else(|| refuse(format!("has rows of {columns} elements, which are no whole blocks")))?;
        let bytes = rows.and_then(|rows| rows.checked_mul(row_bytes));
        let bytes = bytes.ok_or_else(|| refuse("is too large".to_owned()))?;
        Ok(Self { name, element, shape, bytes, offset })
    }
}
