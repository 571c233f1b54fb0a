//! Byte-level BPE, `gpt2`: texts are split by a rule that a file names, and the pieces' bytes are merged pair by pair.

use std::path::Path;

use serde_json::{Value, json};

use super::super::source::Metadata;
use super::vocabulary::{Vocabulary, list, refused};
use super::{Parts, ids_of};
use crate::error::Result;

/// The key of the merges.
const MERGES: &str = "tokenizer.ggml.merges";

/// The key that names the rule by which texts are split.
const SPLITTER: &str = "tokenizer.ggml.pre";

/// Names of rules that are known.
const KNOWN: &str = "gpt-2, llama-bpe, smollm, tekken";

/// Llama 3's, with at most three digits in a piece; as published with Llama 3.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Tekken's, which splits before a capital letter and has each digit alone; as published with Mistral NeMo.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The parts of `tokenizer.json`, or why there are none.
pub(super) fn tokenizer(
    path: &Path,
    metadata: &Metadata,
    vocabulary: &Vocabulary<'_>,
) -> Result<Result<Parts, String>> {
    let (split, ignore_merges) = match metadata.get(SPLITTER).and_then(Value::as_str) {
        Some("gpt-2") => (gpt2(), false),
        Some("smollm") => (json!([{ "type": "Digits", "individual_digits": true }, gpt2()]), false),
        Some("llama-bpe" | "llama3" | "llama-v3") => (by_regex(LLAMA3), true),
        Some("tekken") => (by_regex(TEKKEN), true),
        Some(other) => {
            let name = format!("{SPLITTER} is `{other}`, a way to split texts that is not known (known: {KNOWN})");
            return Ok(Err(name));
        }
        None => return Ok(Err(format!("{SPLITTER} is missing, which says how texts are split"))),
    };
    let split = match split {
        Value::Array(steps) => json!({ "type": "Sequence", "pretokenizers": steps }),
        step => step,
    };
    let merges = list(path, metadata, MERGES, "strings", Value::as_str)?;
    let merges = merges.ok_or_else(|| refused(path, MERGES, "is missing"))?;
    let pairs: Result<Vec<_>> =
        merges.iter().enumerate().map(|(index, merge)| pair(path, vocabulary, index, merge)).collect();
    Ok(Ok([
        ("normalizer", Value::Null),
        ("pre_tokenizer", split),
        ("decoder", json!({ "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true })),
        (
            "model",
            json!({
                "type": "BPE",
                "dropout": null,
                "unk_token": null,
                "continuing_subword_prefix": null,
                "end_of_word_suffix": null,
                "fuse_unk": false,
                "byte_fallback": false,
                "ignore_merges": ignore_merges,
                "vocab": ids_of(vocabulary),
                "merges": pairs?,
            }),
        ),
    ]))
}

/// The two halves of a merge, which are tokens as their sum is.
fn pair<'a>(path: &Path, vocabulary: &Vocabulary<'_>, index: usize, merge: &'a str) -> Result<[&'a str; 2]> {
    // A blank is never part of a token: it has a letter of its own.
    let halves = merge.split_once(' ').filter(|(left, right)| {
        let is_token = |text: &str| vocabulary.id(text).is_some();
        is_token(left) && is_token(right) && is_token(&format!("{left}{right}"))
    });
    let (left, right) = halves
        .ok_or_else(|| refused(path, MERGES, format!("has {merge:?} at {index}, which merges no two tokens to one")))?;
    Ok([left, right])
}

/// GPT-2's own rule.
fn gpt2() -> Value {
    json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true })
}

fn by_regex(regex: &str) -> Value {
    json!([
        { "type": "Split", "pattern": { "Regex": regex }, "behavior": "Isolated", "invert": false },
        { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false },
    ])
}
