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

/// The demo model, made to write a token over and over: `[/INST]` is 4, `</s>` 2.
fn repeating(engine: &Engine, token: u32, arguments: &[&str]) -> Value {
    let bias = format!("{token}=1000");
    let fixed = ["--prompt", "Jupiter is", "--max-new-tokens", "6", "--ignore-eos", "--logit-bias", &bias];
    json_line(engine, &[&fixed[..], arguments].concat())
}

#[test]
fn a_stop_text_that_is_a_special_token_stops_by_its_id() {
    let engine = demo();
    for (token, stop) in [(4, "[/INST]"), (2, "</s>")] {
        let line = repeating(&engine, token, &[]);
        assert_eq!((&line["finish_reason"], &line["text"]), (&json!("length"), &json!("")));
        let line = repeating(&engine, token, &["--stop", stop]);
        assert_eq!((&line["finish_reason"], &line["stop_reason"]), (&json!("stop_words"), &json!(stop)));
        assert_eq!((&line["output_ids"], &line["text"]), (&json!([token]), &json!("")));
        let line = repeating(&engine, token, &["--stop", stop, "--include-stop-str-in-output"]);
        assert_eq!((&line["output_ids"], &line["text"]), (&json!([token]), &json!(stop)));
    }
    // Two in a row are one stop text.
    let line = repeating(&engine, 4, &["--stop", "[/INST][/INST]"]);
    assert_eq!((&line["output_ids"], &line["stop_reason"]), (&json!([4, 4]), &json!("[/INST][/INST]")));
}

#[test]
fn special_tokens_are_shown_to_those_who_ask() {
    let engine = demo();
    let line = repeating(&engine, 4, &["--skip-special-tokens", "false"]);
    assert_eq!(line["text"], "[/INST]".repeat(6));
    let line = repeating(&engine, 4, &["--skip-special-tokens", "false", "--stop", "INST][/IN"]);
    assert_eq!((&line["text"], &line["output_ids"]), (&json!("[/"), &json!([4, 4])));
    let arguments = ["--prompt", "a", "--max-new-tokens", "2", "--ignore-eos", "--logit-bias", "4=1000"];
    let streamed = printed(&engine, &[&arguments[..], &["--skip-special-tokens", "false"]].concat());
    assert_eq!(streamed, "[/INST][/INST]\n");
}

#[test]
fn a_stop_text_stays_where_it_is_asked_for() {
    let whole = Whole::new();
    let stop = &whole.text[whole.ends[11] - 2..whole.ends[11] + 2];
    let cut = json_line(&whole.engine, &[&PROMPT[..], &["--stop", stop]].concat());
    let kept = json_line(&whole.engine, &[&PROMPT[..], &["--stop", stop, "--include-stop-str-in-output"]].concat());
    assert_eq!(kept["text"], format!("{}{stop}", cut["text"].as_str().unwrap()));
    assert_eq!((&kept["output_ids"], &kept["stop_reason"]), (&cut["output_ids"], &json!(stop)));
    let streamed = printed(&whole.engine, &[&PROMPT[..5], &["--stop", stop, "--include-stop-str-in-output"]].concat());
    assert_eq!(streamed.trim_end_matches('\n'), kept["text"].as_str().unwrap());
}

#[test]
fn end_ids_of_a_request_replace_the_models_and_are_named() {
    let engine = demo();
    let line = repeating(&engine, 4, &["--end-id", "9", "--end-id", "4"]);
    assert_eq!((&line["output_ids"], &line["finish_reason"]), (&json!([4]), &json!("end_id")));
    assert_eq!(line["stop_reason"], 4);
    assert_eq!(repeating(&engine, 4, &[])["stop_reason"], Value::Null);
    let lines = r#"{"prompt": "a", "end_id": 4}
        {"prompt": "a", "end_id": [9, 4]}
        {"prompt": "a"}"#;
    let (_dir, path) = file("prompts.jsonl", lines.replace("\n        ", "\n"));
    let arguments = ["--prompts", path.to_str().unwrap(), "--max-new-tokens", "3", "--logit-bias", "4=1000"];
    let ids: Vec<_> = json_lines(&engine, &arguments).iter().map(output_ids).collect();
    assert_eq!(ids, [vec![4], vec![4], vec![4; 3]]);
    refused(&mut run_engine(&engine.path, &["--prompt", "a", "--end-id", "999999"]), 2, &["end id 999999"]);
}

#[test]
fn only_allowed_tokens_are_generated_and_a_guide_chooses_among_them() {
    let engine = demo();
    let tokenizer = Tokenizer::open(&engine.path).unwrap();
    let id = |text: &str| tokenizer.token_to_id(text).unwrap();
    let [one, two, end] = [id("1"), id("2"), id("</s>")].map(|id| id.to_string());
    let prompt = ["--prompt", "Mars", "--max-new-tokens", "5"];
    let run = |allowed: &str, more: &[&str]| {
        json_line(&engine, &[&prompt[..], &["--allowed-token-ids", allowed], more].concat())
    };
    let digits = format!("{one},{two}");
    let line = run(&digits, &[]);
    assert!(line["text"].as_str().unwrap().chars().all(|digit| "12".contains(digit)), "{line}");
    assert_eq!(output_ids(&line).len(), 5);
    // The guide ends the output: with an end id where one is allowed, without one where none is.
    let line = run(&digits, &["--regex", "[1-9]{3}"]);
    assert_eq!((output_ids(&line).len(), &line["finish_reason"]), (3, &json!("end_id")));
    let line = run(&format!("{digits},{end}"), &["--regex", "[1-9]{3}"]);
    assert_eq!((output_ids(&line).len(), &line["finish_reason"]), (4, &json!("end_id")));
    let mut command =
        run_engine(&engine.path, &[&prompt[..], &["--allowed-token-ids", &digits, "--regex", "[3-9]+"]].concat());
    refused(&mut command, 1, &["no token of allowed_token_ids goes on as the guide demands"]);
    refused(
        &mut run_engine(&engine.path, &["--prompt", "a", "--allowed-token-ids", "999999"]),
        2,
        &["allowed token 999999"],
    );
}

#[test]
fn no_new_tokens_are_an_output_too() {
    let engine = demo();
    let check = |arguments: &[&str]| {
        let line = json_line(&engine, &[&["--prompt", "Mars is"], arguments].concat());
        assert_eq!((&line["output_ids"], &line["text"]), (&json!([]), &json!("")), "{line}");
        assert_eq!((&line["finish_reason"], &line["stop_reason"]), (&json!("length"), &Value::Null));
        line
    };
    check(&["--max-new-tokens", "0"]);
    check(&["--max-new-tokens", "0", "--json"]);
    let none = check(&["--max-new-tokens", "0", "--prompt-logprobs", "--logprobs"]);
    let one = json_line(&engine, &["--prompt", "Mars is", "--max-new-tokens", "1", "--prompt-logprobs"]);
    assert_eq!(none["prompt_logprobs"], one["prompt_logprobs"]);
    let (_dir, path) = file("prompts.jsonl", r#"{"prompt": "a", "max_new_tokens": 0, "n": 2, "temperature": 1}"#);
    let lines = json_lines(&engine, &["--prompts", path.to_str().unwrap()]);
    assert_eq!(lines.iter().map(output_ids).collect::<Vec<_>>(), [[0; 0], [0; 0]]);
}

#[test]
fn what_a_user_may_not_expect_is_said_once() {
    let model = text_model("tokenizer");
    let config = json!({"do_sample": true, "temperature": 0.7, "top_p": 0.9, "eos_token_id": 2});
    write_json(&model.path().join("generation_config.json"), &config);
    let engine = common::build(model.path(), 512);
    let said = |engine: &Engine, arguments: &[&str]| {
        let output = common::run(&mut run_engine(&engine.path, &[&["--prompt", "a"], arguments].concat()));
        assert_eq!(output.code, 0, "{}", output.stderr);
        output.stderr
    };
    let count = |said: &str, part: &str| said.matches(part).count();
    let suggestion = "generation_config.json suggests --temperature 0.7 --top-p 0.9";
    let two = said(&engine, &["--prompt", "b", "--n", "2", "--max-new-tokens", "3"]);
    assert_eq!((count(&two, suggestion), count(&two, "will be the same")), (1, 1), "{two}");
    assert_eq!(count(&two, "the default"), 0, "{two}");
    for decided in [["--temperature", "0"], ["--top-k", "5"]] {
        let decided = said(&engine, &[&decided[..], &["--max-new-tokens", "3"]].concat());
        assert_eq!(count(&decided, "suggests"), 0, "{decided}");
    }
    assert_eq!(said(&engine, &["--quiet", "--n", "2", "--max-new-tokens", "3"]), "");
    let unreachable = said(&engine, &["--max-new-tokens", "2", "--stop", &"x".repeat(1000)]);
    assert!(unreachable.contains("can never reach the stop text"), "{unreachable}");

    let demo = demo();
    let default = said(&demo, &["--prompt", "b", "--ignore-eos"]);
    assert_eq!(count(&default, "ended after 128 tokens, which is the default"), 1, "{default}");
    let chosen = said(&demo, &["--ignore-eos", "--max-new-tokens", "128"]);
    assert_eq!(count(&chosen, "the default"), 0, "{chosen}");
}

#[test]
fn the_tokenizers_end_token_ends_too_where_the_generation_config_names_another() {
    let model = text_model("tokenizer");
    let path = model.path().join("tokenizer_config.json");
    let end_token = |token: &str| json!({"add_bos_token": true, "bos_token": "<s>", "eos_token": token});
    write_json(&path, &end_token("[/INST]"));
    write_json(&model.path().join("generation_config.json"), &json!({"eos_token_id": 2}));
    let bias = |engine: &Engine, token: u32| {
        let bias = format!("{token}=1000");
        let arguments = ["--prompt", "a", "--max-new-tokens", "4", "--logit-bias", &bias];
        output_ids(&json_line(engine, &arguments))
    };
    let engine = common::build(model.path(), 64);
    let tokenizer = Tokenizer::open(&engine.path).unwrap();
    let chat = tokenizer.token_to_id("[/INST]").unwrap();
    assert_eq!((bias(&engine, chat), bias(&engine, 2)), (vec![chat], vec![2]));
    // One that the tokenizer does not have is said, where there is no other.
    write_json(&path, &end_token("<|eot|>"));
    std::fs::remove_file(model.path().join("generation_config.json")).unwrap();
    let engine = common::build(model.path(), 64);
    let output = common::run(&mut run_engine(&engine.path, &["--prompt", "a", "--max-new-tokens", "4"]));
    assert!(output.stderr.contains("no end token") && output.stderr.contains("--end-id"), "{}", output.stderr);
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
