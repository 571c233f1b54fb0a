//! Where a completion ends: stop strings and end ids.

use serde_json::{Value, json};
use trtllm::text::tokenizer::Tokenizer;

use crate::common::{self, Engine};
use crate::support::{
    build_refused, demo, file, json_line, json_lines, output_ids, parity_model, printed, refused, run_engine,
    text_model, write_json,
};

/// A greedy completion without an end, its text and the length of the text of each prefix of its ids.
struct Whole {
    engine: Engine,
    ids: Vec<u32>,
    text: String,
    ends: Vec<usize>,
}

const PROMPT: [&str; 6] = ["--prompt", "The planet Mars", "--max-new-tokens", "48", "--ignore-eos", "--logprobs"];

impl Whole {
    fn new() -> Self {
        let engine = demo();
        let line = json_line(&engine, &PROMPT);
        let (ids, text) = (output_ids(&line), line["text"].as_str().unwrap().to_owned());
        let tokenizer = Tokenizer::open(&engine.path).unwrap();
        let ends = (1..=ids.len()).map(|end| tokenizer.decode(&ids[..end], true).unwrap().len()).collect();
        assert!(text.is_ascii(), "these tests cut the text at bytes: {text}");
        Self { engine, ids, text, ends }
    }

    /// What has to come when `stop` ends the text: the text before it, and the ids up to the one that completes it.
    fn check(&self, stops: &[&str]) {
        let found = stops.iter().filter_map(|stop| Some((self.text.find(stop)? + stop.len(), stop.len())));
        // What is complete first wins; of several that end there, the longest.
        let (end, length) = found.min_by_key(|&(end, length)| (end, usize::MAX - length)).unwrap();
        let text = &self.text[..end - length];
        let count = self.ends.iter().position(|&at| at >= end).unwrap() + 1;

        let stops: Vec<&str> = stops.iter().flat_map(|stop| ["--stop", stop]).collect();
        let line = json_line(&self.engine, &[&PROMPT[..], &stops].concat());
        assert_eq!(line["text"], text, "{stops:?}");
        assert_eq!(line["finish_reason"], "stop_words", "{stops:?}");
        assert_eq!(output_ids(&line), self.ids[..count], "{stops:?}");
        assert_eq!(line["logprobs"].as_array().unwrap().len(), count, "{stops:?}");
        let end = if text.ends_with('\n') { "" } else { "\n" };
        assert_eq!(printed(&self.engine, &[&PROMPT[..5], &stops].concat()), format!("{text}{end}"), "{stops:?}");
    }
}

#[test]
fn stop_strings_end_the_text_wherever_tokens_begin_and_end() {
    let whole = Whole::new();
    for token in [4, 11, 23, 40] {
        // From the middle of one token into the next, and beyond it.
        let boundary = whole.ends[token];
        whole.check(&[&whole.text[boundary - 2..boundary + 2]]);
        whole.check(&[&whole.text[boundary - 2..whole.ends[token + 2] + 1]]);
        whole.check(&[&whole.text[boundary..boundary + 1]]);
    }
    // The very first character, and the very last.
    whole.check(&[&whole.text[..1]]);
    whole.check(&[&whole.text[whole.text.len() - 7..]]);
    whole.check(&[&whole.text]);
}

#[test]
fn of_several_stop_strings_the_first_to_be_complete_ends_the_text() {
    let whole = Whole::new();
    let at = |token: usize, length: usize| &whole.text[whole.ends[token]..whole.ends[token] + length];
    whole.check(&[at(30, 6), at(12, 6), at(20, 6)]);
    whole.check(&["no such text", at(12, 6)]);
    whole.check(&[at(12, 6), &at(12, 6)[3..], &at(12, 6)[1..]]);
    // One that begins earlier but is not complete, and never will be.
    let begun = format!("{}§", at(8, 20));
    whole.check(&[&begun, at(10, 5)]);
    let many: Vec<String> = (0..2000).map(|number| format!("stop number {number}")).collect();
    let mut many: Vec<&str> = many.iter().map(String::as_str).collect();
    many.push(at(12, 6));
    whole.check(&many);
}

#[test]
fn text_held_back_for_a_stop_string_that_does_not_come_is_not_lost() {
    let whole = Whole::new();
    let almost = format!("{}§", &whole.text[whole.text.len() - 9..]);
    let line = json_line(&whole.engine, &[&PROMPT[..], &["--stop", &almost, "--stop", &"x".repeat(100_000)]].concat());
    assert_eq!((&line["text"], &line["finish_reason"]), (&json!(whole.text), &json!("length")));
    assert_eq!(output_ids(&line), whole.ids);
}

#[test]
fn each_prompt_has_its_own_stop_strings() {
    let whole = Whole::new();
    let stop = &whole.text[whole.ends[9] - 1..whole.ends[9] + 2];
    let lines = [
        json!({"prompt": PROMPT[1], "stop": stop}),
        json!({"prompt": PROMPT[1], "stop": ["§", stop]}),
        json!({"prompt": PROMPT[1]}),
        json!({"prompt": PROMPT[1], "stop": "§"}),
    ];
    let (_dir, path) = file("prompts", lines.map(|line| line.to_string()).join("\n"));
    let arguments = ["--prompts", path.to_str().unwrap(), "--max-new-tokens", "48", "--ignore-eos"];
    let cut = &whole.text[..whole.text.find(stop).unwrap()];
    let texts = |lines: Vec<Value>| lines.into_iter().map(|line| line["text"].as_str().unwrap().to_owned());
    let found: Vec<String> = texts(json_lines(&whole.engine, &arguments)).collect();
    assert_eq!(found, [cut, cut, &whole.text, &whole.text]);
    // The command line's is the default.
    let found: Vec<String> =
        texts(json_lines(&whole.engine, &[&arguments[..], &["--stop", &cut[..1]]].concat())).collect();
    assert_eq!(found, [cut, cut, "", &whole.text]);
}

#[test]
fn stop_strings_need_a_tokenizer() {
    let engine = crate::support::parity("mistral-gqa");
    refused(&mut run_engine(&engine.path, &["--prompt-ids", "1", "--stop", "x"]), 2, &["--stop", "tokenizer"]);
    refused(&mut run_engine(&demo().path, &["--prompt", "a", "--stop", ""]), 2, &["stop string number 1 is empty"]);
}

const FIXTURE: &str = "mistral-gqa";
const IDS: [&str; 4] = ["--prompt-ids", "1,2,3", "--max-new-tokens", "16"];

/// What [`FIXTURE`] says to [`IDS`] when nothing ends it.
fn without_end() -> Vec<u32> {
    let line = json_line(&crate::support::parity(FIXTURE), &[&IDS[..], &["--ignore-eos"]].concat());
    assert_eq!(line["finish_reason"], "length");
    output_ids(&line)
}

/// An engine whose `generation_config.json` has this `eos_token_id`.
fn with_end_ids(end_ids: &Value) -> Engine {
    let model = parity_model(FIXTURE);
    write_json(&model.path().join("generation_config.json"), &json!({"eos_token_id": end_ids}));
    common::build(model.path(), 64)
}

#[test]
fn end_ids_of_the_generation_config_end_a_sequence() {
    let whole = without_end();
    let end = whole[5];
    let first = whole.iter().position(|&id| id == end).unwrap();
    let unused = (0..64).find(|id| !whole.contains(id)).unwrap();
    for end_ids in [json!(end), json!([end]), json!([unused, end])] {
        let engine = with_end_ids(&end_ids);
        let line = json_line(&engine, &[&IDS[..], &["--logprobs"]].concat());
        assert_eq!(line["finish_reason"], "end_id");
        assert_eq!(output_ids(&line), whole[..=first], "the end id is part of the output");
        assert_eq!(line["logprobs"].as_array().unwrap().len(), first + 1);

        let line = json_line(&engine, &[&IDS[..], &["--ignore-eos"]].concat());
        assert_eq!((output_ids(&line), &line["finish_reason"]), (whole.clone(), &json!("length")));
    }
    // Ids that the model cannot generate end nothing.
    for end_ids in [json!(unused), json!([]), json!(null), json!([64, -1, 4_294_967_296u64])] {
        assert_eq!(output_ids(&json_line(&with_end_ids(&end_ids), &IDS)), whole, "{end_ids}");
    }
}

#[test]
fn the_end_id_as_the_last_possible_token_is_an_end_id() {
    let whole = without_end();
    let engine = with_end_ids(&json!(whole[0]));
    let line = json_line(&engine, &["--prompt-ids", "1,2,3", "--max-new-tokens", "1"]);
    assert_eq!((output_ids(&line), &line["finish_reason"]), (whole[..1].to_vec(), &json!("end_id")));
}

#[test]
fn without_a_generation_config_end_ids_of_the_models_config_end_a_sequence() {
    let whole = without_end();
    let model = parity_model(FIXTURE);
    let path = model.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    config["eos_token_id"] = json!(whole[0]);
    write_json(&path, &config);
    let line = json_line(&common::build(model.path(), 64), &IDS);
    assert_eq!((output_ids(&line), &line["finish_reason"]), (whole[..1].to_vec(), &json!("end_id")));
}

#[test]
fn without_either_the_tokenizers_end_token_ends_a_sequence() {
    let model = text_model("tokenizer");
    let arguments = ["--prompt", "hello", "--max-new-tokens", "16", "--ignore-eos"];
    let whole = output_ids(&json_line(&common::build(model.path(), 64), &arguments));
    let tokenizer = Tokenizer::open(model.path()).unwrap();
    let end = whole[3];
    let config = json!({"eos_token": tokenizer.id_to_token(end).unwrap()});
    write_json(&model.path().join("tokenizer_config.json"), &config);
    let engine = common::build(model.path(), 64);
    let line = json_line(&engine, &arguments[..4]);
    let first = whole.iter().position(|&id| id == end).unwrap();
    assert_eq!((output_ids(&line), &line["finish_reason"]), (whole[..=first].to_vec(), &json!("end_id")));
    assert_eq!(output_ids(&json_line(&engine, &arguments)), whole);
}

#[test]
fn a_wrong_end_id_names_the_file_and_the_field() {
    for wrong in [json!("</s>"), json!([2, 1.5]), json!({"id": 2}), json!(true)] {
        let model = parity_model(FIXTURE);
        write_json(&model.path().join("generation_config.json"), &json!({"eos_token_id": wrong}));
        build_refused(model.path(), &["generation_config.json", "eos_token_id"]);
    }
}
