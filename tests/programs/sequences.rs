//! Several sequences for one prompt: draws, and beams.

use serde_json::{Value, json};

use crate::common::Engine;
use crate::support::{
    comma_separated, demo, file, json_line, json_lines, numbers, output_ids, parity, printed, refused, run_engine,
    succeeded,
};

/// The lines of one prompt's sequences, by number.
fn sequences(engine: &Engine, arguments: &[&str]) -> Vec<Value> {
    let mut lines = json_lines(engine, arguments);
    lines.sort_by_key(|line| line["sequence_index"].as_u64().unwrap());
    for (number, line) in lines.iter().enumerate() {
        assert_eq!((&line["index"], &line["sequence_index"]), (&json!(0), &json!(number)));
    }
    lines
}

/// A line as it would be if its sequence were the only one.
fn alone(mut line: Value) -> Value {
    line.as_object_mut().unwrap().shift_remove("sequence_index");
    line
}

const DRAWN: [&str; 8] =
    ["--prompt", "The planet", "--max-new-tokens", "24", "--temperature", "1", "--logprobs", "--prompt-logprobs"];

#[test]
fn sequence_i_is_what_seed_plus_i_draws_alone() {
    let engine = demo();
    let together = sequences(&engine, &[&DRAWN[..], &["--n", "4", "--seed", "7"]].concat());
    assert_eq!(together.len(), 4);
    for (number, line) in together.iter().enumerate() {
        let seed = (7 + number).to_string();
        assert_eq!(alone(line.clone()), json_line(&engine, &[&DRAWN[..], &["--seed", &seed]].concat()));
    }
    assert_ne!(together[0]["output_ids"], together[1]["output_ids"]);
    let keys: Vec<_> = together[0].as_object().unwrap().keys().take(3).collect();
    assert_eq!(keys, ["index", "sequence_index", "prompt_tokens"]);
    assert_eq!(json_line(&engine, &[&DRAWN[..], &["--n", "1"]].concat()).get("sequence_index"), None);

    let by_alias = sequences(&engine, &[&DRAWN[..], &["--num-return-sequences", "4", "--seed", "7"]].concat());
    assert_eq!(by_alias, together);
    let (_dir, path) = file("prompts", json!({"prompt": "The planet", "num_return_sequences": 4}).to_string());
    let by_line = [&["--prompts", path.to_str().unwrap(), "--seed", "7"], &DRAWN[2..]].concat();
    assert_eq!(sequences(&engine, &by_line), together);
}

#[test]
fn text_of_sequences_is_in_order_each_with_a_line() {
    let engine = demo();
    let arguments = ["--max-new-tokens", "12", "--temperature", "1", "--n", "3"];
    let (_dir, path) = file("prompts", "Mars\n{\"prompt\": \"Venus\", \"n\": 1}\nSaturn\n");
    let arguments = [&["--prompts", path.to_str().unwrap()], &arguments[..]].concat();
    let mut lines = json_lines(&engine, &arguments);
    lines.sort_by_key(|line| (line["index"].as_u64(), line.get("sequence_index").and_then(Value::as_u64)));
    let places: Vec<_> = lines.iter().map(|line| (line["index"].as_u64(), line["sequence_index"].as_u64())).collect();
    let expected = [(0, Some(0)), (0, Some(1)), (0, Some(2)), (1, None), (2, Some(0)), (2, Some(1)), (2, Some(2))];
    assert_eq!(places, expected.map(|(index, number)| (Some(index), number)));
    let line = |line: &Value| {
        let text = line["text"].as_str().unwrap();
        if text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") }
    };
    assert_eq!(printed(&engine, &arguments), lines.iter().map(line).collect::<String>());
}

#[test]
fn a_stop_string_ends_one_sequence_and_not_the_others() {
    let engine = demo();
    let arguments = ["--prompt", "The planet", "--max-new-tokens", "40", "--temperature", "1", "--ignore-eos"];
    let stop = ["--stop", "th"];
    let together = sequences(&engine, &[&arguments[..], &stop, &["--n", "6"]].concat());
    for (number, line) in together.iter().enumerate() {
        let seed = number.to_string();
        let expected = json_line(&engine, &[&arguments[..], &stop, &["--seed", &seed]].concat());
        assert_eq!(alone(line.clone()), expected);
    }
    let lengths: std::collections::BTreeSet<_> = together.iter().map(|line| output_ids(line).len()).collect();
    assert!(lengths.len() > 2, "all ended at the same place, which shows nothing: {lengths:?}");
}

#[test]
fn sequences_that_will_be_the_same_are_warned_of() {
    let engine = demo();
    let arguments = ["--prompt", "Mars", "--max-new-tokens", "3", "--n", "2"];
    let output = succeeded(&mut run_engine(&engine.path, &arguments));
    assert!(output.stderr.contains("warning: the 2 sequences of the prompt will be the same"), "{}", output.stderr);
    let lines = sequences(&engine, &arguments);
    assert_eq!(lines[0]["output_ids"], lines[1]["output_ids"]);
    for more in [&["--temperature", "1"][..], &["--beam-width", "2"], &["--top-p", "0.9"]] {
        let output = succeeded(&mut run_engine(&engine.path, &[&arguments[..], more].concat()));
        assert!(!output.stderr.contains("warning"), "{more:?}: {}", output.stderr);
    }
}

#[test]
fn impossible_numbers_of_sequences_are_refused() {
    let engine = parity("mistral-gqa");
    let check = |arguments: &[&str], parts: &[&str]| {
        refused(&mut run_engine(&engine.path, &[&["--prompt-ids", "1"], arguments].concat()), 2, parts);
    };
    check(&["--n", "0"], &["--n must be at least 1"]);
    check(&["--n", "-1"], &["--n", "-1"]);
    check(&["--n", "65537"], &["n must be at most 65536"]);
    check(&["--n", "18446744073709551615"], &["at most 65536"]);
    check(&["--beam-width", "0"], &["--beam-width must be at least 1"]);
    check(&["--beam-width", "2", "--n", "3"], &["n is 3", "beam_width 2"]);
    check(&["--beam-width", "4", "--max-batch-size", "3"], &["beam_width is 4", "max_batch_size"]);
    check(
        &["--beam-width", "2", "--top-logprobs", "1", "--format", "json"],
        &["a beam_width above 1", "top_log_probs"],
    );
    check(&["--beam-width", "2", "--json"], &["a beam_width above 1", "a guide"]);
    check(&["--length-penalty", "nan"], &["--length-penalty must be a finite number, not NaN"]);
    check(&["--early-stopping", "maybe"], &["--early-stopping", "`never`", "maybe"]);
    check(&["--early-stopping", "0.5"], &["--early-stopping", "integer"]);
}

const SEARCHED: [&str; 5] = ["--prompt-ids", "5,6,7", "--ignore-eos", "--logprobs", "--max-new-tokens"];

fn sum(line: &Value) -> f64 {
    numbers(&line["logprobs"]).iter().sum()
}

#[test]
fn a_beam_search_finds_what_log_probabilities_say() {
    let engine = parity("mistral-gqa");
    const WIDTH: usize = 4;
    let best = |prompt: &[u32]| -> Vec<(u32, f64)> {
        let prompt = comma_separated(prompt);
        let arguments = ["--prompt-ids", &prompt, "--max-new-tokens", "1", "--ignore-eos", "--top-logprobs", "4"];
        let line = json_line(&engine, &arguments);
        let entry = |entry: &Value| (entry["id"].as_u64().unwrap() as u32, entry["logprob"].as_f64().unwrap());
        line["top_logprobs"][0].as_array().unwrap().iter().map(entry).collect()
    };
    // Two steps by hand: the best tokens, and after each of them the best.
    let mut expected = Vec::new();
    for (first, log_prob) in best(&[5, 6, 7]) {
        expected.extend(best(&[5, 6, 7, first]).into_iter().map(|(second, more)| (log_prob + more, [first, second])));
    }
    expected.sort_by(|a, b| b.0.total_cmp(&a.0));
    let beams = sequences(&engine, &[&SEARCHED[..], &["2", "--beam-width", "4"]].concat());
    let found: Vec<_> = beams.iter().map(output_ids).collect();
    assert_eq!(found, expected[..WIDTH].iter().map(|(_, ids)| ids.to_vec()).collect::<Vec<_>>());
    for (beam, (log_prob, _)) in beams.iter().zip(&expected) {
        assert!((sum(beam) - log_prob).abs() < 1e-4, "{} and {log_prob}", sum(beam));
    }
}

#[test]
fn beams_are_whole_distinct_and_best_first() {
    let engine = parity("mistral-gqa");
    let beams = sequences(&engine, &[&SEARCHED[..], &["12", "--beam-width", "5"]].concat());
    assert_eq!(beams.len(), 5, "all beams, unless fewer are asked for");
    assert!(beams.iter().all(|beam| output_ids(beam).len() == 12 && beam["finish_reason"] == "length"));
    assert!(beams.windows(2).all(|pair| sum(&pair[0]) >= sum(&pair[1])), "{beams:?}");
    assert!(beams.windows(2).all(|pair| pair[0]["output_ids"] != pair[1]["output_ids"]));
    // Each log-probability is that of its token after those before.
    for beam in &beams {
        let prompt = comma_separated(&[&[5, 6, 7][..], &output_ids(beam)].concat());
        let line = json_line(&engine, &["--prompt-ids", &prompt, "--max-new-tokens", "1", "--prompt-logprobs"]);
        assert_eq!(numbers(&line["prompt_logprobs"])[2..], numbers(&beam["logprobs"])[..]);
    }
    let two = sequences(&engine, &[&SEARCHED[..], &["12", "--beam-width", "5", "--n", "2"]].concat());
    assert_eq!(two, beams[..2]);
    // A width of one is no search.
    let greedy = json_line(&engine, &[&SEARCHED[..], &["12"]].concat());
    assert_eq!(json_line(&engine, &[&SEARCHED[..], &["12", "--beam-width", "1"]].concat()), greedy);
}
