//! PyTorch's checkpoints: a zip archive with a pickle of names and tensors, and one entry for each storage.
//!
//! A tensor is a contiguous part of a storage. Several tensors may lie in one, and a storage may hold more than its tensors need.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use engine_format::json::MAX_DIMENSION;
use engine_format::{Dtype, FormatError, Result, shape};

use super::pickle::{MAX_BYTES, Node, Pickle, Value};
use super::zip;

/// Extents of a tensor at most.
const MAX_EXTENTS: usize = 4;

/// One tensor of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTensor {
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its extents, the fastest last.
    pub shape: Vec<usize>,
    /// Its bytes in the checkpoint.
    pub range: Range<usize>,
}

/// The tensors of the checkpoint `bytes` by name, without those that `skip` names; `path` is named in errors.
///
/// # Errors
/// Whatever breaks the formats of zip archives and pickles; a value that is no tensor, and a tensor that is not contiguous, has another
/// type than fp32, fp16 and bf16, or lies outside its storage; each by name.
pub fn tensors(path: &Path, bytes: &[u8], skip: impl Fn(&str) -> bool) -> Result<BTreeMap<String, StoredTensor>> {
    if bytes.starts_with(&[0x80]) {
        return Err(FormatError::Unsupported {
            path: path.to_owned(),
            field: "format of the checkpoint".to_owned(),
            value: "a pickle, as PyTorch wrote before 1.6".to_owned(),
            supported: "a zip archive, as PyTorch has written since: load it there and save it again".to_owned(),
        });
    }
    let entries = zip::entries(path, bytes)?;
    let damaged = |problem: &str| FormatError::damaged(path, problem);
    let mut pickles = entries.keys().filter_map(|name| name.strip_suffix("data.pkl"));
    let folder = match (pickles.next(), pickles.next()) {
        (Some(folder), None) if folder.ends_with('/') => folder,
        _ => return Err(damaged("it is no checkpoint of PyTorch: it has not one entry `data.pkl` in a folder")),
    };
    let entry = |name: &str| entries.get(format!("{folder}{name}").as_str()).cloned();
    if let Some(order) = entry("byteorder").filter(|range| bytes[range.clone()] != *b"little") {
        return Err(FormatError::Unsupported {
            path: path.to_owned(),
            field: "byteorder".to_owned(),
            value: String::from_utf8_lossy(&bytes[order]).chars().take(20).collect(),
            supported: "little".to_owned(),
        });
    }
    let content = entry("data.pkl").map(|range| &bytes[range]).unwrap_or_default();
    if content.len() > MAX_BYTES {
        return Err(damaged(&format!("its pickle has {} bytes; at most {MAX_BYTES} are read", content.len())));
    }
    let pickle = Pickle::parse(path, content)?;
    let pairs = pickle.dict(pickle.root()).ok_or_else(|| damaged("its pickle is no dictionary of tensors"))?;
    let mut tensors = BTreeMap::new();
    for &(key, value) in pairs {
        let Value::Text(name) = key else {
            return Err(damaged("a key of its pickle is no string"));
        };
        if skip(name) {
            continue;
        }
        let storage = |key: &str| entry(&format!("data/{key}"));
        let tensor = tensor(&pickle, value, storage).map_err(|problem| FormatError::tensor(path, name, problem))?;
        if tensors.insert(name.to_owned(), tensor).is_some() {
            return Err(damaged(&format!("tensor `{name}` is there twice")));
        }
    }
    Ok(tensors)
}

/// The tensor that a value describes, or what is wrong with it, as the end of a sentence.
fn tensor<'a>(
    pickle: &Pickle<'a>,
    value: Value<'a>,
    storage: impl Fn(&str) -> Option<Range<usize>>,
) -> Result<StoredTensor, String> {
    let mut called = pickle.call(value);
    if let Some((("torch._utils", "_rebuild_parameter"), [inner, ..])) = called {
        called = pickle.call(*inner);
    }
    let (stored, offset, extents, strides) = match called {
        Some((("torch._utils", "_rebuild_tensor_v2"), [stored, offset, extents, strides, ..])) => {
            (*stored, *offset, *extents, *strides)
        }
        Some(((module, name), _)) => return Err(format!("is made by `{module}.{name}`, which is not read")),
        None => return Err("is no tensor".to_owned()),
    };
    let (dtype, key, elements) = persistent(pickle, stored)?;
    let bytes = storage(key).ok_or_else(|| format!("lies in the storage `{key}`, which is missing"))?;
    if elements.checked_mul(dtype.size()) != Some(bytes.len()) {
        return Err(format!("lies in the storage `{key}`, whose size is not that of its {elements} elements"));
    }
    let shape = numbers(pickle, extents).filter(|shape| shape.len() <= MAX_EXTENTS);
    let shape = shape.filter(|shape| shape.iter().all(|extent| (1..=MAX_DIMENSION).contains(extent)));
    let shape = shape.ok_or(format!("has not up to {MAX_EXTENTS} extents that are each from 1 to {MAX_DIMENSION}"))?;
    let strides = numbers(pickle, strides).unwrap_or_default();
    let mut contiguous = 1;
    let is_contiguous = strides.len() == shape.len()
        && shape.iter().zip(&strides).rev().all(|(&extent, &stride)| {
            // The stride of a single row says nothing.
            let fits = extent == 1 || stride == contiguous;
            contiguous = contiguous.saturating_mul(extent);
            fits
        });
    if !is_contiguous {
        return Err(format!("is not contiguous: it has the shape {shape:?} and the strides {strides:?}"));
    }
    let range = shape::elements(&shape).and_then(|count| {
        let first = number(offset)?;
        let end = first.checked_add(count).filter(|&end| end <= elements)?;
        Some(bytes.start + first * dtype.size()..bytes.start + end * dtype.size())
    });
    let range = range.ok_or("lies outside its storage")?;
    Ok(StoredTensor { dtype, shape, range })
}

/// Type, key and number of elements of a storage.
fn persistent<'a>(pickle: &Pickle<'a>, value: Value<'a>) -> Result<(Dtype, &'a str, usize), String> {
    let Some(&Node::Persistent(name)) = pickle.node(value) else {
        return Err("has no storage".to_owned());
    };
    let Some(&[Value::Text("storage"), Value::Global(_, class), Value::Text(key), _, elements]) = pickle.tuple(name)
    else {
        return Err("has a storage that is not read".to_owned());
    };
    let dtype = match class {
        "BFloat16Storage" => Dtype::Bf16,
        "HalfStorage" => Dtype::F16,
        "FloatStorage" => Dtype::F32,
        other => return Err(format!("lies in a `{other}`; read are BFloat16Storage, HalfStorage and FloatStorage")),
    };
    Ok((dtype, key, number(elements).ok_or("lies in a storage without a size")?))
}

fn number(value: Value<'_>) -> Option<usize> {
    match value {
        Value::Int(number) => usize::try_from(number).ok(),
        _ => None,
    }
}

/// The numbers of a tuple, or of the `torch.Size` of one.
fn numbers<'a>(pickle: &Pickle<'a>, value: Value<'a>) -> Option<Vec<usize>> {
    let tuple = match pickle.call(value) {
        Some((("torch", "Size"), [inner])) => *inner,
        _ => value,
    };
    pickle.tuple(tuple)?.iter().map(|&value| number(value)).collect()
}
