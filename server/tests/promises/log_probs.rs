//! Log-probabilities.

use serde_json::{Value as Json, json};

use crate::common::client::{chat, complete};
use crate::common::engine::shared;
use crate::common::scripted;

const PROMPT: &str = "Our solar system is";

fn list<'a>(logprobs: &'a Json, name: &str) -> &'a Vec<Json> {
    logprobs[name].as_array().unwrap()
}

/// Checks the four lists of a choice against its text.
fn check(choice: &Json, tokens: usize, offset_of_text: bool) {
    let logprobs = &choice["logprobs"];
    for name in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(list(logprobs, name).len(), tokens, "{name}: {choice}");
    }
    let text: Vec<char> = choice["text"].as_str().unwrap().chars().collect();
    for (index, token) in list(logprobs, "tokens").iter().enumerate() {
        let (token, log_prob) = (token.as_str().unwrap(), &logprobs["token_logprobs"][index]);
        let top = &logprobs["top_logprobs"][index];
        if log_prob.is_null() {
            assert!(index == 0 && top.is_null());
            continue;
        }
        assert_eq!(&top[token], log_prob, "a token's own value is its entry's");
        let offset = logprobs["text_offset"][index].as_u64().unwrap() as usize;
        let is_special = ["<s>", "</s>", "[INST]", "[/INST]", "<pad>"].contains(&token);
        if offset_of_text && !is_special {
            assert!(text[offset..].starts_with(&token.chars().collect::<Vec<_>>()), "{offset}: {token:?} in {choice}");
        }
    }
}

#[test]
fn s01_echo_with_logprobs_covers_prompt_and_output() {
    let address = shared().address;
    for (max_tokens, logprobs) in [(0, 1), (1, 1), (5, 0), (5, 3)] {
        let body = json!({
            "prompt": [PROMPT, [1, 9, 8, 7]], "max_tokens": max_tokens, "temperature": 0, "echo": true, "logprobs": logprobs,
        });
        let answer = complete(address, &body).ok();
        let usage = &answer["usage"];
        let mut covered = 0;
        for choice in answer["choices"].as_array().unwrap() {
            let tokens = list(&choice["logprobs"], "tokens").len();
            check(choice, tokens, true);
            assert!(choice["logprobs"]["token_logprobs"][0].is_null());
            covered += tokens as u64;
            for top in list(&choice["logprobs"], "top_logprobs").iter().skip(1) {
                // The most probable ones, of which the first is the arg-max, and the token itself.
                let count = top.as_object().unwrap().len();
                assert!((logprobs.max(1)..=logprobs + 1).contains(&count), "{top}");
                let values: Vec<f64> = top.as_object().unwrap().values().map(|value| value.as_f64().unwrap()).collect();
                assert!(logprobs == 0 || values.iter().all(|value| *value <= values[0]), "{top}");
            }
        }
        assert_eq!(usage["total_tokens"], covered);
    }
}

#[test]
fn an_end_token_has_an_entry() {
    let address = shared().address;
    // The end token is the only one that may come.
    let body = json!({ "prompt": PROMPT, "max_tokens": 3, "allowed_token_ids": [2], "logprobs": 1, "temperature": 0 });
    let choice = complete(address, &body).ok()["choices"][0].clone();
    assert_eq!((&choice["text"], &choice["finish_reason"]), (&json!(""), &json!("stop")));
    assert_eq!(choice["logprobs"]["tokens"], json!(["</s>"]));
    check(&choice, 1, false);
}

#[test]
fn streams_carry_the_same_entries() {
    let address = shared().address;
    let mut body =
        json!({ "prompt": PROMPT, "max_tokens": 9, "temperature": 1, "seed": 3, "logprobs": 2, "echo": true });
    let whole = complete(address, &body).ok()["choices"][0].clone();
    body["stream"] = json!(true);
    let mut text = String::new();
    let mut streamed = json!({ "tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": [] });
    for event in complete(address, &body).events() {
        let choice = &event["choices"][0];
        text += choice["text"].as_str().unwrap();
        if !choice["logprobs"].is_null() {
            for (name, entries) in streamed.as_object_mut().unwrap() {
                entries.as_array_mut().unwrap().extend(list(&choice["logprobs"], name).iter().cloned());
            }
        }
    }
    assert_eq!((&json!(text), &streamed), (&whole["text"], &whole["logprobs"]));
}

#[test]
fn s03_tokens_that_a_stop_string_cuts_away_have_no_entry() {
    let server = scripted::start(scripted::saying("one two three four"), 4, |_| {});
    for stream in [false, true] {
        let body = json!({ "prompt": [50], "max_tokens": 30, "stop": " three", "logprobs": 0, "stream": stream });
        let reply = complete(server.address, &body);
        let entries = match stream {
            false => list(&reply.ok()["choices"][0]["logprobs"], "tokens").clone(),
            true => reply
                .events()
                .iter()
                .filter(|event| !event["choices"][0]["logprobs"].is_null())
                .flat_map(|event| list(&event["choices"][0]["logprobs"], "tokens").clone())
                .collect(),
        };
        let text: String = entries.iter().map(|token| token.as_str().unwrap()).collect();
        assert_eq!(text, "one two");
    }
}

#[test]
fn s16_bytes_of_all_entries_are_the_bytes_of_the_text() {
    let address = shared().address;
    let body = json!({
        "messages": [{ "role": "user", "content": "Hello" }], "max_tokens": 20, "temperature": 1.9, "seed": 5,
        "logprobs": true, "top_logprobs": 2,
    });
    let choice = chat(address, &body).ok()["choices"][0].clone();
    let mut bytes = Vec::new();
    for entry in choice["logprobs"]["content"].as_array().unwrap() {
        assert!(entry["top_logprobs"].as_array().unwrap().len() == 2 && entry["logprob"].as_f64().unwrap() <= 0.0);
        for byte in entry["bytes"].as_array().into_iter().flatten() {
            bytes.push(byte.as_u64().unwrap() as u8);
        }
    }
    assert_eq!(String::from_utf8_lossy(&bytes), choice["message"]["content"].as_str().unwrap());
    chat(address, &json!({ "messages": [{ "role": "user", "content": "a" }], "top_logprobs": 2 })).error(
        400,
        "invalid_value",
        Some("top_logprobs"),
    );
}

#[test]
fn a_part_of_a_character_is_named_by_its_bytes() {
    let ids = scripted::tokenizer().encode("\u{1F980}", false).unwrap();
    assert!(ids.len() > 1, "the vocabulary has it whole");
    let server = scripted::start(scripted::giving(ids.clone()), 4, |_| {});
    let body = json!({ "prompt": [50], "max_tokens": ids.len(), "logprobs": 0 });
    let choice = complete(server.address, &body).ok()["choices"][0].clone();
    assert_eq!(choice["text"], "\u{1F980}");
    let names: String =
        list(&choice["logprobs"], "tokens").iter().map(|name| name.as_str().unwrap().replace("bytes:", "")).collect();
    assert_eq!(names, r"\xf0\x9f\xa6\x80");
    assert!(list(&choice["logprobs"], "text_offset").iter().all(|offset| *offset == 0), "{choice}");
}

#[test]
fn prompt_logprobs_have_vllms_shape() {
    let address = shared().address;
    let body = json!({ "prompt": PROMPT, "max_tokens": 0, "prompt_logprobs": 2, "return_token_ids": true });
    let choice = complete(address, &body).ok()["choices"][0].clone();
    let (ids, scores) = (choice["prompt_token_ids"].as_array().unwrap(), choice["prompt_logprobs"].as_array().unwrap());
    assert_eq!(ids.len(), scores.len());
    assert!(scores[0].is_null());
    for (id, score) in ids.iter().zip(scores).skip(1) {
        let own = &score[id.to_string()];
        assert!(own["logprob"].as_f64().unwrap() <= 0.0 && own["decoded_token"].is_string(), "{score}");
        assert!((2..=3).contains(&score.as_object().unwrap().len()));
        assert!(score.as_object().unwrap().values().any(|token| token["rank"] == 1));
    }
}

#[test]
fn s04_each_request_has_its_own_log_probabilities_and_others_are_as_without() {
    let address = shared().address;
    let ask = |more: &Json| {
        let mut body =
            json!({ "prompt": PROMPT, "max_tokens": 12, "temperature": 1.2, "seed": 5, "return_token_ids": true });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        complete(address, &body).ok()["choices"][0].clone()
    };
    let asked = [
        json!({}),
        json!({ "logprobs": 0 }),
        json!({ "logprobs": 5 }),
        json!({ "logprobs": 2, "echo": true }),
        json!({ "prompt_logprobs": 3 }),
    ];
    let alone: Vec<Json> = asked.iter().map(ask).collect();
    for (choice, most) in alone.iter().zip([None, Some(1), Some(5), Some(2), None]) {
        assert_eq!(choice["token_ids"], alone[0]["token_ids"], "what is reported changes no token");
        let last = choice["logprobs"]["top_logprobs"].as_array().and_then(|tops| tops.last());
        let count = last.map(|top| top.as_object().unwrap().len());
        assert!(count == most || count == most.map(|most| most + 1), "{choice}");
    }
    assert!(alone.iter().map(|choice| choice["prompt_logprobs"].is_array()).eq([false, false, false, false, true]));
    // In one batch each gets what it asked for, to the last bit, and who asked for nothing gets nothing.
    std::thread::scope(|scope| {
        let (ask, asked) = (&ask, &asked);
        let threads: Vec<_> = (0..40).map(|number| scope.spawn(move || ask(&asked[number % 5]))).collect();
        for (number, thread) in threads.into_iter().enumerate() {
            assert_eq!(thread.join().unwrap(), alone[number % 5], "request {number}");
        }
    });
}

#[test]
fn prompt_tokens_have_their_rank_among_all_tokens() {
    let ask = |most: usize| {
        let body = json!({ "prompt": [1, 900, 17, 2000], "max_tokens": 0, "prompt_logprobs": most });
        complete(shared().address, &body).ok()["choices"][0]["prompt_logprobs"].clone()
    };
    let (none, some) = (ask(0), ask(20));
    for (index, id) in [(1, "900"), (2, "17"), (3, "2000")] {
        let own = &none[index][id];
        assert_eq!((none[index].as_object().unwrap().len(), own), (1, &some[index][id]));
        let (rank, log_prob) = (own["rank"].as_u64().unwrap(), own["logprob"].as_f64().unwrap());
        // So many of the twenty are more probable, and all of them where the rank is beyond.
        let others = some[index].as_object().unwrap().iter().filter(|(other, _)| *other != id);
        let better = others.filter(|(_, other)| other["logprob"].as_f64().unwrap() > log_prob).count() as u64;
        assert_eq!(better, (rank - 1).min(20), "{some}");
    }
}
