//! Fixtures, and small tokenizers made on the spot.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;
use text::tokenizer::Tokenizer;

pub(crate) fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures")
}

pub(crate) fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A directory with the given files; JSON values are written as they print, strings as they are.
pub(crate) fn directory(files: &[(&str, Value)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, value) in files {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

pub(crate) fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| u32::try_from(id.as_u64().unwrap()).unwrap()).collect()
}

/// The two tokenizers of the fixtures: byte-level, and word marks with byte fallback.
pub(crate) fn both() -> [(Tokenizer, Value); 2] {
    ["tokenizer", "tokenizer/byte-fallback"].map(|name| {
        let dir = fixtures().join(name);
        (Tokenizer::open(&dir).unwrap(), read_json(&dir.join("expected.json")))
    })
}

/// A vocabulary of whole words with a decoder and a post-processor of choice.
pub(crate) fn words(words: &[&str], special: &[&str], decoder: Value, post_processor: Value) -> Value {
    let vocab: serde_json::Map<String, Value> =
        words.iter().enumerate().map(|(id, word)| ((*word).to_owned(), json!(id))).collect();
    let added: Vec<Value> = words
        .iter()
        .enumerate()
        .filter(|(_, word)| special.contains(word))
        .map(|(id, word)| {
            json!({"id": id, "content": word, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        })
        .collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": post_processor, "decoder": decoder,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"}
    })
}
