//! What makes tokens more or less likely: penalties, biases, bans.

use std::collections::BTreeSet;

use serde_json::json;
use trtllm::text::tokenizer::Tokenizer;

use crate::common;
use crate::support::{
    demo, file, json_line, numbers, output_ids, parity, parity_model, refused, run_engine, write_json,
};

const PROMPT: [&str; 5] = ["--prompt-ids", "5,6,7,8", "--max-new-tokens", "24", "--ignore-eos"];

fn has_repeated_ngram(ids: &[u32], size: usize) -> bool {
    let ngrams: BTreeSet<_> = ids.windows(size).collect();
    ngrams.len() < ids.windows(size).len()
}

#[test]
fn presence_and_frequency_penalties_count_prompt_and_output() {
    let engine = parity("mistral-gqa");
    let run = |more: &[&str]| output_ids(&json_line(&engine, &[&PROMPT[..], more].concat()));
    let plain = run(&[]);
    assert!(has_repeated_ngram(&plain, 1), "{plain:?}");
    for penalty in ["--presence-penalty", "--frequency-penalty"] {
        let ids = run(&[penalty, "1000"]);
        let all = [&[5, 6, 7, 8][..], &ids].concat();
        assert!(!has_repeated_ngram(&all, 1), "{penalty}: {all:?}");
        assert_eq!(run(&[penalty, "0"]), plain, "{penalty}");
        // The other way round, what was seen is all that is chosen.
        let ids = run(&[penalty, "-1000"]);
        assert!(ids.iter().all(|id| (5..=8).contains(id)), "{penalty}: {ids:?}");
        // Of the prompt, only what comes after the ignored tokens counts.
        let ids = run(&[penalty, "-1000", "--prompt-ignore-length", "3"]);
        assert_eq!(ids, [8; 24], "{penalty}");
    }
    // A presence is one, however often; a frequency is not: biases leave two tokens, 9 a little ahead.
    let tied = ["--prompt-ids", "5,5,9", "--max-new-tokens", "1", "--logit-bias", "5=10000", "--logit-bias", "9=10100"];
    let steered = |more: &[&str]| output_ids(&json_line(&engine, &[&tied[..], more].concat()));
    assert_eq!(steered(&["--presence-penalty", "-1000"]), [9]);
    assert_eq!(steered(&["--frequency-penalty", "-1000"]), [5]);
}

#[test]
fn no_ngram_occurs_twice() {
    let engine = parity("mistral-gqa");
    let run = |size: &str| {
        let line = json_line(&engine, &[&PROMPT[..], &["--no-repeat-ngram-size", size]].concat());
        [&[5, 6, 7, 8][..], &output_ids(&line)].concat()
    };
    let plain = run("0");
    assert!(has_repeated_ngram(&plain, 1), "{plain:?}");
    for (size, text) in [(1, "1"), (2, "2"), (3, "3")] {
        assert!(!has_repeated_ngram(&run(text), size), "{size}");
    }
}

#[test]
fn a_bias_is_added_to_the_logits_and_not_to_log_probabilities() {
    let engine = parity("mistral-gqa");
    let run = |more: &[&str]| json_line(&engine, &[&PROMPT[..], &["--logprobs"], more].concat());
    let plain = run(&[]);
    let favourite = output_ids(&plain)[0];
    let forced = run(&["--logit-bias", "33=1000"]);
    assert_eq!(output_ids(&forced), [33; 24]);
    assert!(numbers(&forced["logprobs"])[0] < numbers(&plain["logprobs"])[0]);
    assert_eq!(run(&["--logit-bias", "33:1000"]), forced);
    let banned = run(&["--logit-bias", &format!("{favourite}=-1000"), "--logit-bias", "33=-1000"]);
    assert!(output_ids(&banned).iter().all(|&id| id != favourite && id != 33));
    let (_dir, path) = file("prompts", json!({"prompt_ids": [5, 6, 7, 8], "logit_bias": {"33": 1000}}).to_string());
    let line = json_line(&engine, &[&["--prompts", path.to_str().unwrap(), "--logprobs"], &PROMPT[2..]].concat());
    assert_eq!(line, forced);

    let check = |bias: &str, parts: &[&str]| {
        refused(&mut run_engine(&engine.path, &["--prompt-ids", "1", "--logit-bias", bias]), 2, parts);
    };
    check("33", &["--logit-bias", "ID=BIAS"]);
    check("x=1", &["--logit-bias", "`x`", "token id"]);
    check("-1=1", &["--logit-bias", "`-1`"]);
    check("1=much", &["--logit-bias", "`much`", "number"]);
    check("64=1", &["biased token 64", "0 to 63"]);
    check("1=inf", &["token 1", "finite"]);
}

#[test]
fn bad_words_are_banned_alone_and_after_a_blank() {
    let engine = demo();
    let tokenizer = Tokenizer::open(&engine.path).unwrap();
    let arguments = ["--prompt", "The planet Mars", "--max-new-tokens", "30", "--ignore-eos"];
    let plain = json_line(&engine, &arguments);
    let text = plain["text"].as_str().unwrap().to_owned();
    let word = text.split(|c: char| !c.is_ascii_alphabetic()).find(|word| word.len() > 3).unwrap();
    let forms = [word.to_owned(), format!(" {word}")].map(|form| tokenizer.encode(&form, false).unwrap());
    let has = |ids: &[u32]| forms.iter().any(|form| ids.windows(form.len()).any(|window| window == form));
    assert!(has(&output_ids(&plain)), "`{word}` is not in its usual tokens: {text}");
    let without = json_line(&engine, &[&arguments[..], &["--bad-words", word]].concat());
    assert!(!has(&output_ids(&without)), "{without}");

    for words in [json!(word), json!(["§", word])] {
        let (_dir, path) = file("prompts", json!({"prompt": "The planet Mars", "bad_words": words}).to_string());
        let line = json_line(&engine, &[&["--prompts", path.to_str().unwrap()], &arguments[2..]].concat());
        assert_eq!(line, without);
    }
    refused(&mut run_engine(&engine.path, &["--prompt", "a", "--bad-words", ""]), 2, &["bad word number 1 is empty"]);
    let engine = parity("mistral-gqa");
    refused(
        &mut run_engine(&engine.path, &["--prompt-ids", "1", "--bad-words", "a"]),
        2,
        &["--bad-words", "tokenizer"],
    );
}

#[test]
fn the_model_does_not_end_before_min_tokens() {
    let whole = output_ids(&json_line(&parity("mistral-gqa"), &PROMPT));
    let model = parity_model("mistral-gqa");
    write_json(&model.path().join("generation_config.json"), &json!({"eos_token_id": [whole[0], whole[1]]}));
    let engine = common::build(model.path(), 64);
    let run = |more: &[&str]| json_line(&engine, &[&PROMPT[..4], more].concat());
    assert_eq!(output_ids(&run(&[])).len(), 1);
    for min_tokens in [1, 2, 7] {
        let line = run(&["--min-tokens", &min_tokens.to_string()]);
        let ids = output_ids(&line);
        let is_end = |id: &u32| *id == whole[0] || *id == whole[1];
        assert!(ids.len() > min_tokens, "{ids:?}");
        assert!(!ids[..min_tokens].iter().any(is_end), "{min_tokens}: {ids:?}");
    }
}

#[test]
fn settings_out_of_range_are_refused() {
    let engine = parity("mistral-gqa");
    let check = |setting: &str, value: &str, parts: &[&str]| {
        refused(&mut run_engine(&engine.path, &["--prompt-ids", "1", setting, value]), 2, parts);
    };
    check("--presence-penalty", "nan", &["--presence-penalty must be a finite number"]);
    check("--frequency-penalty", "inf", &["--frequency-penalty must be a finite number"]);
    check("--priority", "1.5", &["priority", "from 0 to 1", "1.5"]);
    check("--priority", "-1", &["priority", "-1"]);
    check("--min-tokens", "-1", &["--min-tokens"]);
    check("--no-repeat-ngram-size", "-1", &["--no-repeat-ngram-size"]);
    check("--allotted-time-ms", "-1", &["--allotted-time-ms"]);
    check("--cache-salt-id", "-1", &["--cache-salt-id"]);
}
