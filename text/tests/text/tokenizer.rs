//! Encoding and decoding, and who decides about BOS.

use serde_json::{Value, json};
use text::tokenizer::{LazyTokenizer, Tokenizer, TokenizerError};

use crate::support::{both, directory, ids, words};

#[test]
fn texts_become_the_ids_that_transformers_gives() {
    for (tokenizer, expected) in both() {
        assert_eq!(tokenizer.vocab_size() as u64, expected["vocab_size"].as_u64().unwrap());
        for case in expected["texts"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            assert_eq!(tokenizer.encode(text, false).unwrap(), ids(&case["ids"]), "{text:?}");
            assert_eq!(tokenizer.encode(text, true).unwrap(), ids(&case["ids_with_special"]), "{text:?}");
        }
    }
}

#[test]
fn ids_become_the_texts_that_transformers_gives() {
    for (tokenizer, expected) in both() {
        for case in ["texts", "ids"].iter().flat_map(|group| expected[*group].as_array().unwrap()) {
            let ids = ids(&case["ids"]);
            assert_eq!(tokenizer.decode(&ids, true).unwrap(), case["decoded"].as_str().unwrap());
            assert_eq!(tokenizer.decode(&ids, false).unwrap(), case["decoded_with_special"].as_str().unwrap());
        }
    }
}

#[test]
fn special_tokens_are_known_by_name_and_id() {
    for (tokenizer, _) in both() {
        assert_eq!((tokenizer.bos_token(), tokenizer.eos_token()), (Some("<s>"), Some("</s>")));
        let (bos, eos) = (tokenizer.bos_id().unwrap(), tokenizer.eos_id().unwrap());
        assert_eq!(tokenizer.id_to_token(bos).as_deref(), Some("<s>"));
        assert!(tokenizer.is_special(bos) && tokenizer.is_special(eos));
        let letter = tokenizer.token_to_id("a").unwrap();
        assert!(!tokenizer.is_special(letter));
        let beyond = u32::try_from(tokenizer.vocab_size()).unwrap();
        assert!(!tokenizer.is_special(beyond) && tokenizer.id_to_token(beyond).is_none());
        assert_eq!(tokenizer.decode(&[beyond, letter], true).unwrap(), tokenizer.decode(&[letter], true).unwrap());
    }
}

type Files = Vec<(&'static str, Value)>;

const VOCAB: [&str; 5] = ["<unk>", "<s>", "</s>", "sun", "moon"];
const SPECIAL: [&str; 3] = ["<unk>", "<s>", "</s>"];

fn template(single: &[&str]) -> Value {
    let piece = |token: &&str| match *token {
        "$A" => json!({"Sequence": {"id": "A", "type_id": 0}}),
        token => json!({"SpecialToken": {"id": token, "type_id": 0}}),
    };
    let single: Vec<Value> = single.iter().map(piece).collect();
    let special = |token: &str, id: u32| json!({"id": token, "ids": [id], "tokens": [token]});
    json!({"type": "TemplateProcessing", "single": single, "pair": single,
           "special_tokens": {"<s>": special("<s>", 1), "</s>": special("</s>", 2)}})
}

#[test]
fn a_saved_length_neither_cuts_nor_pads() {
    let mut file = words(&VOCAB, &SPECIAL, Value::Null, Value::Null);
    file["truncation"] = json!({"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0});
    file["padding"] = json!({"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
                             "pad_type_id": 0, "pad_token": "<unk>"});
    let dir = directory(&[("tokenizer.json", file)]);
    let tokenizer = Tokenizer::open(dir.path()).unwrap();
    assert_eq!(tokenizer.encode("sun moon sun", true).unwrap(), [3, 4, 3]);
}

#[test]
fn special_tokens_map_counts_unless_the_configuration_lists_added_tokens() {
    let file = words(&VOCAB, &SPECIAL, Value::Null, Value::Null);
    let map = json!({"bos_token": {"content": "sun"}, "additional_special_tokens": ["moon"]});
    for (listed, expected) in [(false, Some("sun")), (true, Some("<s>"))] {
        let mut config = json!({"bos_token": "<s>"});
        if listed {
            config["added_tokens_decoder"] = json!({});
        }
        let dir = directory(&[
            ("tokenizer.json", file.clone()),
            ("tokenizer_config.json", config),
            ("special_tokens_map.json", map.clone()),
        ]);
        assert_eq!(Tokenizer::open(dir.path()).unwrap().bos_token(), expected);
    }
}

#[test]
fn errors_name_the_file_and_what_to_do() {
    let good = words(&VOCAB, &SPECIAL, Value::Null, Value::Null);
    let mut huge = good.clone();
    huge["model"]["vocab"]["sun"] = json!(4_000_000_000_u32);
    let mut contradiction = words(&VOCAB, &SPECIAL, Value::Null, template(&["<s>", "$A"]));
    contradiction["post_processor"]["special_tokens"] = json!({});
    let with_config = |config: Value| vec![("tokenizer.json", good.clone()), ("tokenizer_config.json", config)];
    let cases: Vec<(Files, &[&str])> = vec![
        (vec![], &["has no tokenizer.json", "copy it"]),
        (vec![("tokenizer.model", json!("x"))], &["has no tokenizer.json", "save_pretrained"]),
        (vec![("tokenizer.json", json!("{\"model\": "))], &["tokenizer.json is not valid", "copy the file"]),
        (vec![("tokenizer.json", json!({"model": {}}))], &["tokenizer.json is not valid"]),
        (vec![("tokenizer.json", contradiction)], &["tokenizer.json is not valid"]),
        (vec![("tokenizer.json", huge)], &["tokenizer.json: model.vocab", "4000000000"]),
        (
            vec![(
                "tokenizer.json",
                words(&VOCAB, &[], json!({"type": "WordPiece", "prefix": "##", "cleanup": true}), Value::Null),
            )],
            &["tokenizer.json: decoder", "WordPiece"],
        ),
        (with_config(json!("[1]")), &["tokenizer_config.json is not valid"]),
        (with_config(json!({"bos_token": 7})), &["tokenizer_config.json: bos_token: must be a string"]),
        (with_config(json!({"legacy": "yes"})), &["tokenizer_config.json: legacy: must be true or false"]),
        (with_config(json!({"tokenizer_class": 1})), &["tokenizer_class: must be a string"]),
        (
            with_config(json!({"split_special_tokens": true})),
            &["split_special_tokens: is true, which is not supported"],
        ),
        (
            with_config(json!({"added_tokens_decoder": {"x": {"content": "a"}}})),
            &["added_tokens_decoder.x: must be named"],
        ),
        (with_config(json!({"added_tokens_decoder": {"7": {}}})), &["added_tokens_decoder.7: must be a string or"]),
        (
            with_config(json!({"added_tokens_decoder": {"7": {"content": "a", "lstrip": 1}}})),
            &["added_tokens_decoder.7.lstrip: must be true or false"],
        ),
        (with_config(json!({"extra_special_tokens": "a"})), &["extra_special_tokens: must be a list of tokens"]),
        (with_config(json!({"additional_special_tokens": ["a", 2]})), &["additional_special_tokens[1]: must be"]),
        (
            vec![("tokenizer.json", json!("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 1\n"))],
            &["tokenizer.json", "is a Git LFS pointer", "git lfs pull"],
        ),
        (with_config(json!("<!DOCTYPE html><html></html>")), &["tokenizer_config.json", "is an HTML page"]),
        (
            vec![("tokenizer.json", json!({"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": "1"}}}))],
            &["tokenizer.json is not valid"],
        ),
    ];
    for (files, needles) in cases {
        let dir = directory(&files);
        let error = Tokenizer::open(dir.path()).unwrap_err().to_string();
        for needle in needles {
            assert!(error.contains(needle), "{error:?} lacks {needle:?}");
        }
        assert!(error.contains(&dir.path().display().to_string()), "{error:?} names no file");
    }
}

#[test]
fn a_lazy_tokenizer_is_parsed_once() {
    let dir = directory(&[("tokenizer.json", words(&VOCAB, &SPECIAL, Value::Null, Value::Null))]);
    let lazy = LazyTokenizer::of(dir.path());
    assert!(!lazy.is_parsed());
    let clone = lazy.clone();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| clone.get().unwrap());
        assert!(std::ptr::eq(lazy.get().unwrap(), other.join().unwrap()));
    });
    drop(dir);
    assert_eq!(lazy.get().unwrap().encode("sun", false).unwrap(), [3], "the file is not read again");
    let none = LazyTokenizer::of("/no/such/directory".as_ref());
    let errors = [(); 2].map(|()| none.get().unwrap_err().to_string());
    assert!(errors[0].contains("has no tokenizer.json") && errors[0] == errors[1], "{errors:?}");
}

#[test]
fn a_text_that_the_vocabulary_cannot_spell_is_refused() {
    let mut file = words(&["sun"], &[], Value::Null, Value::Null);
    file["model"]["unk_token"] = json!("<none>");
    let dir = directory(&[("tokenizer.json", file)]);
    let error = Tokenizer::open(dir.path()).unwrap().encode("rain", true).unwrap_err();
    assert!(matches!(error, TokenizerError::Encode { .. }), "{error}");
}
