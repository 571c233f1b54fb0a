//! SentencePiece's BPE, `llama`: blanks are letters, what no token holds goes by its bytes, and of two neighbours those are merged
//! first whose sum has the highest score.

use std::path::Path;

use serde_json::{Value, json};

use super::super::source::Metadata;
use super::vocabulary::{Kind, Vocabulary, flag, list, refused, same_length};
use super::{Parts, ids_of};
use crate::error::Result;

/// The mark of a blank.
const BLANK: &str = "▁";

/// The key of the scores.
const SCORES: &str = "tokenizer.ggml.scores";

/// The parts of `tokenizer.json`, as it is published with Llama 2 and Mistral 7B.
pub(super) fn tokenizer(path: &Path, metadata: &Metadata, vocabulary: &Vocabulary<'_>) -> Result<Parts> {
    let scores = list(path, metadata, SCORES, "numbers", Value::as_f64)?;
    let scores = scores.ok_or_else(|| refused(path, SCORES, "is missing"))?;
    same_length(path, SCORES, scores.len(), vocabulary.len())?;
    // A text begins with a blank, and so does what follows a special token.
    let begins_with_blank = flag(path, metadata, "add_space_prefix")?.unwrap_or(true);
    let mut normalizers = vec![json!({ "type": "Replace", "pattern": { "String": " " }, "content": BLANK })];
    let mut decoders = vec![
        json!({ "type": "Replace", "pattern": { "String": BLANK }, "content": " " }),
        json!({ "type": "ByteFallback" }),
        json!({ "type": "Fuse" }),
    ];
    if begins_with_blank {
        normalizers.insert(0, json!({ "type": "Prepend", "prepend": BLANK }));
        decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
    }
    Ok([
        ("normalizer", json!({ "type": "Sequence", "normalizers": normalizers })),
        ("pre_tokenizer", Value::Null),
        ("decoder", json!({ "type": "Sequence", "decoders": decoders })),
        (
            "model",
            json!({
                "type": "BPE",
                "dropout": null,
                "unk_token": vocabulary.named("unk_token"),
                "continuing_subword_prefix": null,
                "end_of_word_suffix": null,
                "fuse_unk": true,
                "byte_fallback": true,
                "ignore_merges": false,
                "vocab": ids_of(vocabulary),
                "merges": merges(vocabulary, &scores),
            }),
        ),
    ])
}

/// All pairs of tokens whose sum is a token too, the best first: by the score of the sum, then by the lengths of both.
fn merges<'a>(vocabulary: &Vocabulary<'a>, scores: &[f64]) -> Vec<[&'a str; 2]> {
    let of_text = |text: &str| vocabulary.id(text).filter(|id| vocabulary.kind(*id) == Kind::Normal);
    let mut pairs = Vec::new();
    for (id, text, _) in vocabulary.iter().filter(|(.., kind)| *kind == Kind::Normal) {
        let first = pairs.len();
        for (letters, (middle, _)) in text.char_indices().enumerate().skip(1) {
            let (left, right) = text.split_at(middle);
            if let (Some(left_id), Some(right_id)) = (of_text(left), of_text(right)) {
                let right_letters = right.chars().count();
                pairs.push((scores[id], letters, right_letters, (left_id, right_id), [left, right]));
            }
        }
        pairs[first..].sort_by_key(|(.., ids, _)| *ids);
    }
    pairs.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)).then(b.2.cmp(&a.2)));
    pairs.into_iter().map(|(.., pair)| pair).collect()
}
