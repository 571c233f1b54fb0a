//! What has to hold for any bytes that claim to be one of the files that the programs read.
//!
//! There is one function for each reader. It says why the reader refused the bytes, or checks what the rest of the
//! program relies on once they are accepted, and panics where that does not hold. The fuzz targets call these functions
//! with bytes that libFuzzer makes up, `tests/fuzz_corpus.rs` with the committed corpus.
//!
//! Hardly any made-up bytes get past a length or a hash, so where a format has one, the bytes are also tried with it put
//! right. The verdict is always about the bytes as they are.

use std::ops::Range;
use std::path::Path;

use engine_builder::gguf::config::Facts;
use engine_builder::gguf::container::{Container, ElementType};
use engine_builder::nemo::pickle::Pickle;
use engine_builder::{gguf, huggingface, nemo};
use engine_format::json::{MAX_DIMENSION, Object};
use engine_format::lora::peft_config::PeftConfig;
use engine_format::manifest::{self, Manifest};
use engine_format::weights_file::{self, Head, Layout};
use engine_format::{Dtype, FormatError, Mapping, ModelConfig, Part, Result, Weight};
use engine_format::{checkpoint, safetensors_header, shape};
use serde_json::Value;

/// A safetensors file: the tensors lie inside it, one after the other from the header to the end, and have the sizes
/// that shapes and types ask for.
pub fn safetensors_header(bytes: &[u8]) -> Result<()> {
    let end = |tensor: &Value| tensor["data_offsets"][1].as_u64();
    if let Some((header, end)) = header(bytes, 8, |root| root.as_object()?.values().filter_map(end).max()) {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header);
        file.resize(file.len() + end, 0);
        let _ = check_safetensors(&file);
    }
    check_safetensors(bytes)
}

fn check_safetensors(bytes: &[u8]) -> Result<()> {
    let tensors = safetensors_header::parse(Path::new("model.safetensors"), bytes)?;
    for (name, tensor) in &tensors {
        let elements = shape::elements(&tensor.shape).expect("the number of elements fits");
        assert_eq!(elements * tensor.dtype.bitsize(), tensor.range.len() * 8, "size of `{name}`");
        if let Some(dtype) = Dtype::from_safetensors(tensor.dtype) {
            assert_eq!(shape::bytes(&tensor.shape, dtype.size()), Some(tensor.range.len()), "size of `{name}`");
        }
        assert!(bytes.get(tensor.range.clone()).is_some(), "`{name}` is inside the file");
    }
    let ranges = ascending(tensors.into_values().map(|tensor| tensor.range));
    assert!(ranges.windows(2).all(|pair| pair[0].end == pair[1].start), "a hole or an overlap: {ranges:?}");
    assert!(ranges.last().is_none_or(|last| last.end == bytes.len()), "bytes after the last tensor: {ranges:?}");
    Ok(())
}

/// A GGUF file: tensors lie inside it, do not overlap and have the sizes that shapes and types ask for; a configuration that is made
/// of its metadata is one: see [`check_config`].
pub fn gguf(bytes: &[u8]) -> Result<()> {
    let path = Path::new("model.gguf");
    let container = Container::parse(path, bytes)?;
    for (name, tensor) in &container.tensors {
        let (columns, rows) = tensor.shape.split_last().expect("a tensor has extents");
        let rows = shape::elements(rows).expect("the number of rows fits");
        let row_bytes = tensor.element.row_bytes(*columns).expect("rows are whole blocks");
        assert_eq!(rows * row_bytes, tensor.range.len(), "size of `{name}`");
        let stored = bytes.get(tensor.range.clone()).expect("a tensor is inside the file");
        if let ElementType::Blocks(block) = tensor.element {
            block.decode(&stored[..block.bytes()], &mut vec![0.0; block.len()]);
        }
    }
    let ranges = ascending(container.tensors.values().map(|tensor| tensor.range.clone()));
    assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start), "an overlap: {ranges:?}");
    let embedding = container.tensors.get("token_embd.weight");
    let facts = Facts { vocab_size: embedding.map_or(1, |tensor| tensor.shape[0]), ..Facts::default() };
    check_config(&gguf::config::parse(path, &container.metadata, &facts)?, Mapping::SINGLE);
    Ok(())
}

/// A checkpoint of PyTorch, or its pickle alone: nothing is run, and tensors lie inside the file and have the sizes that shapes and types
/// ask for.
pub fn torch_checkpoint(bytes: &[u8]) -> Result<()> {
    let path = Path::new("model_weights.ckpt");
    if bytes.starts_with(b"\x80") {
        let pickle = Pickle::parse(path, bytes)?;
        assert!(pickle.length() <= bytes.len(), "a pickle is inside the file");
        return Ok(());
    }
    for (name, tensor) in nemo::torch::tensors(path, bytes, |name| name.ends_with("_extra_state"))? {
        assert_eq!(shape::bytes(&tensor.shape, tensor.dtype.size()), Some(tensor.range.len()), "size of `{name}`");
        assert!(bytes.get(tensor.range).is_some(), "`{name}` is inside the file");
    }
    Ok(())
}

/// `model_config.yaml` of a NeMo model: see [`check_config`].
pub fn nemo_config(bytes: &[u8]) -> Result<()> {
    let path = Path::new("model_config.yaml");
    let facts = nemo::config::Facts { rows: 1, has_head: true, tokens: None };
    check_config(&nemo::config::parse(path, &nemo::yaml::parse(path, bytes)?, facts)?, Mapping::SINGLE);
    Ok(())
}

/// `config.json` of a Transformers model: see [`check_config`].
pub fn model_config(bytes: &[u8]) -> Result<()> {
    let path = Path::new("config.json");
    let config = huggingface::config::parse(path, &json(path, bytes)?)?;
    check_config(&config, Mapping::SINGLE);
    Ok(())
}

/// `config.json` of a TensorRT-LLM checkpoint: see [`check_config`]. Every layer has a pipeline rank, and what the first
/// and the last rank hold of each weight lies inside it.
pub fn checkpoint_config(bytes: &[u8]) -> Result<()> {
    let path = Path::new("config.json");
    let (config, mapping) = checkpoint::from_json(&Object::root(path, &json(path, bytes)?)?)?;
    mapping.validate(&config)?;
    check_config(&config, mapping);
    let Mapping { tp_size, pp_size } = mapping;
    assert_eq!(mapping.layers(&config, 0).start, 0);
    assert_eq!(mapping.layers(&config, pp_size - 1).end, config.num_hidden_layers);
    for pp_rank in [0, pp_size - 1] {
        assert!(!mapping.layers(&config, pp_rank).is_empty(), "pipeline rank {pp_rank} has layers");
        for weight in one_of_each(mapping.weights(&config, pp_rank)) {
            for tp_rank in [0, tp_size - 1] {
                check_shard(&config, mapping, weight, tp_rank);
            }
        }
    }
    Ok(())
}

/// The head of `rank0.weights`: tensors are aligned, have the sizes, types and blocks that their layouts ask for, lie inside the file and
/// behind the head, and do not overlap.
pub fn weights_head(bytes: &[u8]) -> Result<()> {
    let end = |tensor: &Value| tensor["offset"].as_u64()?.checked_add(tensor["bytes"].as_u64()?);
    if let Some((header, end)) = header(bytes, 24, |root| root["tensors"].as_array()?.iter().filter_map(end).max()) {
        let mut file = bytes[..16].to_vec();
        file.extend((header.len() as u64).to_le_bytes());
        file.extend(header);
        file.resize(file.len().max(end), 0);
        let _ = check_weights(&file);
    }
    check_weights(bytes)
}

fn check_weights(bytes: &[u8]) -> Result<()> {
    let head = Head::parse(Path::new("rank0.weights"), bytes)?;
    assert!(head.bytes <= bytes.len(), "the head is inside the file");
    for (name, entry) in &head.tensors {
        let (dtype, block) = match entry.layout {
            Layout::RowMajor | Layout::Panels => ("bfloat16", None),
            Layout::PanelsInt8 => ("int8_block", Some(32)),
            Layout::PanelsInt4 => ("int4_block", Some(32)),
        };
        assert_eq!((name, entry.dtype.as_str(), entry.block), (&entry.name, dtype, block));
        assert!(entry.offset >= head.bytes && entry.offset.is_multiple_of(64), "`{name}` is aligned");
        assert_eq!(weights_file::tensor_bytes(entry.layout, &entry.shape), Some(entry.bytes), "size of `{name}`");
    }
    let ranges = ascending(head.tensors.values().map(|entry| entry.offset..entry.offset + entry.bytes));
    assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start), "an overlap: {ranges:?}");
    assert!(ranges.last().is_none_or(|last| last.end <= bytes.len()), "outside the file: {ranges:?}");
    Ok(())
}

/// `engine.json`: written again and read again, it is the same; something can run under its limits; its files lie
/// beside it.
pub fn manifest(bytes: &[u8]) -> Result<()> {
    if let Some(sealed) = sealed(bytes) {
        let _ = check_manifest(&sealed);
    }
    check_manifest(bytes)
}

fn check_manifest(bytes: &[u8]) -> Result<()> {
    let path = Path::new("engine.json");
    let read = Manifest::from_bytes(path, bytes)?;
    let written = read.to_bytes(path).expect("a manifest can be written");
    assert_eq!(Manifest::from_bytes(path, &written).expect("what was written can be read"), read);
    let limits = [read.limits.max_seq_len, read.limits.max_batch_size, read.limits.max_num_tokens];
    assert!(!limits.contains(&0), "{limits:?}");
    for name in read.files.keys() {
        let beside = Path::new("engine").join(name);
        assert_eq!(beside.parent(), Some(Path::new("engine")), "`{name}` is beside the manifest");
        assert_eq!(beside.file_name().and_then(|file| file.to_str()), Some(name.as_str()));
    }
    Ok(())
}

/// `adapter_config.json` of a LoRA adapter: every projection has a rank, and a scaling that fp32 holds.
pub fn lora_config(bytes: &[u8]) -> Result<()> {
    let path = Path::new("adapter_config.json");
    let config = PeftConfig::parse(path, &json(path, bytes)?)?;
    for module in ["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.down_proj"] {
        assert!((1..=MAX_DIMENSION).contains(&config.rank(module)), "{config:?}");
        assert!(config.scaling(module).is_finite(), "{config:?}");
    }
    Ok(())
}

/// The JSON object that begins at `start`, whatever its stated length, and how many bytes of data it needs at least:
/// `end`, where that is no more than a fuzz target should fill.
fn header(bytes: &[u8], start: usize, end: impl Fn(&Value) -> Option<u64>) -> Option<(&[u8], usize)> {
    let stop = bytes.iter().rposition(|&byte| byte == b'}')? + 1;
    let header = bytes.get(start..stop)?;
    let end = end(&serde_json::from_slice(header).ok()?).unwrap_or(0);
    (end <= 1 << 16).then_some((header, end as usize))
}

/// `bytes` with the 64 digits of the last `self_blake3` made the hash that they have to be.
fn sealed(bytes: &[u8]) -> Option<Vec<u8>> {
    let marker = b"\"self_blake3\": \"";
    let start = bytes.windows(marker.len()).rposition(|window| window == marker)? + marker.len();
    let mut sealed = bytes.to_vec();
    sealed.get_mut(start..start + 64)?.fill(b'0');
    let digits = manifest::hash(&sealed);
    sealed[start..start + 64].copy_from_slice(digits.as_bytes());
    Some(sealed)
}

/// What every accepted configuration keeps: it passes its own check, every weight's size fits, rotary frequencies are
/// finite and above zero, and the checkpoint's `config.json` says it without loss.
fn check_config(config: &ModelConfig, mapping: Mapping) {
    let path = Path::new("config.json");
    config.validate(path).expect("an accepted configuration is valid");
    let weights = Weight::all(config);
    let elements: usize = weights.iter().filter_map(|weight| shape::elements(&weight.shape(config))).sum();
    let tied = if config.tie_word_embeddings { config.vocab_size * config.hidden_size } else { 0 };
    assert_eq!(config.parameters(), (elements - tied) as u64);
    for weight in one_of_each(weights) {
        assert!(shape::bytes(&weight.shape(config), 4).is_some(), "{weight:?} fits");
        let rows: usize = weight.parts().iter().map(|&part| weight.part_shape(part, config)[0]).sum();
        assert_eq!(rows, weight.shape(config)[0], "{weight:?} is its parts");
    }
    assert!(config.kv_bytes_per_token() > 0);
    let frequencies = config.rope.inverse_frequencies(config.head_size);
    assert!(frequencies.iter().all(|frequency| frequency.is_finite() && *frequency > 0.0), "{:?}", config.rope);
    let written = checkpoint::to_json(config, mapping).to_string();
    let value = json(path, written.as_bytes()).expect("what was written is JSON");
    let root = Object::root(path, &value).expect("what was written is an object");
    let read = checkpoint::from_json(&root).expect("what was written is accepted");
    assert_eq!(read, (config.clone(), mapping));
}

/// A rank's pieces lie inside the parts that they are cut from, and stack to the rank's shape.
fn check_shard(config: &ModelConfig, mapping: Mapping, weight: Weight, tp_rank: usize) {
    let shard = mapping.shard(config, weight, tp_rank);
    let rows: usize = shard.pieces.iter().map(|piece| piece.rows.len() + piece.zero_rows).sum();
    assert_eq!(rows, shard.shape[0], "{weight:?}");
    for piece in &shard.pieces {
        let part = if weight.parts() == [Part::Whole] { Part::Whole } else { piece.part };
        let from = weight.part_shape(part, config);
        assert!(piece.rows.end <= from[0] && !piece.rows.is_empty(), "{weight:?}: {piece:?} of {from:?}");
        assert!(piece.columns.end <= from.get(1).copied().unwrap_or(1), "{weight:?}: {piece:?} of {from:?}");
    }
}

/// Layers are alike: those of the first layer stand for all.
fn one_of_each(weights: Vec<Weight>) -> impl Iterator<Item = Weight> {
    let first = weights.iter().find_map(|weight| weight.layer());
    weights.into_iter().filter(move |weight| weight.layer().is_none() || weight.layer() == first)
}

fn ascending(ranges: impl Iterator<Item = Range<usize>>) -> Vec<Range<usize>> {
    let mut ranges: Vec<_> = ranges.collect();
    ranges.sort_by_key(|range| (range.start, range.end));
    ranges
}

fn json(path: &Path, bytes: &[u8]) -> Result<Value> {
    serde_json::from_slice(bytes).map_err(|source| FormatError::Json { path: path.to_owned(), source })
}
