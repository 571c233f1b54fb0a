//! Constrained output over a vocabulary of Mistral-NeMo's size, 131072: `cargo bench -p text --bench guide`.
//!
//! The vocabulary is made up: the 256 bytes, signs of JSON in twos and threes, numbers, and words of syllables with and
//! without a blank before them, of lengths such as real ones have.

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot be set up is over")]

use std::collections::HashSet;
use std::hint::black_box;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use serde_json::{Map, Value, json};
use text::guide::{Guide, GuideFactory};
use text::tokenizer::Tokenizer;
use text::{GuidedDecodingParams, TokenId};

const VOCABULARY: usize = 131_072;
const END: TokenId = 2;

const PERSON: &str = r#"{"type": "object", "properties": {
    "name": {"type": "string", "maxLength": 40},
    "age": {"type": "integer", "minimum": 0, "maximum": 150},
    "email": {"type": "string", "format": "email"},
    "role": {"enum": ["admin", "editor", "reader"]},
    "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 5},
    "address": {"type": "object", "properties": {"street": {"type": "string"}, "city": {"type": "string"},
        "zip": {"type": "string", "pattern": "^[0-9]{5}$"}}, "required": ["street", "city"]}},
    "required": ["name", "age", "role"], "additionalProperties": false}"#;

const ANSWER: &str = r#"{"name": "Ada Lovelace", "age": 36, "email": "ada@example.org", "role": "editor",
    "tags": ["mathematics", "first programs", "Zürich"], "address": {"street": "12 St James's Square",
    "city": "London", "zip": "12345"}}"#;

/// The letters in which byte-level vocabularies spell bytes.
fn letters() -> Vec<char> {
    let mut others = '\u{100}'..;
    (0..=u8::MAX)
        .map(|byte| match byte {
            33..=126 | 161..=172 | 174..=255 => char::from(byte),
            _ => others.next().unwrap(),
        })
        .collect()
}

fn vocabulary() -> Vec<String> {
    let letters = letters();
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(str::to_owned).into();
    tokens.extend(letters.iter().map(char::to_string));
    let blank = letters[usize::from(b' ')];
    let signs =
        ["{", "}", "[", "]", "\"", ":", ",", "\\", &blank.to_string(), &letters[usize::from(b'\n')].to_string()];
    for one in signs {
        for other in signs {
            tokens.push(format!("{one}{other}"));
            tokens.extend(signs.map(|third| format!("{one}{other}{third}")));
        }
    }
    tokens.extend((10..1000).map(|number| number.to_string()));
    let syllables: Vec<String> = "bcdfghklmnprstvwz"
        .chars()
        .flat_map(|first| "aeiou".chars().map(move |second| format!("{first}{second}")))
        .collect();
    let mut state = 1_u64;
    let mut choose = |among: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % among
    };
    let mut seen: HashSet<String> = tokens.iter().cloned().collect();
    while tokens.len() < VOCABULARY {
        let mut word = if choose(2) == 0 { blank.to_string() } else { String::new() };
        for _ in 0..=choose(4) {
            word += &syllables[choose(syllables.len())];
        }
        if choose(3) == 0 {
            word.push('s');
        }
        if seen.insert(word.clone()) {
            tokens.push(word);
        }
    }
    tokens
}

fn tokenizer() -> Tokenizer {
    let vocab: Map<String, Value> =
        vocabulary().into_iter().enumerate().map(|(id, token)| (token, json!(id))).collect();
    let special = |id: usize, token: &str| {
        json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
               "special": true})
    };
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [special(0, "<unk>"), special(1, "<s>"), special(2, "</s>")],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                  "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []}
    });
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("tokenizer.json"), file.to_string()).unwrap();
    Tokenizer::open(dir.path()).unwrap()
}

/// The guide at every token of an answer, which is spelled byte by byte.
fn states(guide: Guide, tokenizer: &Tokenizer, answer: &str) -> Vec<Guide> {
    let mut states = vec![guide];
    for id in tokenizer.encode(answer, false).unwrap() {
        let mut next = states[states.len() - 1].clone();
        next.accept(id).unwrap();
        states.push(next);
    }
    states
}

fn guides(c: &mut Criterion) {
    let tokenizer = tokenizer();
    assert_eq!(tokenizer.vocab_size(), VOCABULARY);
    let factory = GuideFactory::new(&tokenizer, VOCABULARY).unwrap();
    let cases = [
        ("json_schema", GuidedDecodingParams::JsonSchema(PERSON.to_owned()), ANSWER),
        ("json", GuidedDecodingParams::Json, ANSWER),
        (
            "regex",
            GuidedDecodingParams::Regex("([A-Z][a-z]+ ){1,8}[0-9]{4}-[0-9]{2}".to_owned()),
            "Ada Lovelace 1815-12",
        ),
        (
            "lark",
            GuidedDecodingParams::LarkGrammar(
                "start: sum\nsum: atom | sum (\"+\" | \"*\") atom\natom: /[0-9]+/ | /[a-z]+/ | \"(\" sum \")\""
                    .to_owned(),
            ),
            "12+(34*word+5)*((6+7)*beta)",
        ),
    ];
    c.benchmark_group("factory")
        .sample_size(10)
        .bench_function("131072", |b| b.iter(|| GuideFactory::new(&tokenizer, VOCABULARY).unwrap()));
    for (name, params, answer) in cases {
        let mut group = c.benchmark_group(name);
        group.bench_function("compile", |b| b.iter(|| factory.compile(black_box(&params), &[END]).unwrap()));
        let fresh = states(factory.compile(&params, &[END]).unwrap(), &tokenizer, answer);
        let middle = &fresh[fresh.len() / 2];
        group.bench_function("clone", |b| b.iter(|| black_box(middle).clone()));
        // Accepting and masking every token of the answer, from a guide that has just been compiled.
        let ids = tokenizer.encode(answer, false).unwrap();
        let mut logits = vec![0.0_f32; VOCABULARY];
        group.bench_function(format!("answer_of_{}_tokens", ids.len()), |b| {
            b.iter_batched(
                || fresh[0].clone(),
                |mut guide| {
                    for &id in &ids {
                        logits.fill(0.0);
                        guide.mask(&mut logits).unwrap();
                        guide.accept(id).unwrap();
                    }
                    guide
                },
                BatchSize::LargeInput,
            );
        });
        group.finish();
    }
}

criterion_group!(benches, guides);
criterion_main!(benches);
