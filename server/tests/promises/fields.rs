//! Every field, with null, with each wrong kind of value, and with values out of its range.

use std::sync::Arc;

use serde_json::{Value as Json, json};
use server::http::record::Record;
use server::http::routes::Call;
use server::openai::start::{Reader, read_body};
use server::openai::{messages, prompt};

use crate::common::client::{chat, complete};
use crate::common::engine::{serve, shared};

/// A field: its name, the kinds of JSON that it takes, a value that is taken, and values out of its range.
type Row = (&'static str, &'static [&'static str], fn() -> Json, fn() -> Vec<Json>);

const ANY: &[&str] = &["flag", "number", "string", "list", "object"];

/// Fields of both APIs. A message is not changed by what is said in rows with [`ANY`].
const SHARED: &[Row] = &[
    ("model", &["string"], || json!("demo"), Vec::new),
    ("max_tokens", &["number"], || json!(1.0), || vec![json!(-1), json!(0.5)]),
    ("max_completion_tokens", &["number"], || json!(1), || vec![json!(-1), json!(1e-3)]),
    ("min_tokens", &["number"], || json!(1), || vec![json!(-1), json!(2), json!(1.5)]),
    ("temperature", &["number"], || json!(2), || vec![json!(-0.1), json!(2.1), json!(1e300)]),
    ("top_p", &["number"], || json!(0), || vec![json!(-0.1), json!(1.1)]),
    ("top_k", &["number"], || json!(-1), || vec![json!(-2), json!(0.5)]),
    ("min_p", &["number"], || json!(0.1), || vec![json!(-0.1), json!(1.1)]),
    ("presence_penalty", &["number"], || json!(-2), || vec![json!(-2.1), json!(2.1)]),
    ("frequency_penalty", &["number"], || json!(2.0), || vec![json!(-2.1), json!(2.1)]),
    ("repetition_penalty", &["number"], || json!(1.5), || vec![json!(0), json!(-1), json!(1e-60)]),
    ("prompt_ignore_length", &["number"], || json!(1), || vec![json!(-1)]),
    ("no_repeat_ngram_size", &["number"], || json!(3), || vec![json!(-1)]),
    ("seed", &["number"], || json!(-1), || vec![json!(0.5), json!(1e30)]),
    ("n", &["number"], || json!(1.0), || vec![json!(0), json!(129)]),
    ("best_of", &["number"], || json!(2), || vec![json!(0), json!(129)]),
    ("stop", &["string", "list"], || json!([]), || vec![json!(""), json!(["a", ""]), json!([1]), json!(vec!["a"; 17])]),
    ("stop_token_ids", &["list"], || json!([]), || vec![json!([-1]), json!([2560]), json!(["a"])]),
    ("ignore_eos", &["flag"], || json!(true), Vec::new),
    ("include_stop_str_in_output", &["flag"], || json!(true), Vec::new),
    ("skip_special_tokens", &["flag"], || json!(false), Vec::new),
    ("bad_words", &["string", "list"], || json!([]), || vec![json!([""]), json!([1])]),
    ("bad_words_token_ids", &["list"], || json!([]), || vec![json!([[-1]]), json!([[]]), json!(["a"]), json!([2560])]),
    (
        "logit_bias",
        &["object"],
        || json!({ "5": null, "6": -100 }),
        || vec![json!({ "5": 100.5 }), json!({ "2560": 1 }), json!({ "-1": 1 }), json!({ "5": "1" })],
    ),
    ("allowed_token_ids", &["list"], || json!([5.0]), || vec![json!([]), json!([2560]), json!([-1])]),
    ("prompt_logprobs", &["number"], || json!(1), || vec![json!(-1), json!(21)]),
    ("return_token_ids", &["flag"], || json!(true), Vec::new),
    ("return_tokens_as_token_ids", &["flag"], || json!(true), Vec::new),
    ("truncate_prompt_tokens", &["number"], || json!(3), || vec![json!(0), json!(-1)]),
    ("truncation_side", &["string"], || json!("right"), || vec![json!("middle"), json!("")]),
    ("response_format", &["object"], || json!({ "type": "text" }), Vec::new),
    ("structured_outputs", &["object"], || json!({ "choice": ["a"] }), || vec![json!({}), json!({ "json": null })]),
    ("guided_json", &["object", "string", "flag"], || json!({ "type": "string" }), Vec::new),
    ("guided_regex", &["string"], || json!("a+"), Vec::new),
    ("guided_choice", &["list"], || json!(["a"]), || vec![json!([]), json!([""]), json!([1])]),
    ("guided_grammar", &["string"], || json!("start: \"a\""), Vec::new),
    ("guided_json_object", &["flag"], || json!(false), Vec::new),
    ("stream", &["flag"], || json!(false), Vec::new),
    ("stream_options", &["object"], || Json::Null, || vec![json!({ "include_usage": true })]),
    ("priority", &["number"], || json!(0.1), || vec![json!(-0.1), json!(1.1)]),
    ("cache_salt", &["string"], || json!("a"), || vec![json!(""), json!("a".repeat(129))]),
    ("prompt_cache_key", &["string"], || json!("a"), Vec::new),
    ("request_id", &["string"], || json!("mine"), || vec![json!(""), json!("a b"), json!("a".repeat(129))]),
    ("timeout", &["number"], || json!(100), || vec![json!(0), json!(-1), json!(1e300)]),
    ("use_beam_search", &["flag"], || json!(false), Vec::new),
    ("length_penalty", &["number"], || json!(1), || vec![json!(1e39)]),
    ("early_stopping", &["flag", "string"], || json!(false), || vec![json!("sometimes")]),
    ("add_special_tokens", &["flag"], || json!(false), Vec::new),
    ("lora", &["string"], || Json::Null, || vec![json!("none")]),
];

const COMPLETIONS: &[Row] = &[
    ("prompt", &["string", "list"], || json!("a"), || vec![json!([]), json!([[]]), json!([-1]), json!([{}])]),
    ("echo", &["flag"], || json!(true), Vec::new),
    ("logprobs", &["number"], || json!(0), || vec![json!(-1), json!(21), json!(0.5)]),
];

const CHAT: &[Row] = &[
    ("messages", &["list"], || json!([{ "role": "user", "content": "a" }]), || vec![json!([5]), json!(["a"])]),
    ("logprobs", &["flag"], || json!(true), Vec::new),
    ("top_logprobs", &["number"], || json!(0), || vec![json!(-1), json!(21)]),
    ("add_generation_prompt", &["flag"], || json!(false), Vec::new),
    ("continue_final_message", &["flag"], || json!(false), Vec::new),
    ("chat_template_kwargs", &["object"], || json!({}), || vec![json!({ "messages": [] })]),
    ("documents", &["list"], || json!([]), || vec![json!([1])]),
    ("allow_special_tokens_in_messages", &["flag"], || json!(false), Vec::new),
];

/// Fields that are refused unless they ask for nothing, with a value that asks for nothing and one that asks for something.
type Refused = (&'static str, &'static [&'static str], fn() -> Json, fn() -> Json);

const REFUSED: &[Refused] = &[
    ("suffix", &["string"], || json!(""), || json!("x")),
    ("watermark", &["flag"], || json!(false), || json!(true)),
    ("tools", &["list"], || json!([]), || json!([{}])),
    ("functions", &["list"], || json!([]), || json!([{}])),
    ("tool_choice", &["string", "object"], || json!("auto"), || json!("required")),
    ("function_call", &["string", "object"], || json!("none"), || json!({ "name": "x" })),
    ("parallel_tool_calls", &["flag"], || json!(true), || Json::Null),
    ("reasoning_effort", &["string"], || json!("none"), || json!("high")),
    ("thinking_token_budget", &["number"], || json!(0), || json!(5)),
    ("modalities", &["list"], || json!(["text"]), || json!(["audio"])),
    ("audio", &["object"], || json!({}), || json!({ "voice": "x" })),
    ("mm_processor_kwargs", &["object"], || json!({}), || json!({ "a": 1 })),
    ("prediction", &["object"], || json!({}), || json!({ "a": 1 })),
    ("web_search_options", &["object"], || json!({}), || json!({ "a": 1 })),
    ("chat_template", &["string"], || json!(""), || json!("{{ 1 }}")),
    ("typical_p", &["number"], || json!(1.0), || json!(0.5)),
    ("top_n_tokens", &["number"], || json!(0), || json!(5)),
    ("spaces_between_special_tokens", &["flag"], || json!(true), || Json::Null),
    ("kv_transfer_params", &["object"], || json!({}), || json!({ "a": 1 })),
    ("logits_processors", &["list"], || json!([]), || json!(["x"])),
    ("vllm_xargs", &["object"], || json!({}), || json!({ "a": 1 })),
    ("guided_decoding_backend", &["string"], || json!(""), || json!("xgrammar")),
    ("guided_whitespace_pattern", &["string"], || json!(""), || json!(" *")),
    ("prompt_embeds", &["string", "list"], || json!(""), || json!("AAAA")),
];

/// What the other API has.
const NOT_OF_COMPLETIONS: &[Refused] = &[
    ("messages", &["list"], || json!([]), || json!([{ "role": "user", "content": "a" }])),
    ("top_logprobs", &["number"], || json!(0), || json!(5)),
    ("continue_final_message", &["flag"], || json!(false), || json!(true)),
    ("add_generation_prompt", &["flag"], || json!(true), || Json::Null),
    ("chat_template_kwargs", &["object"], || json!({}), || json!({ "a": 1 })),
    ("documents", &["list"], || json!([]), || json!([{}])),
    ("allow_special_tokens_in_messages", &["flag"], || json!(false), || json!(true)),
];

const NOT_OF_CHAT: &[Refused] = &[
    ("prompt", &["string", "list"], || json!(""), || json!("a")),
    ("echo", &["flag"], || json!(false), || json!(true)),
];

/// Fields that change nothing, whatever they say.
const HARMLESS: &[&str] = &[
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_retention",
    "prompt_cache_options",
    "verbosity",
    "obfuscation",
    "include_reasoning",
];

fn of_kind(kind: &str) -> Json {
    match kind {
        "flag" => json!(true),
        "number" => json!(7),
        "string" => json!("seven"),
        "list" => json!([[[]]]),
        _ => json!({ "x": 1 }),
    }
}

struct Api {
    is_chat: bool,
}

impl Api {
    /// Sends a body with this value of a field, and gives what came of it.
    fn send(&self, field: &str, value: Json) -> crate::common::client::Reply {
        let mut body = json!({ "max_tokens": 1, "temperature": 0 });
        match self.is_chat {
            true => body["messages"] = json!([{ "role": "user", "content": "a" }]),
            false => body["prompt"] = json!("a"),
        }
        body[field] = value;
        match self.is_chat {
            true => chat(shared().address, &body),
            false => complete(shared().address, &body),
        }
    }

    fn is_taken(&self, field: &str, value: Json) {
        let reply = self.send(field, value.clone());
        assert_eq!(reply.status, 200, "{field}: {value}: {reply:?}");
        assert!(!reply.headers.contains_key("x-ignored-fields"), "{field}: {value}: {reply:?}");
    }

    /// It is refused, and the field or something in it is named, in `param` and in the message.
    fn is_refused(&self, field: &str, value: Json, code: &str) {
        let reply = self.send(field, value.clone());
        let error = &reply.json()["error"];
        let param = error["param"].as_str().unwrap_or_default();
        assert_eq!((reply.status, &error["code"]), (400, &json!(code)), "{field}: {value}: {reply:?}");
        let is_inside = param.strip_prefix(field).is_some_and(|rest| rest.is_empty() || ".[".contains(&rest[..1]));
        assert!(is_inside, "{field}: {value}: {reply:?}");
        let message = reply.error(400, code, Some(param));
        assert!(message.contains(&format!("`{param}`")) || message.contains(field), "{field}: {value}: {message}");
    }

    fn kinds(&self, field: &str, kinds: &[&str]) {
        for kind in ANY.iter().filter(|kind| !kinds.contains(kind)) {
            self.is_refused(field, of_kind(kind), "invalid_value");
        }
    }

    fn rows(&self, rows: &[Row]) {
        for (field, kinds, good, bad) in rows {
            match *field {
                "prompt" | "messages" => self.is_refused(field, Json::Null, "missing_field"),
                _ => self.is_taken(field, Json::Null),
            }
            self.is_taken(field, good());
            self.kinds(field, kinds);
            for value in bad() {
                self.is_refused(field, value, "invalid_value");
            }
        }
    }

    fn refused(&self, rows: &[Refused]) {
        for (field, kinds, neutral, asks) in rows {
            self.is_taken(field, Json::Null);
            self.is_taken(field, neutral());
            self.kinds(field, kinds);
            if !asks().is_null() {
                self.is_refused(field, asks(), "unsupported_parameter");
            }
        }
    }
}

#[test]
fn every_field_of_completions_with_null_wrong_kinds_and_bad_values() {
    let api = Api { is_chat: false };
    for rows in [SHARED, COMPLETIONS] {
        api.rows(rows);
    }
    for rows in [REFUSED, NOT_OF_COMPLETIONS] {
        api.refused(rows);
    }
    for field in HARMLESS {
        for kind in ANY {
            api.is_taken(field, of_kind(kind));
        }
    }
}

#[test]
fn every_field_of_chat_with_null_wrong_kinds_and_bad_values() {
    let api = Api { is_chat: true };
    for rows in [SHARED, CHAT] {
        api.rows(rows);
    }
    api.is_refused("max_tokens", json!(0), "invalid_value");
    for rows in [REFUSED, NOT_OF_CHAT] {
        api.refused(rows);
    }
    for field in HARMLESS {
        for kind in ANY {
            api.is_taken(field, of_kind(kind));
        }
    }
}

#[test]
fn every_field_that_the_server_knows_is_in_these_tables() {
    let known = |rows: &[&[Row]], refused: &[&[Refused]]| -> std::collections::BTreeSet<String> {
        let rows = rows.iter().flat_map(|rows| rows.iter().map(|row| row.0));
        let refused = refused.iter().flat_map(|rows| rows.iter().map(|row| row.0));
        rows.chain(refused).chain(HARMLESS.iter().copied()).map(str::to_owned).collect()
    };
    let of_completions = known(&[SHARED, COMPLETIONS], &[REFUSED, NOT_OF_COMPLETIONS]);
    let of_chat = known(&[SHARED, CHAT], &[REFUSED, NOT_OF_CHAT]);
    let asked = |body: Json, reader: Reader| {
        let model = shared().state.model().unwrap();
        let body = body.to_string();
        let call = Call::new(Arc::new(Record::new("test".to_owned(), "POST", "", false)));
        let (_, fields) = read_body(model, &call, body.as_bytes(), reader).unwrap();
        let mut names = fields.asked();
        names.retain(|name| !name.contains('.'));
        names
    };
    let messages = json!({ "messages": [{ "role": "user", "content": "a" }] });
    let (of_text, of_messages) = (asked(json!({ "prompt": "a" }), prompt::read), asked(messages, messages::read));
    assert_eq!(of_text, of_completions);
    assert_eq!(of_messages, of_chat);
}

#[test]
fn fields_inside_objects_are_checked_and_what_is_unknown_there_is_named() {
    let api = Api { is_chat: true };
    api.is_refused(
        "response_format",
        json!({ "type": "json_schema", "json_schema": { "schema": {}, "strict": 1 } }),
        "invalid_value",
    );
    api.is_refused("response_format", json!({}), "missing_field");
    api.is_refused("response_format", json!({ "type": null }), "missing_field");
    api.is_refused(
        "response_format",
        json!({ "type": "json_schema", "json_schema": { "schema": null } }),
        "missing_field",
    );
    api.is_refused(
        "structured_outputs",
        json!({ "json": {}, "disable_any_whitespace": true }),
        "unsupported_parameter",
    );
    let ignored = |field: &str, value: Json| {
        let reply = api.send(field, value);
        assert_eq!(reply.status, 200, "{reply:?}");
        reply.headers.get("x-ignored-fields").cloned().unwrap_or_default()
    };
    let schema = json!({ "name": "x", "schema": { "type": "boolean" }, "strict": true, "more": 1 });
    let format = json!({ "type": "json_schema", "json_schema": schema, "other": true });
    assert_eq!(ignored("response_format", format), "response_format.json_schema.more, response_format.other");
    let part = json!({ "type": "text", "text": "a", "cache_control": {} });
    let message = json!({ "role": "user", "content": [part], "name": "Ann", "prefix": true, "nothing": null });
    assert_eq!(
        ignored("messages", json!([message])),
        "messages[0].content[0].cache_control, messages[0].name, messages[0].prefix"
    );
    let mut body = json!({ "prompt": "a", "max_tokens": 1, "stream": true });
    body["stream_options"] = json!({ "include_usage": null, "foo": 1 });
    assert_eq!(complete(shared().address, &body).headers["x-ignored-fields"], "stream_options.foo");
}

#[test]
fn messages_are_checked_field_by_field() {
    let api = Api { is_chat: true };
    let ask = |message: Json, code: &str| api.is_refused("messages", json!([message]), code);
    for (field, value) in [("name", json!(5)), ("refusal", json!([])), ("tool_calls", json!(0)), ("role", json!(5))] {
        let mut message = json!({ "role": "user", "content": "a" });
        message[field] = value;
        ask(message, "invalid_value");
    }
    ask(json!({ "role": "assistant", "content": null }), "missing_field");
    ask(json!({ "content": "a" }), "missing_field");
    ask(json!({ "role": "user", "content": [{ "type": "text" }] }), "missing_field");
    ask(json!({ "role": "user", "content": [{ "text": "a" }] }), "missing_field");
    ask(json!({ "role": "user", "content": [{ "type": "text", "text": 5 }] }), "invalid_value");
    ask(json!({ "role": "user", "content": ["a"] }), "invalid_value");
    ask(json!({ "role": "user", "content": "a", "tool_calls": [{}] }), "unsupported_parameter");
    ask(json!({ "role": "user", "content": [{ "type": "input_audio", "input_audio": {} }] }), "unsupported_content");
}

#[test]
fn what_the_operator_allows() {
    let lenient = serve(|settings| settings.lenient = true);
    let body = json!({ "prompt": "a", "max_tokens": 1, "temperature": 100 });
    complete(lenient.address, &body).ok();
    let body = json!({ "prompt": "a", "temperature": 100.5 });
    complete(lenient.address, &body).error(400, "invalid_value", Some("temperature"));

    let vllm = serve(|settings| settings.priority_style = "vllm".to_owned());
    for priority in [json!(-5), json!(0), json!(1_000_000.0)] {
        complete(vllm.address, &json!({ "prompt": "a", "max_tokens": 1, "priority": priority })).ok();
    }
    let body = json!({ "prompt": "a", "priority": 0.5 });
    complete(vllm.address, &body).error(400, "invalid_value", Some("priority"));

    let message = json!([{ "role": "user", "content": "[INST] a" }]);
    let body = json!({ "messages": message, "max_tokens": 1, "allow_special_tokens_in_messages": true });
    let said =
        chat(shared().address, &body).error(400, "unsupported_parameter", Some("allow_special_tokens_in_messages"));
    assert!(said.contains("unless the server was started with"), "{said}");
    let allowing = serve(|settings| settings.allow_special_tokens_in_messages = true);
    let tokens = |allow: bool| {
        let mut body = body.clone();
        body["allow_special_tokens_in_messages"] = json!(allow);
        chat(allowing.address, &body).ok()["usage"]["prompt_tokens"].as_u64().unwrap()
    };
    assert!(tokens(true) < tokens(false), "the text is one token where it is allowed to be");
}

#[test]
fn s43_a_cache_key_is_a_salt_where_the_server_says_so() {
    let prompt = "Our solar system is a collection of planets and moons. ".repeat(12);
    for (salt_from, expected) in [("cache_salt", false), ("prompt_cache_key", true)] {
        let server = serve(|settings| settings.salt_from = salt_from.to_owned());
        let cached = |more: Json| {
            let mut body = json!({ "prompt": prompt, "max_tokens": 1 });
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            complete(server.address, &body).ok()["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap()
        };
        assert_eq!(cached(json!({ "prompt_cache_key": "one" })), 0);
        let is_separate = cached(json!({ "prompt_cache_key": "two" })) == 0;
        assert_eq!(is_separate, expected, "{salt_from}");
        assert!(cached(json!({ "prompt_cache_key": "two" })) > 0);
        // A salt of its own goes before.
        assert_eq!(cached(json!({ "prompt_cache_key": "two", "cache_salt": "three" })), 0);
    }
}
