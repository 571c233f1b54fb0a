//! What is refused, and how: by the field, with what was given and what is allowed.

use serde_json::{Value as Json, json};

use crate::common::client::{Client, chat, complete, request};
use crate::common::engine::{serve, shared};

fn check(field: &str, value: Json, param: &str, said: &str) {
    let mut body = json!({ "prompt": "a", "max_tokens": 1 });
    body[field] = value;
    let message = complete(shared().address, &body).error(400, "invalid_value", Some(param));
    assert!(message.contains(said), "{message}");
}

#[test]
fn fields_outside_their_range_are_named() {
    check("max_tokens", json!(-1), "max_tokens", "a whole number from 0, not -1");
    check("max_tokens", json!("5"), "max_tokens", "not \"5\"");
    check("max_tokens", json!(1.5), "max_tokens", "not 1.5");
    check("min_tokens", json!(5), "min_tokens", "above `max_tokens` 1");
    check("temperature", json!(2.5), "temperature", "a number from 0 to 2, not 2.5");
    check("top_p", json!(-0.1), "top_p", "from 0 to 1");
    check("top_k", json!(-2), "top_k", "from -1");
    check("repetition_penalty", json!(0), "repetition_penalty", "above 0");
    check("presence_penalty", json!(3), "presence_penalty", "from -2 to 2");
    check("n", json!(0), "n", "from 1 to 128");
    check("n", json!(129), "n", "from 1 to 128");
    check("best_of", json!(0), "best_of", "from 1");
    check("logprobs", json!(21), "logprobs", "from 0 to 20");
    check("seed", json!("x"), "seed", "64 bits");
    check("seed", json!(1e30), "seed", "64 bits");
    check("stop", json!([""]), "stop[0]", "from 1 to 1024");
    check("stop", json!(vec!["a"; 17]), "stop", "at most 16");
    check("stop", json!([1]), "stop[0]", "a string");
    check("stream", json!("yes"), "stream", "true or false");
    check("priority", json!(2), "priority", "from 0 to 1");
    check("timeout", json!(0), "timeout", "above 0");
    check("response_format", json!({ "type": "xml" }), "response_format.type", "\"xml\"");
    check("structured_outputs", json!({ "choice": [] }), "structured_outputs.choice", "a list of strings");
    check("logit_bias", json!({ "5": 101 }), "logit_bias.5", "from -100 to 100");
    check("logit_bias", json!({ "x": 1 }), "logit_bias.x", "token id");
    let body = json!({ "prompt": "a", "n": 2, "best_of": 1 });
    complete(shared().address, &body).error(400, "invalid_value", Some("best_of"));
    let body = json!({ "prompt": "a", "guided_regex": "a", "guided_choice": ["b"] });
    complete(shared().address, &body).error(400, "invalid_value", Some("guided_choice"));
    let body = json!({ "prompt": "a", "response_format": { "type": "json_schema" } });
    complete(shared().address, &body).error(400, "missing_field", Some("response_format.json_schema"));
}

#[test]
fn s39_ids_outside_the_vocabulary_are_refused_and_the_server_lives() {
    for id in [json!(2560), json!(-1), json!(4_294_967_296_u64), json!(1e300), json!("5"), json!(1.5)] {
        check("prompt", json!([5, id]), "prompt[1]", "a token id from 0 to 2559");
        check("prompt", json!([[5], [id]]), "prompt[1][0]", "a token id");
        check("stop_token_ids", json!([id]), "stop_token_ids[0]", "a token id");
        check("allowed_token_ids", json!([id]), "allowed_token_ids[0]", "a token id");
        check("bad_words_token_ids", json!([[id]]), "bad_words_token_ids[0][0]", "a token id");
    }
    check("logit_bias", json!({ "2560": 1 }), "logit_bias.2560", "from 0 to 2559");
    complete(shared().address, &json!({ "prompt": [2559.0, 0], "max_tokens": 1 })).ok();
}

#[test]
fn s40_an_empty_prompt_is_the_bos_alone_and_an_empty_list_is_refused() {
    let body = json!({ "prompt": "", "max_tokens": 1, "return_token_ids": true });
    assert_eq!(complete(shared().address, &body).ok()["choices"][0]["prompt_token_ids"], json!([1]));
    check("add_special_tokens", json!(1), "add_special_tokens", "true or false");
    let body = json!({ "prompt": "", "add_special_tokens": false });
    complete(shared().address, &body).error(400, "invalid_value", Some("prompt"));
    check("prompt", json!([]), "prompt", "an empty list");
    check("prompt", json!([[]]), "prompt[0]", "no tokens");
    check("prompt", json!({}), "prompt", "a string");
    complete(shared().address, &json!({ "max_tokens": 1 })).error(400, "missing_field", Some("prompt"));
}

#[test]
fn s36_s37_a_prompt_beyond_the_window_is_refused_with_both_numbers() {
    let ids = vec![5; 1024];
    let said =
        complete(shared().address, &json!({ "prompt": ids })).error(400, "context_length_exceeded", Some("prompt"));
    assert!(said.contains("maximum context length is 1024 tokens") && said.contains("1024, and one"), "{said}");
    let long = "word ".repeat(2000);
    let body = json!({ "messages": [{ "role": "user", "content": long }] });
    chat(shared().address, &body).error(400, "context_length_exceeded", Some("messages"));
    // Too large an output is cut to what fits.
    let body = json!({ "prompt": vec![5; 1020], "max_tokens": 100, "ignore_eos": true });
    assert_eq!(complete(shared().address, &body).ok()["usage"]["completion_tokens"], 4);
}

#[test]
fn s42_a_guide_that_cannot_be_used_is_refused() {
    let deep = format!("{}a{}", "(".repeat(500), "){1,1000}".repeat(500));
    let guides = [
        ("guided_regex", json!({ "guided_regex": "(" })),
        ("guided_regex", json!({ "guided_regex": deep })),
        ("guided_grammar", json!({ "guided_grammar": "start: missing" })),
        ("guided_json", json!({ "guided_json": { "type": "no such type" } })),
        ("guided_json", json!({ "guided_json": "{" })),
        ("structured_outputs.regex", json!({ "structured_outputs": { "regex": "(" } })),
        (
            "response_format",
            json!({ "response_format": { "type": "json_schema", "json_schema": { "schema": { "$ref": "#/nowhere" } } } }),
        ),
    ];
    for (field, guide) in guides {
        let mut body = guide;
        body["prompt"] = json!("a");
        let said = complete(shared().address, &body).error(400, "invalid_schema", Some(field));
        assert!(said.len() < 4000, "{said}");
    }
}

#[test]
fn s07_guides_have_many_names_and_all_are_honoured() {
    for guide in [
        json!({ "guided_choice": ["yes", "no"] }),
        json!({ "guided_regex": "yes|no" }),
        json!({ "guided_grammar": "start: \"yes\" | \"no\"" }),
        json!({ "structured_outputs": { "choice": ["yes", "no"] } }),
        json!({ "structured_outputs": { "regex": "yes|no", "json": null } }),
        json!({ "response_format": { "type": "regex", "pattern": "yes|no" } }),
        json!({ "response_format": { "type": "choice", "choices": ["yes", "no"] } }),
    ] {
        let mut body = guide.clone();
        body["prompt"] = json!("Is it so?");
        let answer = complete(shared().address, &body).ok();
        assert!(["yes", "no"].contains(&answer["choices"][0]["text"].as_str().unwrap()), "{guide}: {answer}");
    }
}

#[test]
fn s08_fields_that_nobody_knows_are_named_and_do_no_harm() {
    let body = json!({ "prompt": "a", "max_tokens": 1, "foo": 1, "b\u{e4}r,": true, "nothing": null, "user": "me", "suffix": "" });
    let reply = complete(shared().address, &body);
    reply.ok();
    assert_eq!(reply.headers["x-ignored-fields"], "foo, b?r?");
    assert!(
        !complete(shared().address, &json!({ "prompt": "a", "max_tokens": 1 }))
            .headers
            .contains_key("x-ignored-fields")
    );
    let server = serve(|settings| settings.unknown_fields = "reject".to_owned());
    let body = json!({ "prompt": "a", "max_tokens": 1, "temprature": 1 });
    let said = complete(server.address, &body).error(400, "unknown_parameter", Some("temprature"));
    assert!(said.ends_with("did you mean `temperature`?"), "{said}");
}

#[test]
fn what_would_change_the_answer_and_cannot_be_done_is_refused() {
    for (field, value, neutral) in [
        ("suffix", json!("x"), json!("")),
        ("tools", json!([{}]), json!([])),
        ("tool_choice", json!("required"), json!("auto")),
        ("reasoning_effort", json!("high"), json!("none")),
        ("web_search_options", json!({ "a": 1 }), json!({})),
        ("typical_p", json!(0.5), json!(1)),
        ("watermark", json!(true), json!(false)),
        ("modalities", json!(["audio"]), json!(["text"])),
        ("chat_template", json!("{{ 1 }}"), Json::Null),
        ("length_penalty", json!(0.5), json!(1.0)),
        ("logits_processors", json!(["x"]), json!([])),
    ] {
        let mut body = json!({ "prompt": "a", "max_tokens": 1 });
        body[field] = value;
        complete(shared().address, &body).error(400, "unsupported_parameter", Some(field));
        body[field] = neutral;
        let reply = complete(shared().address, &body);
        reply.ok();
        assert!(!reply.headers.contains_key("x-ignored-fields"), "{field}: {reply:?}");
    }
}

#[test]
fn every_field_may_be_null() {
    let body: serde_json::Map<String, Json> = [
        "suffix",
        "max_tokens",
        "temperature",
        "top_p",
        "n",
        "stream",
        "logprobs",
        "echo",
        "stop",
        "presence_penalty",
        "frequency_penalty",
        "best_of",
        "logit_bias",
        "user",
        "seed",
        "stream_options",
        "response_format",
        "guided_json",
        "stop_token_ids",
        "bad_words",
        "model",
        "cache_salt",
        "tools",
        "timeout",
        "truncate_prompt_tokens",
    ]
    .iter()
    .map(|name| ((*name).to_owned(), Json::Null))
    .chain([("prompt".to_owned(), json!("a"))])
    .collect();
    assert_eq!(complete(shared().address, &Json::Object(body)).ok()["usage"]["completion_tokens"], 16);
}

#[test]
fn adapters_are_refused_by_an_engine_that_has_none() {
    let server = serve(|settings| settings.lora = vec!["tuned=/nowhere".to_owned()]);
    let body = json!({ "model": "tuned", "prompt": "a" });
    let said = complete(server.address, &body).error(400, "invalid_value", Some("model"));
    assert!(said.contains("the CPU engine has no LoRA adapters"), "{said}");
}

#[test]
fn bodies_that_are_no_json_are_refused_with_the_place() {
    let send = |body: &str| request(shared().address, "POST", "/v1/completions", &[], body);
    let said = send("{\"prompt\": \"a\",\n \"max_tokens\": }").error(400, "invalid_json", None);
    assert_eq!(said, "the body is not valid JSON at line 2 column 16, at the end of `\"max_tokens\": }`");
    for (body, expected) in [
        ("", "the body is empty: send a JSON object"),
        ("{\"prompt\": \"a", "the body is not valid JSON: it ends too early, at line 1 column 13"),
        ("[]", "the body must be a JSON object"),
    ] {
        assert_eq!(send(body).error(400, "invalid_json", None), expected);
    }
    let mut client = Client::new(shared().address);
    client.write(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 12\r\n\r\n{\"prompt\":\"\xff");
    let said = client.receive(true).unwrap().error(400, "invalid_json", None);
    assert_eq!(said, "the body is not UTF-8: byte 12 begins no character");
    // Deep enough, and one more.
    let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
    send(&nested(127)).error(400, "missing_field", Some("prompt"));
    let said = send(&nested(128)).error(400, "invalid_json", None);
    assert!(said.starts_with("the body has more than 127 levels of lists and objects"), "{said}");
    for body in
        ["", "[]", "5", "null", "{", "{\"a\": NaN}", "{\"a\": 1e999}", "{\"a\": \"\\ud800\"}", &"[".repeat(100_000)]
    {
        send(body).error(400, "invalid_json", None);
    }
    // The last of two equal names counts.
    let twice = send("{\"prompt\": \"a\", \"max_tokens\": 1, \"max_tokens\": 2}").ok();
    assert_eq!(twice["usage"]["completion_tokens"], 2);
}
