//! What stands beside `tokenizer.json`: added tokens, special tokens, flags and classes, as Transformers' AutoTokenizer takes them.

use std::path::Path;

use serde_json::Value;
use tempfile::TempDir;
use text::tokenizer::Tokenizer;

use crate::support::{fixtures, ids, read_json};

/// A directory with the files of a recorded case.
fn model(case: &Value) -> TempDir {
    let base = fixtures().join(if case["base"] == "byte-level" { "tokenizer" } else { "tokenizer/byte-fallback" });
    let mut tokenizer = read_json(&base.join("tokenizer.json"));
    for (field, value) in case["tokenizer"].as_object().unwrap() {
        tokenizer[field] = value.clone();
    }
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, value: &Value| std::fs::write(dir.path().join(name), value.to_string()).unwrap();
    write("tokenizer.json", &tokenizer);
    for (name, value) in case["files"].as_object().unwrap() {
        write(name, value);
    }
    dir
}

#[test]
fn files_beside_tokenizer_json_count_as_in_transformers() {
    let recorded = read_json(Path::new(&fixtures().join("tokenizer/beside.json")));
    let texts: Vec<&str> = recorded["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
    let cases = recorded["cases"].as_array().unwrap();
    let mut wrong = Vec::new();
    for case in cases {
        let name = format!("{} {}", case["base"], case["name"]);
        let dir = model(case);
        let tokenizer = Tokenizer::open(dir.path()).unwrap();
        let mut check = |what: &str, found: String, expected: String| {
            if found != expected {
                wrong.push(format!("{name}: {what}: {found}, not {expected}"));
            }
        };
        check("eos", format!("{:?}", tokenizer.eos_id()), format!("{:?}", case["eos_id"].as_u64()));
        check("tokens", tokenizer.vocab_size().to_string(), case["tokens"].to_string());
        for (number, text) in texts.iter().enumerate() {
            let expected = &case["ids"][number];
            for (special, expected) in [(true, &expected[0]), (false, &expected[1])] {
                let found = tokenizer.encode(text, special).unwrap();
                check(&format!("{text:?}, {special}"), format!("{found:?}"), format!("{:?}", ids(expected)));
            }
            let decoded = tokenizer.decode(&ids(&expected[1]), false).unwrap();
            check("decoded", decoded, case["decoded"][number].as_str().unwrap().to_owned());
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
