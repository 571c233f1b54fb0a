//! Output that must look like something.

use serde_json::{Value, json};

use crate::support::{demo, file, json_line, json_lines, one_of_two_failed, parity, refused, run_engine};

const PROMPT: [&str; 4] = ["--prompt", "The planet Mars", "--max-new-tokens", "60"];

/// Without blanks between the parts: a small model may like blanks so much that it never goes on.
const SCHEMA: &str = r#"{"type": "object", "properties": {"name": {"enum": ["Mars", "Venus"]}, "moons": {"type":
    "integer", "minimum": 0, "maximum": 9}}, "required": ["name", "moons"], "additionalProperties": false,
    "x-guidance": {"whitespace_flexible": false}}"#;
const GRAMMAR: &str = "start: COLOR \" \" SHAPE\nCOLOR: \"red\" | \"green\"\nSHAPE: \"circle\" | \"square\"\n";

fn fits_schema(text: &str) {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert!(value["name"] == "Mars" || value["name"] == "Venus", "{value}");
    assert!((0..=9).contains(&value["moons"].as_i64().unwrap()), "{value}");
    assert_eq!(value.as_object().unwrap().len(), 2, "{value}");
}

fn fits_regex(text: &str) {
    let bytes = text.as_bytes();
    assert_eq!(bytes.len(), 6, "{text}");
    assert!(bytes[..3].iter().all(u8::is_ascii_digit) && bytes[3] == b'-', "{text}");
    assert!(bytes[4..].iter().all(u8::is_ascii_lowercase), "{text}");
}

fn fits_grammar(text: &str) {
    assert!(["red circle", "red square", "green circle", "green square"].contains(&text), "{text}");
}

#[test]
fn output_is_what_the_guide_admits() {
    let engine = demo();
    let (_schema, schema) = file("schema.json", SCHEMA);
    let (_grammar, grammar) = file("colors.lark", GRAMMAR);
    type Case<'a> = (&'a [&'a str], fn(&str));
    let cases: [Case<'_>; 3] = [
        (&["--json-schema", schema.to_str().unwrap()], fits_schema),
        (&["--regex", "[0-9]{3}-[a-z]{2}"], fits_regex),
        (&["--grammar", grammar.to_str().unwrap()], fits_grammar),
    ];
    for (guide, fits) in cases {
        for more in [&[][..], &["--temperature", "2", "--seed", "4"]] {
            let line = json_line(&engine, &[&PROMPT[..], guide, more].concat());
            fits(line["text"].as_str().unwrap());
            assert_eq!(line["finish_reason"], "end_id", "{guide:?}");
        }
    }
    // Any JSON may be long: until the limit, at least, it is the beginning of some.
    let line = json_line(&engine, &[&PROMPT[..], &["--json"]].concat());
    let text = line["text"].as_str().unwrap();
    match serde_json::from_str::<Value>(text) {
        Ok(_) => {}
        Err(error) => assert!(error.is_eof() && line["finish_reason"] == "length", "{error}: {text}"),
    }
}

#[test]
fn each_line_has_its_own_guide() {
    let engine = demo();
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let lines = [
        json!({"prompt": "Mars", "json_schema": schema}),
        json!({"prompt": "Mars", "json_schema": SCHEMA}),
        json!({"prompt": "Mars", "grammar": GRAMMAR}),
        json!({"prompt": "Mars"}),
        json!({"prompt": "Mars", "json": false, "max_new_tokens": 10}),
    ];
    let (_dir, path) = file("prompts", lines.map(|line| line.to_string()).join("\n"));
    let arguments = ["--prompts", path.to_str().unwrap(), "--regex", "[0-9]{3}-[a-z]{2}"];
    let lines = json_lines(&engine, &[&arguments[..], &PROMPT[2..]].concat());
    let text = |index: usize| lines[index]["text"].as_str().unwrap();
    fits_schema(text(0));
    assert_eq!(text(1), text(0));
    fits_grammar(text(2));
    fits_regex(text(3));
    assert_eq!(lines[4]["output_ids"], {
        json_line(&engine, &["--prompt", "Mars", "--max-new-tokens", "10"])["output_ids"].clone()
    });
}

#[test]
fn guides_exclude_one_another() {
    let engine = demo();
    let (_dir, path) = file("guide", "{}");
    let path = path.to_str().unwrap();
    let guides: [&[&str]; 4] = [&["--json"], &["--json-schema", path], &["--regex", "a"], &["--grammar", path]];
    for (number, first) in guides.iter().enumerate() {
        for second in &guides[number + 1..] {
            let mut command = run_engine(&engine.path, &[&["--prompt", "a"], *first, *second].concat());
            refused(&mut command, 2, &[first[0], second[0], "cannot be used with"]);
        }
    }
}

#[test]
fn guides_that_cannot_be_used_are_named() {
    let engine = demo();
    let (_dir, schema) = file("schema.json", r#"{"type": "#);
    let check = |guide: &[&str], parts: &[&str]| {
        refused(&mut run_engine(&engine.path, &[&["--prompt", "a"], guide].concat()), 2, parts);
    };
    check(&["--regex", "("], &["regex"]);
    check(&["--json-schema", schema.to_str().unwrap()], &["JSON schema"]);
    check(&["--grammar", schema.to_str().unwrap()], &["Lark grammar"]);
    let property = |at: usize| format!("\"p{at}\": {{\"type\": \"integer\"}}");
    let wide =
        format!(r#"{{"type": "object", "properties": {{{}}}}}"#, (0..3000).map(property).collect::<Vec<_>>().join(","));
    let (_dir, wide) = file("wide.json", &wide);
    check(&["--json-schema", wide.to_str().unwrap()], &["JSON schema", "too complex", "simplify"]);
    check(&["--grammar", "/no/such/file"], &["--grammar", "/no/such/file", "cannot read the file"]);
    check(&["--json-schema", "/"], &["--json-schema", "cannot read the file"]);
    // The line is named, and the prompt before it runs.
    let (_dir, path) = file("list.jsonl", "fine\n\n{\"prompt\": \"a\", \"regex\": \"(\"}\n");
    one_of_two_failed(
        &mut run_engine(&engine.path, &["--prompts", path.to_str().unwrap()]),
        &["list.jsonl", "line 3", "regex"],
    );
    refused(
        &mut run_engine(&engine.path, &["--prompt", "a", "--prompt", "b", "--regex", "("]),
        1,
        &["prompt 0", "prompt 1", "2 of 2"],
    );
    // Without a tokenizer nothing is text.
    refused(&mut run_engine(&parity("mistral-gqa").path, &["--prompt-ids", "1", "--json"]), 2, &["tokenizer"]);
}
