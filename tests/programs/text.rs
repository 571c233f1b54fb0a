//! Text in, text out: it is that of the ids, whole, and it comes as it is generated.

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use trtllm::text::tokenizer::Tokenizer;

use crate::common::{self, Engine};
use crate::support::{
    demo, json_line, output_ids, printed, refused, run_engine, succeeded, text_engine, text_model, write_json,
};

const PROMPTS: [&str; 4] =
    ["Complete the paragraph: our solar system is", "The", "héllo 世界 🚀 the", " -5 degrees\n\tand"];

/// The three kinds of text: real, byte-level noise, and byte-fallback noise.
fn engines() -> [Engine; 3] {
    [demo(), text_engine("tokenizer"), text_engine("tokenizer/byte-fallback")]
}

#[test]
fn the_text_is_that_of_the_ids_streamed_or_not() {
    for (engine, is_byte_level) in engines().into_iter().zip([true, true, false]) {
        let tokenizer = Tokenizer::open(&engine.path).unwrap();
        for prompt in PROMPTS {
            for more in [&["--ignore-eos"][..], &["--ignore-eos", "--temperature", "1.5", "--seed", "9"]] {
                let arguments = [&["--prompt", prompt, "--max-new-tokens", "60"], more].concat();
                let line = json_line(&engine, &arguments);
                let text = line["text"].as_str().unwrap();
                let ids = output_ids(&line);
                assert_eq!(ids.len(), 60);

                // The blank before the first word is part of the text, so prompt and text together are the whole.
                let prompt_ids = tokenizer.encode(prompt, true).unwrap();
                assert_eq!(line["prompt_tokens"], prompt_ids.len());
                let whole = tokenizer.decode(&[&prompt_ids[..], &ids].concat(), true).unwrap();
                assert_eq!(tokenizer.decode(&prompt_ids, true).unwrap() + text, whole);
                if is_byte_level {
                    assert_eq!(text, tokenizer.decode(&ids, true).unwrap());
                }

                let end = if text.ends_with('\n') { "" } else { "\n" };
                assert_eq!(printed(&engine, &arguments), format!("{text}{end}"));
            }
        }
    }
}

#[test]
fn special_tokens_are_not_text() {
    let engine = text_engine("tokenizer");
    let tokenizer = Tokenizer::open(&engine.path).unwrap();
    // As good as uniform draws.
    let settings = ["--max-new-tokens", "120", "--temperature", "1000", "--ignore-eos"];
    let line = json_line(&engine, &[&["--prompt", "a"], &settings[..]].concat());
    let specials = output_ids(&line).into_iter().filter(|&id| tokenizer.is_special(id)).count();
    assert!(specials > 0, "nothing to see here: choose another seed");
    let text = line["text"].as_str().unwrap();
    assert!(!text.contains("<s>") && !text.contains("</s>") && !text.contains("[INST]"), "{text}");
}

#[test]
fn text_comes_token_by_token_in_whole_characters() {
    let engine = text_engine("tokenizer");
    let arguments = ["--prompt", "世界 🚀 é", "--max-new-tokens", "110", "--ignore-eos", "--repetition-penalty", "1.5"];
    let expected = json_line(&engine, &arguments);
    // A socket of datagrams keeps apart what was written apart.
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    ours.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let mut command = run_engine(&engine.path, &arguments);
    let mut child = command.stdin(Stdio::null()).stdout(OwnedFd::from(theirs)).stderr(Stdio::null()).spawn().unwrap();
    let (mut pieces, mut buffer, mut ended) = (Vec::new(), vec![0; 1 << 16], None);
    loop {
        match ours.recv(&mut buffer) {
            Ok(read) => pieces.push(String::from_utf8(buffer[..read].to_vec()).expect("a character was cut")),
            Err(_) if ended.is_some() => break,
            Err(_) => ended = child.try_wait().unwrap(),
        }
    }
    assert_eq!(ended.unwrap().code(), Some(0));
    let text = expected["text"].as_str().unwrap();
    assert_eq!(pieces.concat().trim_end_matches('\n'), text.trim_end_matches('\n'));
    // Tokens in the middle of a character bring no text of their own.
    assert!(pieces.len() > 55, "{} pieces for 110 tokens", pieces.len());
}

#[test]
fn the_first_text_does_not_wait_for_the_last() {
    let engine = demo();
    let mut command = run_engine(&engine.path, &["--prompt", "The planet", "--max-new-tokens", "1000", "--ignore-eos"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut first = [0; 64];
    let read = stdout.read(&mut first).unwrap();
    assert!(read > 0);
    assert!(child.try_wait().unwrap().is_none(), "all of the text was generated before any was printed");
    let mut rest = Vec::new();
    stdout.read_to_end(&mut rest).unwrap();
    assert!(rest.len() > 1000);
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn talk_goes_to_standard_error_and_quiet_ends_it() {
    let engine = demo();
    let arguments = ["--prompt", "Mars", "--max-new-tokens", "5", "--format", "json"];
    let talking = succeeded(&mut run_engine(&engine.path, &arguments));
    assert!(talking.stderr.contains("MistralForCausalLM") && talking.stderr.contains("KV cache"), "{}", talking.stderr);
    let quiet = succeeded(run_engine(&engine.path, &arguments).arg("--quiet"));
    assert_eq!((quiet.stderr.as_str(), quiet.stdout), ("", talking.stdout));
}

/// The tokenizers library panics where a regex gives up; that is an error, and the error is all that is said.
#[test]
fn a_regex_of_the_tokenizer_that_gives_up_is_named_and_nothing_else_is_printed() {
    let model = text_model("tokenizer");
    let path = model.path().join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    tokenizer["pre_tokenizer"] = json!({
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        ],
    });
    write_json(&path, &tokenizer);
    let engine = common::build(model.path(), 64);
    let prompt = format!("{}!", "a".repeat(42));
    let mut command = run_engine(&engine.path, &["--quiet", "--prompt", &prompt]);
    refused(command.env("RUST_BACKTRACE", "1"), 2, &["a regex of tokenizer.json gave up on it"]);
    let said = common::run(&mut command).stderr;
    assert_eq!(said.lines().count(), 1, "{said}");
    // A text that it can split is split.
    succeeded(&mut run_engine(&engine.path, &["--prompt", "aaa", "--max-new-tokens", "1"]));
}
