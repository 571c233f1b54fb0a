//! Streaming text against the whole decode.

use proptest::prelude::*;
use serde_json::{Value, json};
use text::detokenizer::Detokenizer;
use text::tokenizer::Tokenizer;

use crate::support::{both, directory, ids, words};

/// All that a detokenizer gives for some ids.
fn stream(mut detokenizer: Detokenizer, ids: &[u32]) -> String {
    let mut text: String = ids.iter().map(|&id| detokenizer.push(id)).collect();
    text.push_str(&detokenizer.finish());
    text
}

#[test]
fn the_pieces_are_the_whole_and_none_is_held_too_long() {
    for (tokenizer, expected) in both() {
        for case in ["texts", "ids"].iter().flat_map(|group| expected[*group].as_array().unwrap()) {
            let ids = ids(&case["ids"]);
            for (skip, decoded) in [(true, "decoded"), (false, "decoded_with_special")] {
                let text = stream(Detokenizer::new(&tokenizer, skip), &ids);
                assert_eq!(text, case[decoded].as_str().unwrap());
            }
            let mut detokenizer = Detokenizer::new(&tokenizer, true);
            let mut text = String::new();
            for (&id, prefix) in ids.iter().zip(case["prefixes"].as_array().unwrap()) {
                text.push_str(&detokenizer.push(id));
                let prefix = prefix.as_str().unwrap();
                // What is certain has been given out, unless a run of byte tokens may still turn out ill-formed.
                let byte_run = tokenizer.id_to_token(id).is_some_and(|token| token.starts_with("<0x"));
                if !prefix.ends_with('\u{FFFD}') && !byte_run && !tokenizer.is_special(id) {
                    assert_eq!(text, prefix);
                }
            }
        }
    }
}

#[test]
fn the_first_generated_word_keeps_its_blank() {
    for (tokenizer, _) in both() {
        let whole = tokenizer.encode("The sun and the moon", true).unwrap();
        for cut in 1..whole.len() {
            let (prompt, output) = whole.split_at(cut);
            let before = tokenizer.decode(prompt, true).unwrap();
            let text = stream(Detokenizer::after_prompt(&tokenizer, prompt, true), output);
            assert_eq!(before + &text, "The sun and the moon", "cut at {cut}");
        }
    }
}

#[test]
fn a_written_replacement_character_is_given_out_at_once() {
    for (tokenizer, _) in both() {
        let ids = tokenizer.encode("a\u{FFFD}b", false).unwrap();
        let mut detokenizer = Detokenizer::new(&tokenizer, true);
        let text: String = ids.iter().map(|&id| detokenizer.push(id)).collect();
        assert_eq!(text, "a\u{FFFD}b");
        assert_eq!(detokenizer.finish(), "");
    }
}

#[test]
fn a_character_that_the_prompt_began_comes_whole() {
    for (tokenizer, _) in both() {
        let ids = tokenizer.encode("x🪐", false).unwrap();
        let (prompt, output) = ids.split_at(ids.len() - 2);
        assert!(tokenizer.decode(prompt, true).unwrap().ends_with('\u{FFFD}'));
        assert_eq!(stream(Detokenizer::after_prompt(&tokenizer, prompt, true), output), "🪐");
        // A whole character in bytes belongs to the prompt alone.
        assert_eq!(stream(Detokenizer::after_prompt(&tokenizer, &ids, true), &[]), "");
    }
}

#[test]
fn a_long_run_of_bytes_does_not_wait_for_its_end() {
    let [_, (tokenizer, _)] = both();
    let text = "🪐".repeat(100);
    let ids = tokenizer.encode(&text, false).unwrap();
    assert!(ids.len() >= 400, "the fixture spells this in bytes");
    let mut detokenizer = Detokenizer::new(&tokenizer, true);
    let mut out = String::new();
    for (count, &id) in ids.iter().enumerate() {
        out.push_str(&detokenizer.push(id));
        assert!(count < 80 || out.len() + 4 > count - 4, "held at {count}");
    }
    assert_eq!(out + &detokenizer.finish(), text);
}

#[test]
fn other_decoders_of_the_same_families_stream_too() {
    let vocab = ["<unk>", "</s>", "▁sun", "▁", "shine", "<0xC3>", "<0xA9>", "a▁b", "  "];
    let replace = json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "});
    let strip = |count: u32| json!({"type": "Strip", "content": " ", "start": count, "stop": 0});
    let (fallback, fuse) = (json!({"type": "ByteFallback"}), json!({"type": "Fuse"}));
    let metaspace =
        |scheme: &str| json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": true});
    let chain = |steps: Vec<Value>| json!({"type": "Sequence", "decoders": steps});
    let decoders = [
        Value::Null,
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}),
        metaspace("always"),
        metaspace("first"),
        metaspace("never"),
        chain(vec![fallback.clone(), metaspace("always")]),
        chain(vec![replace.clone(), fallback.clone(), fuse.clone()]),
        chain(vec![replace.clone(), fallback.clone(), fuse.clone(), strip(1)]),
        chain(vec![replace.clone(), fallback, chain(vec![fuse.clone(), strip(3)])]),
        chain(vec![replace.clone(), strip(1), fuse]),
        replace,
    ];
    let mut state = 1_u32;
    for decoder in decoders {
        let dir = directory(&[("tokenizer.json", words(&vocab, &["</s>"], decoder.clone(), Value::Null))]);
        let tokenizer = Tokenizer::open(dir.path()).unwrap();
        for length in (0..300).map(|number| number % 9) {
            let ids: Vec<u32> = (0..length)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 16) % 10
                })
                .collect();
            for skip in [true, false] {
                let whole = tokenizer.decode(&ids, skip).unwrap();
                assert_eq!(stream(Detokenizer::new(&tokenizer, skip), &ids), whole, "{decoder} {ids:?}");
            }
        }
    }
}

fn random_ids() -> impl Strategy<Value = (Vec<u32>, usize)> {
    // Half of the ids are of the small ones, where the special and byte tokens are.
    let id = prop_oneof![0..300_u32, 0..450_u32];
    prop::collection::vec(id, 0..50).prop_flat_map(|ids| {
        let length = ids.len();
        (Just(ids), 0..=length)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn any_ids_stream_to_their_whole_decode((ids, cut) in random_ids(), skip in any::<bool>()) {
        for (tokenizer, _) in TOKENIZERS.iter() {
            let whole = tokenizer.decode(&ids, skip).unwrap();
            prop_assert_eq!(&stream(Detokenizer::new(tokenizer, skip), &ids), &whole);

            let (prompt, output) = ids.split_at(cut);
            let before = tokenizer.decode(prompt, skip).unwrap();
            let text = stream(Detokenizer::after_prompt(tokenizer, prompt, skip), output);
            // Where the prompt stands as it is decoded, the rest is what was generated.
            if !before.ends_with('\u{FFFD}') && whole.starts_with(&before) {
                prop_assert_eq!(before + &text, whole);
            }
        }
    }
}

static TOKENIZERS: std::sync::LazyLock<[(Tokenizer, Value); 2]> = std::sync::LazyLock::new(both);

#[test]
fn speed_is_reported() {
    for ((tokenizer, _), name) in both().into_iter().zip(["byte-level", "byte fallback"]) {
        let text = "The sun and the eight planets, é 🪐. ".repeat(2000);
        let ids = tokenizer.encode(&text, false).unwrap();
        let mut detokenizer = Detokenizer::new(&tokenizer, true);
        let start = std::time::Instant::now();
        let bytes: usize = ids.iter().map(|&id| detokenizer.push(id).len()).sum();
        let rate = ids.len() as f64 / start.elapsed().as_secs_f64();
        println!("{name}: {} tokens, {rate:.0} tokens/s", ids.len());
        assert_eq!(bytes + detokenizer.finish().len(), text.len());
    }
}
