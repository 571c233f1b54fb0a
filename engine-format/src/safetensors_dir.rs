//! A directory of safetensors: one file, or many through an index. Mapped, never trusted.
//!
//! Each file's head is checked by [`safetensors_header`].

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::dtype::Dtype;
use crate::error::{FormatError, Result};
use crate::json::{self, Object};
use crate::mmap::MappedFile;
use crate::safetensors_header::{self, StoredTensor};

/// Name of the index that Transformers writes beside several shards.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// Name of the only file of a model in one piece.
pub const SINGLE_FILE: &str = "model.safetensors";

/// Every tensor of one or many safetensors files.
#[derive(Debug)]
pub struct SafetensorsDir {
    path: PathBuf,
    files: Vec<MappedFile>,
    tensors: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    file: usize,
    stored: StoredTensor,
}

/// One tensor of a mapped file, little-endian, row-major, of any alignment.
#[derive(Debug, Clone)]
pub struct TensorView<'a> {
    /// The file that holds it.
    pub file: &'a MappedFile,
    /// Its name in that file.
    pub name: &'a str,
    /// Element type.
    pub dtype: Dtype,
    /// Shape, as stored.
    pub shape: &'a [usize],
    /// `elements(shape) * dtype.size()` bytes.
    pub bytes: &'a [u8],
}

impl SafetensorsDir {
    /// Opens every safetensors file of a Hugging Face model directory: those that the index names, or
    /// `model.safetensors`.
    ///
    /// # Errors
    /// A missing file or shard, a damaged header, an index that names a tensor which its shard lacks, a tensor that two
    /// shards hold.
    pub fn open(path: &Path) -> Result<Self> {
        let index = path.join(INDEX_FILE);
        if index.is_file() {
            return Self::open_index(path, &index);
        }
        let single = path.join(SINGLE_FILE);
        if !single.is_file() {
            let hint =
                format!("a model directory needs `{SINGLE_FILE}`, or `{INDEX_FILE}` and the shards that it names");
            return Err(FormatError::Missing { path: single, hint });
        }
        Self::open_files(path, &[single])
    }

    /// Opens the given safetensors files as one set of tensors; `path` is named in errors about the set.
    ///
    /// # Errors
    /// As [`SafetensorsDir::open`].
    pub fn open_files(path: &Path, files: &[PathBuf]) -> Result<Self> {
        let mut dir = Self { path: path.to_owned(), files: Vec::new(), tensors: BTreeMap::new() };
        for file in files {
            dir.add(MappedFile::open(file)?)?;
        }
        Ok(dir)
    }

    fn open_index(path: &Path, index: &Path) -> Result<Self> {
        let value = json::read_file(index, "")?;
        let root = Object::root(index, &value)?;
        let weight_map = root.get("weight_map").and_then(|map| map.as_object());
        let weight_map = weight_map.ok_or_else(|| root.error("weight_map", "must be an object of tensor: file"))?;
        let mut names = BTreeSet::new();
        for (tensor, file) in weight_map {
            let file = file.as_str().ok_or_else(|| root.error("weight_map", format!("`{tensor}` must name a file")))?;
            // An index comes from the same place as the weights: it may not reach outside their directory.
            if Path::new(file).components().count() != 1 || !file.ends_with(".safetensors") {
                return Err(
                    root.error("weight_map", format!("`{tensor}` names `{file}`, not a safetensors file beside it"))
                );
            }
            names.insert(file);
        }
        let mut files = Vec::new();
        for name in names {
            let file = path.join(name);
            if !file.is_file() {
                let hint = format!("`{INDEX_FILE}` names this shard; download the model again");
                return Err(FormatError::Missing { path: file, hint });
            }
            files.push(file);
        }
        let dir = Self::open_files(path, &files)?;
        for (tensor, file) in weight_map {
            let found = dir.tensors.get(tensor).map(|entry| dir.files[entry.file].path());
            let expected = path.join(file.as_str().unwrap_or_default());
            if found != Some(&expected) {
                return Err(FormatError::MissingTensor { path: expected, tensor: tensor.clone() });
            }
        }
        Ok(dir)
    }

    fn add(&mut self, file: MappedFile) -> Result<()> {
        for (name, stored) in safetensors_header::parse(file.path(), file.bytes())? {
            if self.tensors.contains_key(&name) {
                return Err(FormatError::damaged(file.path(), format!("tensor `{name}` is in another shard too")));
            }
            self.tensors.insert(name, Entry { file: self.files.len(), stored });
        }
        self.files.push(file);
        Ok(())
    }

    /// The directory that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Every tensor's name, sorted, with the file that holds it.
    pub fn names(&self) -> impl Iterator<Item = (&str, &Path)> {
        self.tensors.iter().map(|(name, entry)| (name.as_str(), self.files[entry.file].path()))
    }

    /// Whether there is a tensor called `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Bytes of all files.
    pub fn total_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes().len() as u64).sum()
    }

    /// The tensor called `name`.
    ///
    /// # Errors
    /// [`FormatError::MissingTensor`], or [`FormatError::TensorDtype`] when its type cannot be read.
    pub fn tensor(&self, name: &str) -> Result<TensorView<'_>> {
        let (name, entry) = self
            .tensors
            .get_key_value(name)
            .ok_or_else(|| FormatError::MissingTensor { path: self.path.clone(), tensor: name.to_owned() })?;
        let file = &self.files[entry.file];
        let StoredTensor { dtype, shape, range } = &entry.stored;
        let dtype = Dtype::from_safetensors(*dtype).ok_or_else(|| FormatError::TensorDtype {
            path: file.path().to_owned(),
            tensor: name.clone(),
            found: format!("{dtype:?}"),
        })?;
        Ok(TensorView { file, name, dtype, shape, bytes: &file.bytes()[range.clone()] })
    }
}

impl TensorView<'_> {
    /// Checks the tensor's shape.
    ///
    /// # Errors
    /// [`FormatError::TensorShape`].
    pub fn expect_shape(&self, expected: &[usize]) -> Result<()> {
        if self.shape == expected {
            return Ok(());
        }
        Err(FormatError::TensorShape {
            path: self.file.path().to_owned(),
            tensor: self.name.to_owned(),
            expected: expected.to_vec(),
            found: self.shape.to_vec(),
        })
    }

    /// Gives the tensor's memory back to the system; see [`MappedFile::release`].
    pub fn release(&self) {
        if let Some(start) = self.file.offset_of(self.bytes) {
            self.file.release(start..start + self.bytes.len());
        }
    }
}
