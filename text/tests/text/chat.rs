//! Chat templates against Transformers' rendering, and messages as users type them.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};
use tempfile::TempDir;
use text::chat::{ChatError, ChatOptions, ChatTemplate, Message, Rendered, parse_messages};

use crate::support::{directory, fixtures, read_json};

fn template(source: &str) -> (TempDir, ChatTemplate) {
    let config = json!({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "add_bos_token": true});
    let dir = directory(&[("chat_template.jinja", json!(source)), ("tokenizer_config.json", config)]);
    let template = ChatTemplate::open(dir.path()).unwrap();
    (dir, template)
}

fn render(source: &str, messages: &Value) -> Result<String, ChatError> {
    let messages = parse_messages(&messages.to_string()).unwrap();
    template(source).1.render_at(&messages, &ChatOptions::default(), false, UNIX_EPOCH).map(Rendered::into_string)
}

/// What a directory's template makes of one message.
fn rendered(dir: &TempDir, options: &ChatOptions) -> Result<String, ChatError> {
    ChatTemplate::open(dir.path())?.render(&[Message::new("user", "hi")], options).map(Rendered::into_string)
}

fn print(source: &str) -> String {
    render(source, &json!([{"role": "user", "content": "hi"}])).unwrap()
}

#[test]
fn templates_render_as_transformers_renders_them() {
    let cases = read_json(&fixtures().join("chat/cases.json"));
    for case in cases["cases"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let config = json!({"bos_token": cases["bos_token"], "eos_token": cases["eos_token"]});
        let source = &cases["templates"][case["template"].as_str().unwrap()];
        let dir = directory(&[("chat_template.jinja", source.clone()), ("tokenizer_config.json", config)]);
        let messages = case["messages"].as_array().unwrap().iter().cloned();
        let messages: Vec<Message> = messages.map(|message| Message::from_json(message).unwrap()).collect();
        let template = ChatTemplate::open(dir.path()).unwrap();
        let add_generation_prompt = case["add_generation_prompt"].as_bool().unwrap();
        let rendered = template.render_at(&messages, &ChatOptions::default(), add_generation_prompt, UNIX_EPOCH);
        match (rendered, case["expected"].as_str()) {
            (Ok(text), Some(expected)) => assert_eq!(text.as_str(), expected, "{name}"),
            (Err(ChatError::Refused { message }), None) => {
                assert_eq!(message, case["error"].as_str().unwrap(), "{name}")
            }
            (rendered, _) => panic!("{name}: {rendered:?}"),
        }
    }
}

#[test]
fn the_template_file_wins_and_default_is_the_one_of_many() {
    let config = |template: Value| ("tokenizer_config.json", json!({"chat_template": template}));
    let file = ("chat_template.jinja", json!("file"));
    let older = ("chat_template.json", json!({"chat_template": "older"}));
    let many = json!([{"name": "tool_use", "template": "tools"}, {"name": "default", "template": "plain"}]);
    let cases = [
        (vec![file, config(json!("config")), older.clone()], "file"),
        (vec![config(json!("config")), older.clone()], "config"),
        (vec![config(many)], "plain"),
        (vec![config(Value::Null), older], "older"),
    ];
    for (files, expected) in cases {
        let dir = directory(&files);
        assert_eq!(rendered(&dir, &ChatOptions::default()).unwrap(), expected);
    }
}

#[test]
fn values_print_as_python_prints_them() {
    let cases = [
        ("{{ none }} {{ true }} {{ missing }}|{{ 3 }} {{ 7 / 2 }} {{ 4 / 2 }}", "None True |3 3.5 2.0"),
        ("{{ 1e16 }} {{ 0.00001 }} {{ 123456789.5 }} {{ 0.0001 }}", "1e+16 1e-05 123456789.5 0.0001"),
        (r#"{{ ["a", 1, none, "it's", 'say "hi"'] }}"#, r#"['a', 1, None, "it's", 'say "hi"']"#),
        (r#"{{ {"k": ["\n", false]} }} {{ 5 | string + "!" }}"#, r"{'k': ['\n', False]} 5!"),
        (r#"{{ {"a": "<é>", "b": [1.0, none]} | tojson }}"#, r#"{"a": "<é>", "b": [1.0, null]}"#),
        (r#"{{ "é🪐" | tojson(ensure_ascii=true) }}"#, r#""\u00e9\ud83e\ude90""#),
        (r#"{{ [1, {}, []] | tojson(indent=2) }}"#, "[\n  1,\n  {},\n  []\n]"),
        (r#"{{ {"b": 1, "a": 2} | tojson(separators=(",", ":"), sort_keys=true) }}"#, r#"{"a":2,"b":1}"#),
        (r#"{{ "model: x".removeprefix("model: ") }}{{ " y ".strip() }}{{ "a,b".split(",")[-1] }}"#, "xyb"),
        ("{% generation %}\nkept\n{%- endgeneration %}.", "kept."),
        ("{{ bos_token }}{{ eos_token }}{{ tools is none }}", "<s></s>True"),
    ];
    for (source, expected) in cases {
        assert_eq!(print(source), expected, "{source}");
    }
}

#[test]
fn dates_come_from_the_clock() {
    let (_dir, template) = template("{{ strftime_now(messages[0].content) }}");
    let at = |seconds: i64, format: &str| {
        let moment = match u64::try_from(seconds) {
            Ok(after) => UNIX_EPOCH + Duration::from_secs(after),
            Err(_) => UNIX_EPOCH - Duration::from_secs(seconds.unsigned_abs()),
        };
        template
            .render_at(&[Message::new("user", format)], &ChatOptions::default(), true, moment)
            .map(Rendered::into_string)
    };
    let everything = "%d %b %Y %H:%M:%S|%A %a %B %j %y %m %e|%I %p %-d %-m|%F %T %D %R|%c|%f %w %u %%%Z%z";
    let cases = [
        (
            0,
            "01 Jan 1970 00:00:00|Thursday Thu January 001 70 01  1|12 AM 1 1|1970-01-01 00:00:00 01/01/70 00:00|Thu Jan  1 00:00:00 1970|000000 4 4 %",
        ),
        (
            951_827_696,
            "29 Feb 2000 12:34:56|Tuesday Tue February 060 00 02 29|12 PM 29 2|2000-02-29 12:34:56 02/29/00 12:34|Tue Feb 29 12:34:56 2000|000000 2 2 %",
        ),
        (
            1_735_689_599,
            "31 Dec 2024 23:59:59|Tuesday Tue December 366 24 12 31|11 PM 31 12|2024-12-31 23:59:59 12/31/24 23:59|Tue Dec 31 23:59:59 2024|000000 2 2 %",
        ),
        (
            4_107_542_399,
            "28 Feb 2100 23:59:59|Sunday Sun February 059 00 02 28|11 PM 28 2|2100-02-28 23:59:59 02/28/00 23:59|Sun Feb 28 23:59:59 2100|000000 0 7 %",
        ),
        (
            -1,
            "31 Dec 1969 23:59:59|Wednesday Wed December 365 69 12 31|11 PM 31 12|1969-12-31 23:59:59 12/31/69 23:59|Wed Dec 31 23:59:59 1969|000000 3 3 %",
        ),
    ];
    for (seconds, expected) in cases {
        assert_eq!(at(seconds, everything).unwrap(), expected);
    }
    // Every day from 1900 to 2200 follows the one before.
    let mut before = String::new();
    for day in -25_567..84_006 {
        let date = at(day * 86_400, "%Y-%m-%d").unwrap();
        assert!(date > before, "{date} after {before}");
        before = date;
    }
    assert_eq!(before, "2199-12-31");
    let error = at(0, "%Q").unwrap_err().to_string();
    assert!(error.contains("%Q is not known"), "{error}");
    assert!(template.render(&[Message::new("user", "%Y")], &ChatOptions::default()).unwrap().as_str().len() == 4);
}

#[test]
fn failures_say_where_and_what_to_do() {
    let empty = directory(&[]);
    let error = ChatTemplate::open(empty.path()).unwrap_err().to_string();
    assert!(error.contains("has no chat template") && error.contains("plain text"), "{error}");

    let broken = directory(&[("chat_template.jinja", json!("line\n{% if %}"))]);
    let error = ChatTemplate::open(broken.path()).unwrap_err().to_string();
    assert!(error.contains("chat_template.jinja") && error.contains("line 2"), "{error}");

    let unnamed = directory(&[("tokenizer_config.json", json!({"chat_template": [{"template": "x"}]}))]);
    let error = ChatTemplate::open(unnamed.path()).unwrap_err().to_string();
    assert!(error.contains("tokenizer_config.json: chat_template") && error.contains("`name`"), "{error}");

    let messages = json!([{"role": "user", "content": "hi"}]);
    let error = render("{{ raise_exception('only \"system\" here') }}", &messages).unwrap_err();
    assert!(matches!(&error, ChatError::Refused { message } if message == "only \"system\" here"), "{error}");
    let macro_error =
        render("{% macro m() %}{{ raise_exception('no') }}{% endmacro %}{{ m() }}", &messages).unwrap_err();
    assert!(matches!(&macro_error, ChatError::Refused { message } if message == "no"), "{macro_error}");

    let error = render("\n{{ messages[0].tool.name }}", &messages).unwrap_err().to_string();
    assert!(error.contains("chat_template.jinja") && error.contains("line 2"), "{error}");
}

#[test]
fn a_text_is_one_user_message_and_a_list_must_be_of_messages() {
    for text in ["Hello", "", "[INST] old style", "[unclosed", "{\"role\": \"user\"}", "42", " leading blank"] {
        assert_eq!(parse_messages(text).unwrap(), [Message::new("user", text)], "{text:?}");
    }
    for text in [r#"[{"role":"#, r#" [ {"role": "user", "content": "a"},]"#, "[{x}] is a set"] {
        let error = parse_messages(text).unwrap_err().to_string();
        assert!(error.contains("not valid JSON") && error.contains("column"), "{error}");
    }
    let list = r#" [{"role": "system", "content": "x", "name": null}, {"role": "assistant", "content": null, "tool_calls": []}]"#;
    let messages = parse_messages(list).unwrap();
    assert_eq!(messages.iter().map(Message::role).collect::<Vec<_>>(), ["system", "assistant"]);
    assert_eq!(messages[0], Message::new("system", "x"), "null fields are absent");
    assert_eq!(messages[0].get("content"), Some(&json!("x")));
    assert_eq!(messages[1].get("content"), None);

    let error = Message::from_json(json!({"content": "b"})).unwrap_err().to_string();
    assert!(error.contains("the message has no role"), "{error}");

    let bad = [
        ("[]", "the list of messages is empty"),
        ("[1, 2]", "message 1 is not an object"),
        (r#"[{"role": "user", "content": "a"}, {"content": "b"}]"#, "message 2 has no role"),
        (r#"[{"role": 3, "content": "b"}]"#, "message 1 has a role that is no text"),
        (r#"[{"role": "user"}]"#, "message 1 has no content"),
        (r#"[{"role": "user", "content": 5}]"#, "message 1 has a content that is neither"),
    ];
    for (text, expected) in bad {
        let error = parse_messages(text).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains("expected a list like"), "{error}");
    }
}

#[test]
fn it_is_known_whether_a_template_reads_a_variable() {
    let (_dir, template) = template("{% for document in documents %}{{ document.text }}{% endfor %}{{ messages }}");
    let reads = |name: &str| template.reads(&ChatOptions::default(), name).unwrap();
    assert!(reads("documents") && reads("messages") && !reads("tools"));
    let unknown = ChatOptions { chat_template: Some("none".to_owned()), ..ChatOptions::default() };
    template.reads(&unknown, "documents").unwrap_err();
}
