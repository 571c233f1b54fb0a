//! `/v1/chat/completions`.

use serde_json::{Value as Json, json};

use crate::common::client::{chat, complete};
use crate::common::engine::{serve, shared};

fn message(role: &str, content: impl Into<Json>) -> Json {
    json!({ "role": role, "content": content.into() })
}

fn ask(messages: Json, more: Json) -> Json {
    let mut body = json!({ "messages": messages, "max_tokens": 8, "temperature": 0, "return_token_ids": true });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    chat(shared().address, &body).ok()
}

#[test]
fn an_answer_has_every_field_that_clients_read() {
    let answer = ask(json!([message("user", "Hello")]), json!({}));
    assert_eq!((&answer["object"], &answer["choices"][0]["index"]), (&json!("chat.completion"), &json!(0)));
    let choice = &answer["choices"][0];
    let said = &choice["message"];
    assert_eq!((&said["role"], &said["refusal"]), (&json!("assistant"), &Json::Null));
    assert!(
        said["content"].as_str().is_some_and(|text| !text.is_empty())
            && said.as_object().unwrap().contains_key("refusal")
    );
    assert!(["stop", "length"].contains(&choice["finish_reason"].as_str().unwrap()));
    assert!(choice.as_object().unwrap().contains_key("logprobs"));
}

#[test]
fn parts_and_developers_and_nulls_are_read_as_their_plain_forms() {
    let plain = ask(json!([message("system", "Be brief."), message("user", "Hello there")]), json!({}));
    let parts = json!([{ "type": "text", "text": "Hello " }, { "type": "text", "text": "there" }]);
    let mut spelled = message("user", parts);
    for name in ["name", "tool_calls", "refusal"] {
        spelled[name] = Json::Null;
    }
    let other =
        ask(json!([message("developer", "Be brief."), spelled]), json!({ "tools": [], "stop": [], "seed": null }));
    assert_eq!(plain["prompt_token_ids"], other["prompt_token_ids"]);
    assert_eq!(plain["choices"], other["choices"]);
}

#[test]
fn s41_there_is_one_bos_and_a_continuation_adds_nothing() {
    let answer = ask(json!([message("user", "Hello")]), json!({}));
    let count = |ids: &Json| ids.as_array().unwrap().iter().filter(|id| **id == 1).count();
    assert_eq!(count(&answer["prompt_token_ids"]), 1);
    let started = json!([message("user", "Hello"), message("assistant", "The answer")]);
    let continued = ask(started, json!({ "continue_final_message": true, "add_generation_prompt": false }));
    assert_eq!(count(&continued["prompt_token_ids"]), 1);
    let text = complete(
        shared().address,
        &json!({ "prompt": continued["prompt_token_ids"], "max_tokens": 8, "temperature": 0 }),
    )
    .ok();
    assert_eq!(text["choices"][0]["text"], continued["choices"][0]["message"]["content"]);
    let written = crate::common::scripted::tokenizer();
    let ids: Vec<u32> =
        continued["prompt_token_ids"].as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect();
    assert!(written.decode(&ids, false).unwrap().ends_with("The answer"));
    let both =
        json!({ "messages": [message("user", "a")], "continue_final_message": true, "add_generation_prompt": true });
    chat(shared().address, &both).error(400, "invalid_value", Some("continue_final_message"));
}

#[test]
fn without_a_generation_prompt_the_prompt_ends_with_the_last_message() {
    let tokens = |add: Json| {
        let messages = json!([message("user", "Hello"), message("assistant", "Hi")]);
        let answer = ask(messages, json!({ "add_generation_prompt": add }));
        answer["prompt_token_ids"].as_array().unwrap().clone()
    };
    let (with, without) = (tokens(Json::Null), tokens(json!(false)));
    assert_eq!(with, tokens(json!(true)));
    assert!(with.starts_with(&without));
    let engine = shared().state.model().unwrap().builder().engine.unwrap();
    let conversation =
        text::chat::parse_messages(r#"[{"role":"user","content":"Hello"},{"role":"assistant","content":"Hi"}]"#);
    let now = std::time::SystemTime::UNIX_EPOCH;
    let rendered =
        engine.chat().unwrap().render_at(&conversation.unwrap(), &text::chat::ChatOptions::default(), false, now);
    let expected = engine.tokenizer().unwrap().get().unwrap().encode_rendered(&rendered.unwrap()).unwrap();
    assert_eq!(json!(without), json!(expected));
}

#[test]
fn a_stream_of_chat_begins_with_the_prompts_tokens_where_they_are_asked_for() {
    let mut body = json!({ "messages": [message("user", "Hello")], "max_tokens": 2, "return_token_ids": true });
    let whole = chat(shared().address, &body).ok();
    body["stream"] = json!(true);
    let events = chat(shared().address, &body).events();
    assert_eq!(events[0]["prompt_token_ids"], whole["prompt_token_ids"]);
    assert!(events[1..].iter().all(|event| event["prompt_token_ids"].is_null()));
    assert_eq!(events.last().unwrap()["choices"][0]["stop_reason"], Json::Null);
    assert!(events.last().unwrap()["choices"][0].as_object().unwrap().contains_key("stop_reason"));
}

#[test]
fn s38_an_order_that_the_template_refuses_is_refused_in_its_words() {
    let body = json!({ "messages": [message("assistant", "Hello")] });
    let said = chat(shared().address, &body).error(400, "template_refused", Some("messages"));
    assert!(said.contains("user and assistant messages must take turns, the user first"), "{said}");
}

#[test]
fn messages_that_cannot_be_read_are_named_by_their_place() {
    let check = |messages: Json, code: &str, param: &str| {
        chat(shared().address, &json!({ "messages": messages })).error(400, code, Some(param))
    };
    check(json!([]), "missing_field", "messages");
    check(Json::Null, "missing_field", "messages");
    check(json!("Hello"), "invalid_value", "messages");
    check(json!(["Hello"]), "invalid_value", "messages[0]");
    check(json!([{ "content": "a" }]), "missing_field", "messages[0].role");
    check(json!([message("robot", "a")]), "invalid_value", "messages[0].role");
    check(json!([message("user", "a"), message("tool", "a")]), "unsupported_parameter", "messages[1].role");
    check(json!([message("user", Json::Null)]), "missing_field", "messages[0].content");
    check(json!([message("user", 5)]), "invalid_value", "messages[0].content");
    let image = json!([{ "type": "text", "text": "a" }, { "type": "image_url", "image_url": { "url": "x" } }]);
    check(json!([message("user", image)]), "unsupported_content", "messages[0].content[1].type");
    let called = json!({ "role": "assistant", "content": null, "tool_calls": [{ "id": "1" }] });
    check(json!([message("user", "a"), called]), "unsupported_parameter", "messages[1].tool_calls");
}

#[test]
fn a_format_is_kept() {
    let user = json!([message("user", "Hello")]);
    let schema = json!({ "type": "object", "properties": { "a": { "enum": [1, 2] } }, "required": ["a"], "additionalProperties": false });
    let formats = [
        json!({ "response_format": { "type": "json_schema", "json_schema": { "name": "x", "schema": schema, "strict": false } } }),
        // As huggingface_hub, TGI's own clients and llama.cpp's write it.
        json!({ "response_format": { "type": "json_object", "value": schema } }),
        json!({ "response_format": { "type": "json", "value": schema } }),
        json!({ "response_format": { "type": "json_object", "schema": schema } }),
        json!({ "structured_outputs": { "json": schema } }),
        json!({ "guided_json": schema }),
    ];
    for format in formats {
        let answer = ask(user.clone(), {
            let mut more = format;
            more["max_tokens"] = json!(40);
            more
        });
        let text = answer["choices"][0]["message"]["content"].as_str().unwrap();
        let value: Json = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
        assert!([json!({ "a": 1 }), json!({ "a": 2 })].contains(&value), "{text}");
    }
    let object = ask(user.clone(), json!({ "response_format": { "type": "json_object" }, "max_tokens": 3 }));
    assert!(object["choices"][0]["message"]["content"].as_str().unwrap().starts_with('{'));
    let text = ask(user, json!({ "response_format": { "type": "text" } }));
    assert_ne!(text["choices"][0]["message"]["content"], object["choices"][0]["message"]["content"]);
}

#[test]
fn without_a_bound_the_window_is_the_bound() {
    let body = json!({ "messages": [message("user", "Hello")], "ignore_eos": true, "temperature": 0 });
    let answer = chat(shared().address, &body).ok();
    assert_eq!(
        (&answer["usage"]["total_tokens"], &answer["choices"][0]["finish_reason"]),
        (&json!(1024), &json!("length"))
    );
}

#[test]
fn what_the_template_does_not_read_is_named() {
    let more =
        json!({ "documents": [{ "text": "a" }], "chat_template_kwargs": { "enable_thinking": false }, "foo": 1 });
    let mut body = json!({ "messages": [message("user", "Hello")], "max_tokens": 1 });
    assert!(!chat(shared().address, &body).headers.contains_key("x-ignored-fields"));
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let reply = chat(shared().address, &body);
    reply.ok();
    assert_eq!(reply.headers["x-ignored-fields"], "foo, documents, chat_template_kwargs.enable_thinking");
    let server = serve(|settings| settings.unknown_fields = "reject".to_owned());
    body.as_object_mut().unwrap().remove("foo");
    let said = chat(server.address, &body).error(400, "unsupported_parameter", Some("documents"));
    assert!(said.contains("chat template does not read"), "{said}");
}
