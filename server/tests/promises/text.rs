//! Text on its way out: whole characters, and nothing of a stop string.

use serde_json::{Value as Json, json};

use crate::common::client::complete;
use crate::common::scripted;

/// The texts of a stream's chunks, and its last choice.
fn pieces(events: &[Json]) -> (Vec<String>, Json) {
    let last = events.last().unwrap()["choices"][0].clone();
    let text = |event: &Json| event["choices"][0]["text"].as_str().unwrap().to_owned();
    (events.iter().map(text).filter(|text| !text.is_empty()).collect(), last)
}

#[test]
fn s14_half_a_character_is_never_sent() {
    let said = "a\u{e9}\u{20ac}\u{1F980}b";
    let tokens = scripted::tokenizer().encode(said, false).unwrap().len();
    let server = scripted::start(scripted::saying(said), 4, |_| {});
    let body = json!({ "prompt": [50], "max_tokens": tokens, "stream": true });
    let (pieces, _) = pieces(&complete(server.address, &body).events());
    assert_eq!(pieces.concat(), said);
    assert!(pieces.iter().all(|piece| !piece.contains('\u{fffd}')), "{pieces:?}");
}

#[test]
fn s15_a_sequence_that_ends_inside_a_character_ends_with_one_replacement() {
    let mut ids = scripted::tokenizer().encode("x\u{1F980}", false).unwrap();
    ids.pop();
    let server = scripted::start(scripted::giving(ids.clone()), 4, |_| {});
    for stream in [false, true] {
        let body = json!({ "prompt": [50], "max_tokens": ids.len(), "stream": stream });
        let reply = complete(server.address, &body);
        let text = match stream {
            true => pieces(&reply.events()).0.concat(),
            false => reply.ok()["choices"][0]["text"].as_str().unwrap().to_owned(),
        };
        assert_eq!(text, "x\u{fffd}");
    }
}

#[test]
fn s17_nothing_of_a_stop_string_gets_out() {
    let server = scripted::start(scripted::saying("one two three four five"), 4, |_| {});
    for (stop, kept) in [("three four", "one two "), ("e t", "on"), ("wo", "one t"), ("four", "one two three ")] {
        for stream in [false, true] {
            let body = json!({ "prompt": [50], "max_tokens": 40, "stop": [stop, "never"], "stream": stream });
            let reply = complete(server.address, &body);
            let (text, choice) = match stream {
                true => {
                    let (pieces, last) = pieces(&reply.events());
                    (pieces.concat(), last)
                }
                false => {
                    let choice = reply.ok()["choices"][0].clone();
                    (choice["text"].as_str().unwrap().to_owned(), choice)
                }
            };
            assert_eq!(text, kept, "{stop}");
            assert_eq!((&choice["finish_reason"], &choice["stop_reason"]), (&json!("stop"), &json!(stop)));
        }
    }
}

#[test]
fn s18_what_was_held_back_comes_when_the_match_fails_or_the_sequence_ends() {
    let said = "one two three";
    let tokens = scripted::tokenizer().encode(said, false).unwrap().len();
    let server = scripted::start(scripted::saying(said), 4, |_| {});
    let body = json!({ "prompt": [50], "max_tokens": tokens, "stop": ["two thrX", "three blind"], "stream": true });
    let (pieces, last) = pieces(&complete(server.address, &body).events());
    assert_eq!((pieces.concat().as_str(), &last["finish_reason"]), (said, &json!("length")));
}

#[test]
fn s19_the_text_before_a_stop_string_inside_a_token_is_kept() {
    let ids = scripted::tokenizer().encode(" planets", false).unwrap();
    assert_eq!(ids.len(), 1, "one token");
    let server = scripted::start(scripted::giving(ids), 4, |_| {});
    let body = json!({ "prompt": [50], "max_tokens": 5, "stop": "ane" });
    assert_eq!(complete(server.address, &body).ok()["choices"][0]["text"], " pl");
}
