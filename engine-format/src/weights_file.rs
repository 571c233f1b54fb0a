//! `rank0.weights`: the CPU engine's weights, packed for its kernels and mapped at run time.
//!
//! ```text
//! bytes 0..8     magic, "TRTLLMWT"
//! bytes 8..12    format version, u32 little-endian: 1, or 3 where a tensor is of integer codes (2 in older files)
//! bytes 12..16   zero
//! bytes 16..24   length of the JSON header in bytes, u64 little-endian
//! then           JSON header: {"tensors": [{"name", "dtype", "layout", "block", "shape", "offset", "bytes"}, …]}
//! then           zeros up to a multiple of 64, then each tensor at its offset (from the file's start, a multiple of 64)
//! ```
//!
//! `dtype` and `layout` stand beside each tensor so that other weight formats can be added without breaking this one. Tensors of
//! integer codes have `block`, the number of columns that share a scale.
//!
//! Where queries, keys and values are not of one type, `attention.qkv.weight` of a layer is three tensors, `attention.q.weight`,
//! `attention.k.weight` and `attention.v.weight`.

mod head;

use std::ops::Range;
use std::path::Path;

use half::bf16;

use crate::error::{FormatError, Result};
use crate::mmap::MappedFile;
use crate::weight_type::WeightType;

pub use head::{Head, Layout, Plan, TensorEntry, VERSION, tensor_bytes};

/// Name of the file inside an engine directory.
pub const WEIGHTS_FILE: &str = "rank0.weights";

/// An open weights file.
#[derive(Debug)]
pub struct WeightsFile {
    file: MappedFile,
    head: Head,
}

impl WeightsFile {
    /// Maps and checks the file at `path`; no weight is read.
    ///
    /// # Errors
    /// [`FormatError::Damaged`] when anything in the head is invalid, [`FormatError::Version`] for another version.
    pub fn open(path: &Path) -> Result<Self> {
        let file = MappedFile::open(path)?;
        let head = Head::parse(path, file.bytes())?;
        Ok(Self { file, head })
    }

    /// The head: all bytes before the first tensor.
    pub fn head(&self) -> &[u8] {
        &self.file.bytes()[..self.head.bytes]
    }

    /// The mapped file.
    pub fn file(&self) -> &MappedFile {
        &self.file
    }

    /// Every tensor's entry, by name.
    pub fn tensors(&self) -> impl Iterator<Item = &TensorEntry> {
        self.head.tensors.values()
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.head.tensors.contains_key(name)
    }

    /// Bytes of a tensor of this file.
    pub fn bytes_of(&self, entry: &TensorEntry) -> &[u8] {
        &self.file.bytes()[range_of(entry)]
    }

    /// Finds tensor `name`, which must have this layout and shape; its elements are then [`WeightsFile::elements`].
    ///
    /// # Errors
    /// [`FormatError::MissingTensor`], [`FormatError::TensorShape`], or [`FormatError::Damaged`] for another layout.
    pub fn locate(&self, name: &str, layout: Layout, shape: &[usize]) -> Result<Located> {
        let entry = self.find(name, shape)?;
        if entry.layout != layout {
            let problem = format!("tensor `{name}` has layout {:?}, not {layout:?}", entry.layout);
            return Err(FormatError::damaged(self.file.path(), problem));
        }
        Ok(Located(range_of(entry)))
    }

    /// Finds tensor `name`, which must have this shape and be a matrix of a product, in any layout.
    ///
    /// # Errors
    /// [`FormatError::MissingTensor`], [`FormatError::TensorShape`], or [`FormatError::Damaged`] for what is no such matrix.
    pub fn locate_matrix(&self, name: &str, shape: &[usize]) -> Result<(Located, WeightType)> {
        let entry = self.find(name, shape)?;
        let weight_type = entry.layout.weight_type().ok_or_else(|| {
            let problem = format!("tensor `{name}` has layout {:?}, which is no matrix of a product", entry.layout);
            FormatError::damaged(self.file.path(), problem)
        })?;
        Ok((Located(range_of(entry)), weight_type))
    }

    /// The type of the most tightly stored matrix, which is what the file was built for: `int4` has some matrices in eight bits.
    pub fn weight_type(&self) -> WeightType {
        let stored = |weights| self.tensors().any(|entry| entry.layout.weight_type() == Some(weights));
        [WeightType::Int4, WeightType::Int8].into_iter().find(|&weights| stored(weights)).unwrap_or_default()
    }

    fn find(&self, name: &str, shape: &[usize]) -> Result<&TensorEntry> {
        let path = self.file.path();
        let entry = self
            .head
            .tensors
            .get(name)
            .ok_or_else(|| FormatError::MissingTensor { path: path.to_owned(), tensor: name.to_owned() })?;
        if entry.shape != shape {
            return Err(FormatError::TensorShape {
                path: path.to_owned(),
                tensor: name.to_owned(),
                expected: shape.to_vec(),
                found: entry.shape.clone(),
            });
        }
        Ok(entry)
    }

    /// The bytes of a tensor of this file.
    pub fn bytes_at(&self, tensor: &Located) -> &[u8] {
        &self.file.bytes()[tensor.0.clone()]
    }

    /// The elements of a tensor of this file in bfloat16. Offsets are multiples of 64 in a page-aligned map, so the cast holds.
    pub fn elements(&self, tensor: &Located) -> &[bf16] {
        bytemuck::cast_slice(self.bytes_at(tensor))
    }
}

/// The place of a checked tensor inside the file that it was found in.
#[derive(Debug, Clone)]
pub struct Located(Range<usize>);

fn range_of(entry: &TensorEntry) -> Range<usize> {
    entry.offset..entry.offset + entry.bytes
}
