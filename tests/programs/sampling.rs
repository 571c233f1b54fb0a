//! How many tokens, and how they are chosen.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use crate::common::Engine;
use crate::support::{
    comma_separated, demo, file, json_line, json_lines, numbers, output_ids, parity, parity_model, printed, refused,
    run_engine, succeeded,
};

#[test]
fn max_new_tokens_counts_the_output_and_is_128_by_default() {
    let engine = parity("mistral-gqa");
    let length = |arguments: &[&str]| {
        let line = json_line(&engine, &[&["--prompt-ids", "1,2,3", "--ignore-eos"], arguments].concat());
        assert_eq!(line["finish_reason"], "length");
        output_ids(&line).len()
    };
    assert_eq!(length(&[]), 128);
    assert_eq!(length(&["--max-new-tokens", "1"]), 1);
    assert_eq!(length(&["--max-new-tokens", "200"]), 200);
}

#[test]
fn max_length_counts_the_prompt_too() {
    let engine = demo();
    let prompt = ["--prompt", "Complete the paragraph: our solar system is", "--ignore-eos"];
    let line = json_line(&engine, &[&prompt[..], &["--max-length", "20"]].concat());
    let prompt_tokens = line["prompt_tokens"].as_u64().unwrap() as usize;
    assert_eq!(output_ids(&line).len(), 20 - prompt_tokens);
    let same = json_line(&engine, &[&prompt[..], &["--max-new-tokens", &(20 - prompt_tokens).to_string()]].concat());
    assert_eq!(line, same);
}

#[test]
fn a_prompt_that_leaves_no_room_is_refused() {
    let engine = parity("mistral-gqa");
    let prompt = |tokens: usize| comma_separated(&vec![1; tokens]);
    let with = |prompt: &str, more: &[&str]| run_engine(&engine.path, &[&["--prompt-ids", prompt], more].concat());
    refused(&mut with(&prompt(20), &["--max-length", "20"]), 2, &["20 tokens", "--max-length 20"]);
    refused(&mut with(&prompt(21), &["--max-length", "20"]), 2, &["21 tokens"]);
    refused(&mut with(&prompt(256), &[]), 2, &["256 tokens", "max_seq_len is 256", "build the engine with a larger"]);
    refused(&mut with(&prompt(300), &["--max-new-tokens", "1"]), 2, &["300 tokens", "max_seq_len is 256"]);
    refused(&mut with("1", &["--max-length", "9", "--max-new-tokens", "5"]), 2, &["--max-length", "--max-new-tokens"]);
}

#[test]
fn output_that_does_not_fit_is_shortened_with_a_warning() {
    let engine = parity("mistral-gqa");
    let prompt = comma_separated(&[1; 64]);
    for limit in [&["--max-new-tokens", "18446744073709551615"], &["--max-length", "1000"]] {
        let mut command = run_engine(&engine.path, &["--prompt-ids", &prompt, "--format", "json", "--ignore-eos"]);
        let output = succeeded(command.args(limit));
        let line: Value = serde_json::from_str(&output.stdout).unwrap();
        assert_eq!((output_ids(&line).len(), &line["finish_reason"]), (192, &json!("length")));
        let warning = output.stderr.lines().find(|line| line.starts_with("warning: ")).unwrap();
        assert!(warning.contains("64 tokens") && warning.contains("192 tokens"), "{warning}");
    }
    let fits = json_line(&engine, &["--prompt-ids", &comma_separated(&[1; 255]), "--max-new-tokens", "1"]);
    assert_eq!(output_ids(&fits).len(), 1);
}

#[test]
fn temperature_zero_is_greedy_and_the_default() {
    let engine = demo();
    let prompt = ["--prompt", "The largest planet", "--max-new-tokens", "24", "--format", "json"];
    let run = |more: &[&str]| printed(&engine, &[&prompt, more].concat());
    let greedy = run(&[]);
    for same in [
        &["--temperature", "0"][..],
        &["--temperature", "0", "--seed", "7", "--top-p", "0.9"],
        &["--temperature", "5", "--top-k", "1"],
        &["--top-p", "0"],
        &["--min-p", "1", "--seed", "3"],
        &["--repetition-penalty", "1"],
    ] {
        assert_eq!(run(same), greedy, "{same:?}");
    }
}

#[test]
fn the_seed_decides_the_tokens() {
    let engine = demo();
    let prompt = ["--prompt", "The", "--max-new-tokens", "40", "--temperature", "1", "--format", "json"];
    let run = |more: &[&str]| printed(&engine, &[&prompt, more].concat());
    let seeds: Vec<String> = (0..4).map(|seed| run(&["--seed", &seed.to_string()])).collect();
    for (seed, first) in seeds.iter().enumerate() {
        assert_eq!(run(&["--seed", &seed.to_string()]), *first);
    }
    assert_eq!(seeds.iter().collect::<BTreeSet<_>>().len(), seeds.len(), "different seeds, the same tokens");
    assert_eq!(run(&[]), seeds[0], "the default seed is 0");
    assert!(!run(&["--seed", "18446744073709551615"]).is_empty());
}

#[test]
fn company_and_threads_change_nothing() {
    let engine = demo();
    let settings = ["--temperature", "1", "--seed", "5", "--max-new-tokens", "20", "--logprobs", "--prompt-logprobs"];
    let run = |more: &[&str]| json_lines(&engine, &[&settings, more].concat());
    let alone = run(&["--prompt", "Saturn has rings", "--threads", "1"]).remove(0);
    let all =
        run(&["--prompt", "Saturn has rings", "--prompt", "Mars", "--prompt", "Saturn has rings", "--threads", "3"]);
    for (index, mut line) in all.into_iter().enumerate().filter(|(index, _)| *index != 1) {
        assert_eq!(line["index"], index);
        line["index"] = json!(0);
        assert_eq!(line, alone);
    }
}

/// Draws one token with each of many seeds; how often each came, and its log-probability.
fn draws(engine: &Engine, settings: Value) -> (BTreeMap<u32, usize>, BTreeMap<u32, f64>) {
    let lines: String = (0..DRAWS)
        .map(|seed| {
            let mut line = json!({"prompt_ids": [3, 1, 4], "max_new_tokens": 1, "logprobs": true, "seed": seed});
            line.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
            format!("{line}\n")
        })
        .collect();
    let (_dir, path) = file("prompts.jsonl", lines);
    let (mut counts, mut log_probs) = (BTreeMap::new(), BTreeMap::new());
    for line in json_lines(engine, &["--prompts", path.to_str().unwrap()]) {
        let token = output_ids(&line)[0];
        *counts.entry(token).or_default() += 1;
        log_probs.insert(token, numbers(&line["logprobs"])[0]);
    }
    (counts, log_probs)
}

const DRAWS: usize = 3000;

#[test]
fn draws_follow_the_distribution() {
    let engine = parity("mistral-gqa");
    let (_, log_probs) = draws(&engine, json!({"temperature": 1}));
    let covered: f64 = log_probs.values().map(|log_prob| log_prob.exp()).sum();
    assert!((0.97..1.0 + 1e-5).contains(&covered), "{covered}");
    for temperature in [0.5, 1.0, 1.3] {
        let (counts, _) = draws(&engine, json!({"temperature": temperature}));
        let weights = log_probs.iter().map(|(token, log_prob)| (token, (log_prob / temperature).exp()));
        let weights: BTreeMap<_, _> = weights.collect();
        let total: f64 = weights.values().sum();
        let distance: f64 = weights
            .iter()
            .map(|(token, weight)| (weight / total - count(&counts, token) as f64 / DRAWS as f64).abs())
            .sum();
        // Half the sum is the distance of the two distributions; 3000 draws of 64 tokens leave about 0.03.
        assert!(distance / 2.0 < 0.06, "temperature {temperature}: {distance}");
    }
}

fn count(counts: &BTreeMap<u32, usize>, token: &u32) -> usize {
    counts.get(token).copied().unwrap_or(0)
}

#[test]
fn filters_keep_exactly_what_they_promise() {
    let engine = parity("mistral-gqa");
    let (_, log_probs) = draws(&engine, json!({"temperature": 1}));
    let mut best_first: Vec<(f64, u32)> = log_probs.iter().map(|(&token, log_prob)| (log_prob.exp(), token)).collect();
    best_first.sort_by(|a, b| b.0.total_cmp(&a.0));
    let drawn = |settings| draws(&engine, settings).0.into_keys().collect::<BTreeSet<_>>();
    let first = |kept: usize| best_first[..kept].iter().map(|&(_, token)| token).collect::<BTreeSet<_>>();

    // Without a temperature, asking for a filter asks for draws.
    assert_eq!(drawn(json!({"top_k": 4})), first(4));
    let sums = best_first.iter().scan(0.0, |sum, (probability, _)| {
        *sum += probability;
        Some(*sum)
    });
    let nucleus = sums.take_while(|&sum| sum < 0.6).count() + 1;
    assert!(nucleus > 1);
    assert_eq!(drawn(json!({"top_p": 0.6})), first(nucleus));
    let likely = best_first.iter().filter(|(probability, _)| *probability >= 0.2 * best_first[0].0).count();
    assert!(likely > 1);
    assert_eq!(drawn(json!({"min_p": 0.2})), first(likely));
}

#[test]
fn the_repetition_penalty_spares_what_was_not_seen() {
    let engine = parity("mistral-gqa");
    let prompt = ["--prompt-ids", "5,6,7,8", "--max-new-tokens", "16", "--ignore-eos"];
    let repeats =
        |ids: &[u32]| ids.len() - ids.iter().filter(|id| !(5..9).contains(*id)).collect::<BTreeSet<_>>().len();
    let plain = output_ids(&json_line(&engine, &prompt));
    let penalized = output_ids(&json_line(&engine, &[&prompt[..], &["--repetition-penalty", "1000"]].concat()));
    assert!(repeats(&plain) > 0, "{plain:?}");
    assert_eq!(repeats(&penalized), 0, "{penalized:?}");
    assert_eq!(penalized[0], plain[0], "the first token had not been seen");
}

#[test]
fn settings_out_of_range_name_the_setting_and_the_range() {
    let engine = parity("mistral-gqa");
    let check = |setting: &str, value: &str, parts: &[&str]| {
        refused(&mut run_engine(&engine.path, &["--prompt-ids", "1", setting, value]), 2, parts);
    };
    check("--temperature", "-1", &["temperature", "from 0", "-1"]);
    check("--temperature", "nan", &["temperature", "NaN"]);
    check("--temperature", "inf", &["temperature", "inf"]);
    check("--top-p", "1.5", &["--top-p must be from 0 to 1, not 1.5"]);
    check("--top-p", "-0.5", &["--top-p", "-0.5"]);
    check("--min-p", "2", &["--min-p must be from 0 to 1, not 2"]);
    check("--repetition-penalty", "0", &["--repetition-penalty must be a number above 0, not 0"]);
    check("--temperature", "warm", &["--temperature", "warm"]);
    check("--seed", "-1", &["--seed", "-1"]);
    check("--seed", "18446744073709551616", &["--seed", "18446744073709551616"]);
    check("--top-k", "-3", &["--top-k", "-3"]);
    check("--max-new-tokens", "-1", &["--max-new-tokens", "-1"]);
    check("--threads", "0", &["--threads", "0"]);
    check("--format", "yaml", &["--format", "yaml", "text", "json"]);
    check("--no-such-option", "1", &["--no-such-option"]);
}

#[test]
fn extreme_but_valid_settings_run() {
    let engine = parity("mistral-gqa");
    let vocabulary = 0..64;
    for settings in [
        &["--temperature", "1e30"][..],
        &["--temperature", "1e-30"],
        &["--temperature", "1e-45", "--top-p", "0.5"],
        &["--top-k", "18446744073709551615"],
        &["--top-p", "1e-30"],
        &["--repetition-penalty", "1e-30"],
        &["--repetition-penalty", "1e30", "--temperature", "1"],
    ] {
        let line =
            json_line(&engine, &[&["--prompt-ids", "1,2", "--max-new-tokens", "9", "--ignore-eos"], settings].concat());
        let ids = output_ids(&line);
        assert!(ids.len() == 9 && ids.iter().all(|id| vocabulary.contains(id)), "{settings:?}: {ids:?}");
    }
}

#[test]
fn ids_outside_the_vocabulary_are_refused() {
    let engine = parity("mistral-gqa");
    let check = |ids: &str, parts: &[&str]| {
        refused(&mut run_engine(&engine.path, &["--prompt-ids", ids]), 2, parts);
    };
    check("1,64", &["64", "vocabulary", "0 to 63"]);
    check("4294967295", &["4294967295", "0 to 63"]);
    check("4294967296", &["4294967296", "not a token id"]);
    assert_eq!(output_ids(&json_line(&engine, &["--prompt-ids", "63,0", "--max-new-tokens", "1"])).len(), 1);

    // A tokenizer whose ids the model does not have.
    let model = parity_model("mistral-gqa");
    for name in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(crate::common::fixture("tokenizer").join(name), model.path().join(name)).unwrap();
    }
    let engine = crate::common::build(model.path(), 64);
    refused(&mut run_engine(&engine.path, &["--prompt", "zebra"]), 2, &["vocabulary", "0 to 63"]);
}
