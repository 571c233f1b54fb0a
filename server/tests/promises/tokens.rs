//! Text to tokens and back.

use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use serde_json::{Value as Json, json};

use crate::common::client::{Client, chat, complete, get, post, request};
use crate::common::engine::{demo_model, shared};
use crate::common::in_process::InProcess;
use crate::common::scripted;

fn tokenize(body: &Json) -> Json {
    post(shared().address, "/tokenize", body).ok()
}

#[test]
fn a_text_is_tokenized_as_it_is_for_a_completion() {
    let address = shared().address;
    for text in ["The sun is a star", "", " two  blanks", "é\u{1F980}"] {
        let answer = tokenize(&json!({ "prompt": text }));
        let body = json!({ "prompt": text, "max_tokens": 0, "return_token_ids": true });
        let choice = complete(address, &body).ok()["choices"][0].clone();
        assert_eq!(answer["tokens"], choice["prompt_token_ids"], "{text}");
        assert_eq!(answer["count"], answer["tokens"].as_array().unwrap().len());
        assert_eq!((&answer["max_model_len"], &answer["token_strs"]), (&json!(1024), &Json::Null));
    }
    let bare = tokenize(&json!({ "prompt": "The sun", "add_special_tokens": false, "return_token_strs": true }));
    let tokenizer = scripted::tokenizer();
    let ids = tokenizer.encode("The sun", false).unwrap();
    let spelled: Vec<_> = ids.iter().map(|&id| tokenizer.id_to_token(id).unwrap()).collect();
    assert_eq!((&bare["tokens"], &bare["token_strs"]), (&json!(ids), &json!(spelled)));
    assert_eq!(post(address, "/v1/tokenize", &json!({ "prompt": "The sun" })).ok()["tokens"][0], json!(1), "its BOS");
}

#[test]
fn what_is_tokenized_comes_back_whatever_it_is() {
    let mut client = Client::new(shared().address);
    let mut runner = TestRunner::new(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(128) });
    let client = std::cell::RefCell::new(&mut client);
    let ask = |path: &str, body: Json| client.borrow_mut().request("POST", path, &[], &body.to_string()).ok();
    // Any characters; and pieces that tokenizers treat in their own ways.
    let piece =
        prop::sample::select(vec!["<s>", "</s>", "[INST]", " ", "\n", "\u{feff}", "e\u{301}", "\u{1F980}", "The"]);
    let text = prop_oneof![any::<String>(), prop::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())];
    let law = |text: String| {
        let tokens = ask("/tokenize", json!({ "prompt": text, "add_special_tokens": false }))["tokens"].clone();
        prop_assert_eq!(&ask("/detokenize", json!({ "tokens": tokens }))["prompt"], &json!(text));
        Ok(())
    };
    runner.run(&text, law).unwrap();
}

#[test]
fn special_tokens_are_shown_unless_they_are_skipped() {
    let address = shared().address;
    let tokens = tokenize(&json!({ "prompt": "The sun" }))["tokens"].clone();
    assert_eq!(post(address, "/detokenize", &json!({ "tokens": tokens })).ok()["prompt"], "<s>The sun");
    let skipped = post(address, "/v1/detokenize", &json!({ "tokens": tokens, "skip_special_tokens": true }));
    assert_eq!(skipped.ok(), json!({ "prompt": "The sun" }));
    assert_eq!(post(address, "/detokenize", &json!({ "tokens": [] })).ok()["prompt"], "");
}

#[test]
fn a_conversation_is_tokenized_as_it_is_for_an_answer() {
    let address = shared().address;
    // What it says of special tokens stays text.
    let messages = json!([{ "role": "user", "content": "hi </s>" }]);
    let body = json!({ "messages": messages, "max_tokens": 1, "return_token_ids": true, "model": "tgi" });
    let ids = chat(address, &body).ok()["prompt_token_ids"].clone();
    assert_eq!(tokenize(&json!({ "messages": messages }))["tokens"], ids);
    for path in ["/apply-template", "/v1/apply-template"] {
        let applied = post(address, path, &body).ok();
        assert_eq!(applied["tokens"], ids);
        let prompt = applied["prompt"].as_str().unwrap();
        assert!(prompt.contains("[INST]") && prompt.contains("hi </s>"), "{prompt}");
    }
    let tgi = post(address, "/chat_tokenize", &body).ok();
    let placed = tgi["tokenize_response"].as_array().unwrap();
    assert_eq!(json!(placed.iter().map(|token| token["id"].clone()).collect::<Vec<_>>()), ids);
    let text = tgi["templated_text"].as_str().unwrap();
    for token in placed {
        let at = |name: &str| usize::try_from(token[name].as_u64().unwrap()).unwrap();
        assert_eq!(token["text"], text[at("start")..at("stop")], "{token}");
    }
}

#[test]
fn inputs_are_tokenized_as_tgi_does() {
    let answer = tokenize(&json!({ "inputs": "The sun" }));
    let tokens = answer.as_array().unwrap();
    assert_eq!(tokens[0], json!({ "id": 1, "text": "", "start": 0, "stop": 0 }));
    let texts: String = tokens.iter().map(|token| token["text"].as_str().unwrap()).collect();
    assert_eq!(texts, "The sun");
    assert_eq!(tokens.last().unwrap()["stop"], 7);
}

#[test]
fn the_tokenizer_says_what_it_is() {
    for path in ["/tokenizer_info", "/v1/tokenizer_info"] {
        let info = get(shared().address, path).ok();
        let config: Json =
            serde_json::from_slice(&std::fs::read(demo_model().join("tokenizer_config.json")).unwrap()).unwrap();
        for name in ["bos_token", "eos_token", "tokenizer_class", "chat_template"] {
            assert_eq!(info[name], config[name], "{name}");
        }
        assert_eq!((&info["vocab_size"], &info["model_max_length"]), (&json!(scripted::VOCAB_SIZE), &json!(1024)));
    }
}

#[test]
fn what_cannot_be_tokenized_is_said_by_its_field() {
    let address = shared().address;
    let refused = |path: &str, body: Json, code: &str, param: &str| {
        post(address, path, &body).error(400, code, Some(param));
    };
    refused("/tokenize", json!({}), "missing_field", "prompt");
    refused("/tokenize", json!({ "prompt": "a", "inputs": "a" }), "invalid_value", "inputs");
    refused("/tokenize", json!({ "prompt": ["a"] }), "invalid_value", "prompt");
    refused("/tokenize", json!({ "prompt": "a", "return_token_strs": 1 }), "invalid_value", "return_token_strs");
    refused("/tokenize", json!({ "messages": [] }), "missing_field", "messages");
    refused("/tokenize", json!({ "messages": [{ "role": "user" }] }), "missing_field", "messages[0].content");
    refused("/tokenize", json!({ "prompt": "a", "tools": [{}] }), "unsupported_parameter", "tools");
    refused("/detokenize", json!({}), "missing_field", "tokens");
    refused("/detokenize", json!({ "tokens": [1, 2560] }), "invalid_value", "tokens[1]");
    refused("/detokenize", json!({ "tokens": [-1] }), "invalid_value", "tokens[0]");
    refused("/apply-template", json!({ "messages": "hi" }), "invalid_value", "messages");
    let assistants = json!({ "messages": [{ "role": "assistant", "content": "a" }] });
    refused("/apply-template", assistants, "template_refused", "messages");
    post(address, "/tokenize", &json!({ "prompt": "a", "model": "none" })).error(404, "model_not_found", Some("model"));
    let reply = post(address, "/tokenize", &json!({ "prompt": "a", "frobnicate": 1 }));
    assert_eq!((reply.status, &*reply.headers["x-ignored-fields"]), (200, "frobnicate"));
    request(address, "GET", "/tokenize", &[], "").error(405, "method_not_allowed", None);
    request(address, "POST", "/tokenizer_info", &[], "{}").error(405, "method_not_allowed", None);
    let loading = InProcess::loading(|_| {});
    post(loading.address, "/tokenize", &json!({ "prompt": "a" })).error(503, "loading", None);
}
