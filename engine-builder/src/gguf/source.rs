//! GGUF files as a source of weights.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use engine_format::mmap::MappedFile;
use engine_format::{FormatError, ModelConfig, Part, Weight};
use serde_json::{Map, Value};

use super::config::{self, Facts, ROPE_FACTORS};
use super::container::{Container, ElementType, StoredTensor};
use super::weights::{self, EMBEDDING, FIRST_BIAS, HEAD};
use crate::error::Result;
use crate::source::{Encoding, Outline, PartView, RowOrder, SourceFormat, WeightSource};

/// The weights of a GGUF model.
#[derive(Debug)]
pub(crate) struct Gguf {
    files: Vec<MappedFile>,
    /// By name, with the file that holds each.
    tensors: BTreeMap<String, (usize, StoredTensor)>,
    config: ModelConfig,
    version: String,
}

/// A model's metadata.
pub(crate) type Metadata = Map<String, Value>;

impl Gguf {
    /// Opens the model that `paths` are the parts of.
    pub(crate) fn open(paths: &[PathBuf]) -> Result<(Self, Metadata)> {
        let mut files = Vec::new();
        let mut tensors = BTreeMap::new();
        let mut first: Option<Container> = None;
        for (index, path) in paths.iter().enumerate() {
            let file = MappedFile::open(path)?;
            let mut container = Container::parse(path, file.bytes())?;
            check_part(path, &container.metadata, index, paths.len())?;
            for (name, tensor) in std::mem::take(&mut container.tensors) {
                if tensors.contains_key(&name) {
                    let problem = format!("tensor `{name}` is in another part too");
                    return Err(FormatError::damaged(path, problem).into());
                }
                tensors.insert(name, (index, tensor));
            }
            files.push(file);
            first.get_or_insert(container);
        }
        let (Some(container), Some(path)) = (first, paths.first()) else {
            return Err(FormatError::damaged(Path::new("."), "no GGUF file was named").into());
        };
        let metadata = container.metadata;
        check_tensor_count(path, &metadata, tensors.len())?;
        let config = config::parse(path, &metadata, &facts(path, &files, &tensors)?)?;
        let find = |name: &str| tensors.get(name).map(|(file, tensor)| (files[*file].path(), tensor));
        weights::check(path, &config, find, tensors.keys().map(String::as_str))?;
        let version = format!("version {}, architecture {}", container.version, config::architecture(&metadata));
        Ok((Self { files, tensors, config, version }, metadata))
    }

    /// The model.
    pub(crate) fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// What is known of the model but its weights.
    pub(crate) fn outline(self) -> Outline {
        let format = self.format();
        Outline { config: self.config, mapping: None, format }
    }

    fn view<'a>(&'a self, name: &'a str, (file, tensor): &'a (usize, StoredTensor), order: RowOrder) -> PartView<'a> {
        let file = &self.files[*file];
        let encoding = match tensor.element {
            ElementType::Plain(dtype) => Encoding::Plain(dtype),
            ElementType::Blocks(block) => Encoding::Blocks(block),
        };
        PartView::new(file, name, &file.bytes()[tensor.range.clone()], &tensor.shape, encoding).in_order(order)
    }
}

/// Checks that a file says of itself that it is the part that its name says.
fn check_part(path: &Path, metadata: &Metadata, index: usize, count: usize) -> Result<()> {
    let said = |key: &str| metadata.get(key).and_then(Value::as_u64);
    for (key, expected) in [("split.no", index), ("split.count", count)] {
        let is_part = count > 1 || said(key).is_some();
        if is_part && said(key) != Some(expected as u64) {
            let found = metadata.get(key).map_or_else(|| "missing".to_owned(), Value::to_string);
            let problem = format!("is {found}, but by its name the file is part {} of {count}", index + 1);
            return Err(FormatError::field(path, key, problem).into());
        }
    }
    Ok(())
}

fn check_tensor_count(path: &Path, metadata: &Metadata, count: usize) -> Result<()> {
    let key = "split.tensors.count";
    match metadata.get(key).map(|value| value.as_u64()) {
        Some(stated) if stated != Some(count as u64) => {
            Err(FormatError::field(path, key, format!("contradicts the parts, which have {count} tensors")).into())
        }
        _ => Ok(()),
    }
}

/// What the tensors say about the model.
fn facts(path: &Path, files: &[MappedFile], tensors: &BTreeMap<String, (usize, StoredTensor)>) -> Result<Facts> {
    let missing = || FormatError::MissingTensor { path: path.to_owned(), tensor: EMBEDDING.to_owned() };
    let (_, embedding) = tensors.get(EMBEDDING).ok_or_else(missing)?;
    let rope_factors = match tensors.get(ROPE_FACTORS) {
        None => None,
        Some((file, StoredTensor { element: ElementType::Plain(dtype), range, .. })) => {
            Some(dtype.values(&files[*file].bytes()[range.clone()]).collect())
        }
        Some((file, _)) => {
            let problem = "is in blocks; it is read as F32, F16 or BF16";
            return Err(FormatError::tensor(files[*file].path(), ROPE_FACTORS, problem).into());
        }
    };
    Ok(Facts {
        vocab_size: embedding.shape[0],
        has_head: tensors.contains_key(HEAD),
        has_biases: tensors.contains_key(FIRST_BIAS),
        rope_factors,
    })
}

impl WeightSource for Gguf {
    fn format(&self) -> SourceFormat {
        SourceFormat::new("GGUF", Some(self.version.clone()), &self.tensors())
    }

    fn total_bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes().len() as u64).sum()
    }

    fn part(&self, weight: Weight, part: Part) -> Result<PartView<'_>> {
        let name = weights::name(weight, part).unwrap_or_else(|| weight.name(0));
        let missing = || FormatError::MissingTensor { path: self.files[0].path().to_owned(), tensor: name.clone() };
        let (name, tensor) = self.tensors.get_key_value(&name).ok_or_else(missing)?;
        Ok(self.view(name, tensor, weights::row_order(part, &self.config)))
    }

    fn tensors(&self) -> Vec<PartView<'_>> {
        self.tensors.iter().map(|(name, tensor)| self.view(name, tensor, RowOrder::Decoder)).collect()
    }
}
