//! What a chat template is given besides messages: its name, tools, documents, variables; and where the prompt ends.

use serde_json::{Value, json};
use tempfile::TempDir;
use text::chat::{ChatError, ChatOptions, ChatTemplate, Message, Rendered, parse_messages};

use crate::support::directory;

fn render(dir: &TempDir, messages: &Value, options: &ChatOptions) -> Result<String, ChatError> {
    ChatTemplate::open(dir.path())?.render(&parse_messages(&messages.to_string())?, options).map(Rendered::into_string)
}

fn one(template: &str) -> TempDir {
    directory(&[("chat_template.jinja", json!(template))])
}

fn refused(error: ChatError, field: &str, part: &str) {
    assert!(matches!(&error, ChatError::Option { field: found, .. } if *found == field), "{error:?}");
    assert!(error.to_string().contains(part), "{error}");
}

#[test]
fn a_template_has_a_name() {
    let list = json!([{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}, {"name": "rag", "template": "rag"}]);
    let object = json!({"default": "plain", "tool_use": "tools", "rag": "rag"});
    let dirs = [list, object].map(|named| directory(&[("tokenizer_config.json", json!({"chat_template": named}))]));
    let files = one("plain");
    std::fs::create_dir(files.path().join("additional_chat_templates")).unwrap();
    for (name, text) in [("tool_use.jinja", "tools"), ("rag.jinja", "rag"), ("README.md", "{% broken")] {
        std::fs::write(files.path().join("additional_chat_templates").join(name), text).unwrap();
    }
    let hello = json!([{"role": "user", "content": "hi"}]);
    for dir in dirs.iter().chain([&files]) {
        let named = |name: &str| ChatOptions { chat_template: Some(name.into()), ..ChatOptions::default() };
        let with_tools = |options| ChatOptions { tools: Some(vec![json!({})]), ..options };
        assert_eq!(render(dir, &hello, &ChatOptions::default()).unwrap(), "plain");
        assert_eq!(render(dir, &hello, &named("rag")).unwrap(), "rag");
        assert_eq!(render(dir, &hello, &with_tools(ChatOptions::default())).unwrap(), "tools");
        assert_eq!(render(dir, &hello, &with_tools(named("default"))).unwrap(), "plain");
        let error = render(dir, &hello, &named("other")).unwrap_err().to_string();
        assert!(error.contains("`other`") && error.contains("`default`, `rag`, `tool_use`"), "{error}");
    }
    let without_default = directory(&[("tokenizer_config.json", json!({"chat_template": {"rag": "x"}}))]);
    refused(render(&without_default, &hello, &ChatOptions::default()).unwrap_err(), "chat_template", "`rag`");
}

#[test]
fn tools_documents_and_variables_reach_the_template() {
    let dir =
        one("{{ tools | tojson }}|{{ documents[0].text }}|{{ thinking }}|{{ bos_token }}|{{ add_generation_prompt }}");
    let hello = json!([{"role": "user", "content": "hi"}]);
    let options = ChatOptions {
        tools: Some(vec![json!({"name": "f"})]),
        documents: Some(vec![json!({"text": "d"})]),
        chat_template_kwargs: serde_json::from_str(r#"{"thinking": false, "bos_token": "<b>"}"#).unwrap(),
        ..ChatOptions::default()
    };
    assert_eq!(render(&dir, &hello, &options).unwrap(), r#"[{"name": "f"}]|d|False|<b>|True"#);
    let tools = ChatOptions { tools: Some(vec![json!({}), json!(1)]), ..ChatOptions::default() };
    refused(render(&dir, &hello, &tools).unwrap_err(), "tools", "number 2 is not an object");
    let documents = ChatOptions { documents: Some(vec![json!("text")]), ..ChatOptions::default() };
    refused(render(&dir, &hello, &documents).unwrap_err(), "documents", "number 1");
    let taken = ChatOptions {
        chat_template_kwargs: serde_json::from_str(r#"{"tools": 1}"#).unwrap(),
        ..ChatOptions::default()
    };
    refused(render(&dir, &hello, &taken).unwrap_err(), "chat_template_kwargs", "`tools`");
}

#[test]
fn a_system_message_is_put_where_none_is() {
    let dir = one("{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}");
    let options = ChatOptions { system: Some("short".into()), ..ChatOptions::default() };
    let cases = [
        (json!([{"role": "user", "content": "a"}]), "system:short;user:a;"),
        (json!([{"role": "system", "content": "own"}]), "system:own;"),
        (json!([{"role": "developer", "content": "own"}]), "developer:own;"),
    ];
    for (messages, expected) in cases {
        assert_eq!(render(&dir, &messages, &options).unwrap(), expected);
    }
}

#[test]
fn the_last_message_is_continued() {
    let options = ChatOptions { continue_final_message: true, ..ChatOptions::default() };
    let messages =
        |content: Value| json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": content}]);
    let plain = one("{% for m in messages %}<{{ m.content }}>{% endfor %}{% if add_generation_prompt %}!{% endif %}");
    assert_eq!(render(&plain, &messages(json!("so ")), &options).unwrap(), "<a><so ");
    let stripping = one("{% for m in messages %}<{{ m.content | trim }}>{% endfor %}");
    assert_eq!(render(&stripping, &messages(json!("so ")), &options).unwrap(), "<a><so");
    let parts = one(
        "{% for m in messages %}<{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endif %}>{% endfor %}",
    );
    let list = json!([{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]);
    assert_eq!(render(&parts, &messages(list), &options).unwrap(), "<a><xy");
    let without = one("{{ messages[0].content }}");
    refused(
        render(&without, &messages(json!("so")), &options).unwrap_err(),
        "continue_final_message",
        "does not print",
    );
    let calls = json!([{"role": "assistant", "tool_calls": []}]);
    refused(render(&plain, &calls, &options).unwrap_err(), "continue_final_message", "no text");
}

#[test]
fn an_answer_is_begun_unless_it_is_not_to_be() {
    let dir = one("{{ messages[0].content }}{% if add_generation_prompt %}!{% endif %}");
    let messages = json!([{"role": "user", "content": "a"}]);
    for (asked, expected) in [(None, "a!"), (Some(true), "a!"), (Some(false), "a")] {
        let options = ChatOptions { add_generation_prompt: asked, ..ChatOptions::default() };
        assert_eq!(render(&dir, &messages, &options).unwrap(), expected);
    }
    let options =
        ChatOptions { add_generation_prompt: Some(true), continue_final_message: true, ..ChatOptions::default() };
    refused(render(&dir, &messages, &options).unwrap_err(), "continue_final_message", "exclude each other");
}

#[test]
fn what_a_template_reads_is_known_by_name() {
    let dir = one(
        "{% set name = 1 %}{{ messages[0].content }}{{ messages[0]['role'] }}{{ messages[0].get('prefix') }}{{ thinking }}",
    );
    let template = ChatTemplate::open(dir.path()).unwrap();
    let options = ChatOptions::default();
    let fields =
        ["content", "role", "prefix", "name", "thinking"].map(|name| template.reads_field(&options, name).unwrap());
    assert_eq!(fields, [true, true, true, false, false]);
    let variables = ["content", "thinking"].map(|name| template.reads(&options, name).unwrap());
    assert_eq!(variables, [false, true]);
}

#[test]
fn reasoning_is_there_under_every_name_that_templates_use() {
    let dir = one("{{ messages[0] | tojson }}");
    for name in ["reasoning", "thinking", "reasoning_content"] {
        let message = Message::from_json(json!({"role": "assistant", "content": "b", name: "a"})).unwrap();
        let rendered = ChatTemplate::open(dir.path()).unwrap().render(&[message], &ChatOptions::default()).unwrap();
        let fields: Value = serde_json::from_str(rendered.as_str()).unwrap();
        assert_eq!((&fields["thinking"], &fields["reasoning_content"]), (&json!("a"), &json!("a")), "{name}");
    }
}
