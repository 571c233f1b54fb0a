//! GGUF files made on the spot, which tests change before they write them.

use std::fs;
use std::path::Path;

/// A value of the metadata.
#[derive(Clone)]
pub(crate) enum Value {
    U32(u32),
    F32(f32),
    Text(String),
    U32s(Vec<u32>),
    Texts(Vec<String>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// One tensor: its extents, the fastest first, the number of its type, and its bytes.
#[derive(Clone)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    pub(crate) extents: Vec<u64>,
    pub(crate) kind: u32,
    pub(crate) bytes: Vec<u8>,
}

impl Tensor {
    /// A tensor of fp32 numbers that differ from place to place.
    pub(crate) fn f32(name: &str, extents: &[u64]) -> Self {
        let numbers = (0..extents.iter().product::<u64>()).map(|i| (i % 61) as f32 / 64.0 - 0.4);
        let bytes = numbers.flat_map(f32::to_le_bytes).collect();
        Self { name: name.to_owned(), extents: extents.to_vec(), kind: 0, bytes }
    }
}

/// A file before it is written.
#[derive(Clone)]
pub(crate) struct GgufFile {
    pub(crate) pairs: Vec<(String, Value)>,
    pub(crate) tensors: Vec<Tensor>,
}

impl GgufFile {
    /// A model of one layer without a tokenizer: hidden 32, two heads of 8, one of keys and values.
    pub(crate) fn tiny() -> Self {
        let pairs = [
            ("general.architecture", Value::from("llama")),
            ("llama.context_length", Value::U32(64)),
            ("llama.embedding_length", Value::U32(32)),
            ("llama.block_count", Value::U32(1)),
            ("llama.feed_forward_length", Value::U32(48)),
            ("llama.attention.head_count", Value::U32(2)),
            ("llama.attention.head_count_kv", Value::U32(1)),
            ("llama.attention.key_length", Value::U32(8)),
            ("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5)),
        ];
        let tensors: [(&str, &[u64]); 11] = [
            ("token_embd.weight", &[32, 40]),
            ("output_norm.weight", &[32]),
            ("blk.0.attn_norm.weight", &[32]),
            ("blk.0.ffn_norm.weight", &[32]),
            ("blk.0.attn_q.weight", &[32, 16]),
            ("blk.0.attn_k.weight", &[32, 8]),
            ("blk.0.attn_v.weight", &[32, 8]),
            ("blk.0.attn_output.weight", &[16, 32]),
            ("blk.0.ffn_gate.weight", &[32, 48]),
            ("blk.0.ffn_up.weight", &[32, 48]),
            ("blk.0.ffn_down.weight", &[48, 32]),
        ];
        Self {
            pairs: pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
            tensors: tensors.into_iter().map(|(name, extents)| Tensor::f32(name, extents)).collect(),
        }
    }

    /// Gives a key another value, or adds it.
    pub(crate) fn set(&mut self, key: &str, value: Value) {
        self.remove(key);
        self.pairs.push((key.to_owned(), value));
    }

    pub(crate) fn remove(&mut self, key: &str) {
        self.pairs.retain(|(other, _)| other != key);
    }

    pub(crate) fn tensor(&mut self, name: &str) -> &mut Tensor {
        self.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap()
    }

    /// The file, version 3, aligned to 32 bytes.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut file = b"GGUF\x03\0\0\0".to_vec();
        file.extend((self.tensors.len() as u64).to_le_bytes());
        file.extend((self.pairs.len() as u64).to_le_bytes());
        for (key, value) in &self.pairs {
            put_text(&mut file, key);
            put_value(&mut file, value);
        }
        let mut offset = 0u64;
        for tensor in &self.tensors {
            put_text(&mut file, &tensor.name);
            file.extend((tensor.extents.len() as u32).to_le_bytes());
            tensor.extents.iter().for_each(|extent| file.extend(extent.to_le_bytes()));
            file.extend(tensor.kind.to_le_bytes());
            file.extend(offset.to_le_bytes());
            offset = (offset + tensor.bytes.len() as u64).next_multiple_of(32);
        }
        for tensor in &self.tensors {
            file.resize(file.len().next_multiple_of(32), 0);
            file.extend(&tensor.bytes);
        }
        file
    }

    pub(crate) fn write(&self, path: &Path) {
        fs::write(path, self.bytes()).unwrap();
    }
}

fn put_text(file: &mut Vec<u8>, text: &str) {
    file.extend((text.len() as u64).to_le_bytes());
    file.extend(text.as_bytes());
}

fn put_value(file: &mut Vec<u8>, value: &Value) {
    let mut put = |kind: u32, bytes: &[u8]| {
        file.extend(kind.to_le_bytes());
        file.extend(bytes);
    };
    match value {
        Value::U32(number) => put(4, &number.to_le_bytes()),
        Value::F32(number) => put(6, &number.to_le_bytes()),
        Value::Text(text) => {
            put(8, &[]);
            put_text(file, text);
        }
        Value::U32s(numbers) => {
            put(9, &4u32.to_le_bytes());
            file.extend((numbers.len() as u64).to_le_bytes());
            numbers.iter().for_each(|number| file.extend(number.to_le_bytes()));
        }
        Value::Texts(texts) => {
            put(9, &8u32.to_le_bytes());
            file.extend((texts.len() as u64).to_le_bytes());
            texts.iter().for_each(|text| put_text(file, text));
        }
    }
}
