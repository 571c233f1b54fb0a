//! Every row of the tables of the tokenizer's files does what it says: a field that is followed changes ids, texts or chats, one
//! that is put aside nothing, one that is refused is refused by name.

use std::fmt::Write;
use std::path::Path;

use engine_format::model_files::{
    ADDED_TOKENS, SPECIAL_TOKENS_MAP, TEMPLATES, TOKEN, TOKENIZER, TOKENIZER_CONFIG, Table, Treatment,
};
use serde_json::{Map, Value, json};
use text::chat::{ChatOptions, ChatTemplate, Message};
use text::tokenizer::Tokenizer;

use crate::support::{fixtures, read_json};

const TEXTS: [&str; 7] = [
    "Hello world 1234",
    " Hello",
    "<s>Hello",
    "a <new> user<new>b",
    "<s> Hello</s> world , .",
    "a\n\nb  c é🙂 </s>",
    "NEW the Two words",
];

/// A model's files: names and contents.
type Files = Map<String, Value>;

/// The files of a fixture, of which the tokenizer has class `class`.
fn base(fixture: &str, class: &str) -> Files {
    let read = |name: &str| (name.to_owned(), read_json(&fixtures().join(fixture).join(name)));
    let mut files: Files = ["tokenizer.json", "tokenizer_config.json"].map(read).into_iter().collect();
    files["tokenizer_config.json"]["tokenizer_class"] = class.into();
    files
}

fn byte_level() -> Files {
    base("tokenizer", "PreTrainedTokenizerFast")
}

/// A tokenizer that is built anew.
fn rebuilt() -> Files {
    base("tokenizer/byte-fallback", "LlamaTokenizer")
}

fn write(files: &Files, dir: &Path) {
    for (name, content) in files {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content.as_str().map_or_else(|| content.to_string(), str::to_owned)).unwrap();
    }
}

/// What a run makes of the files: ids, texts, special tokens and chats; or why it cannot.
fn outcome(files: &Files) -> Result<String, String> {
    let dir = tempfile::tempdir().unwrap();
    write(files, dir.path());
    let tokenizer = Tokenizer::open(dir.path()).map_err(|error| error.to_string())?;
    let mut out = format!("{:?} {:?} {}\n", tokenizer.bos_token(), tokenizer.eos_id(), tokenizer.vocab_size());
    writeln!(out, "{:?}", tokenizer.special_tokens()).unwrap();
    for text in TEXTS {
        let ids = tokenizer.encode(text, true).unwrap();
        let decode = |skip| tokenizer.decode(&ids, skip).unwrap();
        writeln!(out, "{ids:?} {:?} {:?} {:?}", tokenizer.encode(text, false).unwrap(), decode(true), decode(false))
            .unwrap();
    }
    if let Ok(template) = ChatTemplate::open(dir.path()) {
        for name in template.names() {
            let options = ChatOptions { chat_template: Some(name.to_owned()), ..ChatOptions::default() };
            writeln!(out, "{name}: {}", template.render(&[Message::new("user", "Hello")], &options).unwrap().as_str())
                .unwrap();
        }
    }
    Ok(out)
}

/// Checks a row by the files before a field is set and after.
fn check(table: &Table, name: &str, treatment: Treatment, before: &Files, after: &Files, file: &str) {
    let what = format!("{}: {name}", table.name);
    let before = outcome(before).unwrap_or_else(|error| panic!("{what}: {error}"));
    match (treatment, outcome(after)) {
        (Treatment::Refused(_), after) => {
            let error = after.map(|_| what.clone()).unwrap_err();
            assert!(error.contains(file) && error.contains(name), "{what}: {error}");
        }
        (Treatment::Followed, after) => {
            assert!(after.as_ref().is_ok_and(|after| *after != before), "{what}: {after:?}")
        }
        (Treatment::PutAside, after) => assert_eq!(after, Ok(before), "{what}"),
    }
}

/// Sets `field`, a path of keys, of a file, for every pair of name and treatment that `table` has.
fn check_fields(table: &Table, file: &str, case: impl Fn(&str) -> Vec<(Files, Value)>) {
    for field in table.fields {
        for name in field.names {
            for (before, value) in case(name) {
                let mut after = before.clone();
                let mut place = after.entry(file).or_insert(json!({}));
                for key in name.split('.') {
                    place = &mut place[if key == "…_token" { "image_token" } else { key }];
                }
                *place = value;
                check(table, name, field.treatment, &before, &after, file);
            }
        }
    }
}

/// A value for tokenizers of both kinds.
fn everywhere(value: &Value) -> Vec<(Files, Value)> {
    vec![(byte_level(), value.clone()), (rebuilt(), value.clone())]
}

#[test]
fn fields_of_the_tokenizer_do_what_their_rows_say() {
    check_fields(&TOKENIZER, "tokenizer.json", |name| {
        let plain = base("tokenizer/byte-fallback", "");
        let of = |field: &str| plain["tokenizer.json"][field].clone();
        let value = match name {
            "model" => {
                let mut model = of("model");
                model["merges"] = json!([]);
                model
            }
            "normalizer" => json!({"type": "Lowercase"}),
            "pre_tokenizer" => json!({"type": "WhitespaceSplit"}),
            "added_tokens" => {
                let mut tokens = of("added_tokens");
                let flags = json!({"id": 402, "content": "<new>", "single_word": false, "lstrip": false, "rstrip": false,
                                   "normalized": false, "special": true});
                tokens.as_array_mut().unwrap().push(flags);
                tokens
            }
            "post_processor" => Value::Null,
            "decoder" => {
                let mut decoder = of("decoder");
                decoder["decoders"].as_array_mut().unwrap().pop();
                decoder
            }
            "model.dropout" => return everywhere(&json!(0.5)),
            "truncation" => {
                return everywhere(
                    &json!({"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0}),
                );
            }
            "padding" => {
                return everywhere(
                    &json!({"strategy": {"Fixed": 30}, "direction": "Right", "pad_to_multiple_of": null,
                                          "pad_id": 0, "pad_type_id": 0, "pad_token": "<unk>"}),
                );
            }
            "version" => json!("2.0"),
            other => panic!("{other}: a new field needs its case here"),
        };
        vec![(plain, value)]
    });
}

#[test]
fn fields_of_the_configuration_do_what_their_rows_say() {
    let decoder = json!({"700": {"content": "<new>", "special": true}});
    check_fields(&TOKENIZER_CONFIG, "tokenizer_config.json", |name| match name {
        "tokenizer_class" => vec![(base("tokenizer/byte-fallback", ""), json!("LlamaTokenizerFast"))],
        "add_prefix_space" => vec![(rebuilt(), json!(false)), (base("tokenizer", "GPT2Tokenizer"), json!(true))],
        "legacy" => vec![(rebuilt(), json!(true))],
        "chat_template" => everywhere(&json!("{{ messages[0].content }}")),
        "extra_special_tokens" | "additional_special_tokens" => {
            [everywhere(&json!(["<new>"])), everywhere(&json!({"new_token": "<new>"}))].concat()
        }
        "model_specific_special_tokens" => everywhere(&json!({"new_token": "<new>"})),
        "added_tokens_decoder" => everywhere(&decoder),
        name if name.ends_with("_token") && !name.starts_with("add_") => everywhere(&json!("<new>")),
        "split_special_tokens"
        | "fix_mistral_regex"
        | "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output" => everywhere(&json!(true)),
        "add_bos_token" => everywhere(&json!(false)),
        "add_eos_token"
        | "clean_up_tokenization_spaces"
        | "do_lower_case"
        | "from_slow"
        | "is_local"
        | "use_fast"
        | "use_default_system_prompt"
        | "spaces_between_special_tokens" => everywhere(&json!(true)),
        "model_max_length" | "pad_token_type_id" => everywhere(&json!(3)),
        "padding_side" | "truncation_side" => everywhere(&json!("left")),
        "model_input_names" => everywhere(&json!(["input_ids"])),
        "sp_model_kwargs" | "auto_map" => everywhere(&json!({"AutoTokenizer": ["code.Tokenizer", null]})),
        "errors" | "backend" | "name_or_path" | "processor_class" | "tokenizer_file" => everywhere(&json!("strict")),
        other => panic!("{other}: a new field needs its case here"),
    });
}

#[test]
fn fields_of_a_token_do_what_their_rows_say() {
    for field in TOKEN.fields {
        for name in field.names {
            // `normalized` counts where a text is normalized before it is searched.
            let (mut before, content) = match *name {
                "normalized" => (base("tokenizer", ""), "new"),
                _ => (byte_level(), "<new>"),
            };
            if *name == "normalized" {
                before["tokenizer.json"]["normalizer"] = json!({"type": "Lowercase"});
            }
            let token = json!({"content": content, "special": false, "normalized": false});
            before["tokenizer_config.json"]["added_tokens_decoder"] = json!({ "700": token });
            let mut after = before.clone();
            after["tokenizer_config.json"]["added_tokens_decoder"]["700"][*name] = match *name {
                "content" => json!("Two words"),
                "__type" => json!("AddedToken"),
                "special" | "lstrip" | "rstrip" | "single_word" | "normalized" => json!(true),
                other => panic!("{other}: a new field needs its case here"),
            };
            check(&TOKEN, name, field.treatment, &before, &after, "tokenizer_config.json");
        }
    }
}

#[test]
fn the_older_files_do_what_their_rows_say() {
    check_fields(&SPECIAL_TOKENS_MAP, "special_tokens_map.json", |name| match name {
        "extra_special_tokens" | "additional_special_tokens" => everywhere(&json!(["<new>"])),
        name if name.ends_with("_token") => everywhere(&json!("<new>")),
        other => panic!("{other}: a new field needs its case here"),
    });
    // Any name is a token, and the file counts only without `added_tokens_decoder`; so does the other.
    let [row] = ADDED_TOKENS.fields else { panic!("a new row needs its case here") };
    for (file, content) in [
        ("added_tokens.json", json!({"<new>": 700})),
        ("special_tokens_map.json", json!({"eos_token": "<new>", "additional_special_tokens": ["<new>"]})),
    ] {
        for mut before in [byte_level(), rebuilt()] {
            let mut after = before.clone();
            after.insert(file.to_owned(), content.clone());
            check(&ADDED_TOKENS, file, row.treatment, &before, &after, file);
            for files in [&mut before, &mut after] {
                files["tokenizer_config.json"]["added_tokens_decoder"] = json!({});
            }
            check(&ADDED_TOKENS, file, Treatment::PutAside, &before, &after, file);
        }
    }
}

/// The file and the field are named, whatever stands there.
#[test]
fn a_field_that_is_followed_is_refused_when_it_is_of_another_kind() {
    let refused = |file: &str, name: &str, values: &[Value], place: &dyn Fn(Value) -> Value| {
        for value in values {
            let mut files = byte_level();
            let object = files.entry(file).or_insert(json!({}));
            object[name] = place(value.clone());
            let error = outcome(&files).expect_err(name);
            assert!(error.contains(file) && error.contains(name), "{name}: {value}: {error}");
        }
    };
    let followed = |table: &'static Table| {
        let rows = table.fields.iter().filter(|field| field.treatment == Treatment::Followed);
        rows.flat_map(|field| field.names).map(|name| name.replace('…', "image"))
    };
    let wrong = [json!(7), json!(7.5), json!([7]), json!({"a": 7})];
    for name in followed(&TOKENIZER_CONFIG).filter(|name| name != "chat_template") {
        refused("tokenizer_config.json", &name, &wrong, &|value| value);
    }
    for name in followed(&SPECIAL_TOKENS_MAP) {
        refused("special_tokens_map.json", &name, &wrong, &|value| value);
    }
    for name in followed(&TOKEN) {
        refused("tokenizer_config.json", "added_tokens_decoder", &wrong, &|value| {
            let mut token = json!({"content": "<new>"});
            token[&name] = value;
            json!({ "700": token })
        });
    }
    refused("added_tokens.json", "<new>", &[json!("7"), json!(7.5), json!([7])], &|value| value);
}

#[test]
fn unknown_fields_of_every_file_are_put_aside() {
    let tokens = json!({"700": {"content": "<new>", "special": true}});
    for mut before in [byte_level(), rebuilt()] {
        before["tokenizer_config.json"]["chat_template"] = json!("{{ messages }}");
        before.insert("special_tokens_map.json".to_owned(), json!({"pad_token": "<pad>"}));
        // Transformers' library stumbles over one beside the others.
        let mut after = before.clone();
        after["tokenizer.json"]["no_such_field"] = json!({"a": true});
        let error = outcome(&after).unwrap_err();
        assert!(error.contains("tokenizer.json") && error.contains("unknown field `no_such_field`"), "{error}");
        for (file, place) in [
            ("tokenizer.json", "/model"),
            ("tokenizer.json", "/added_tokens/0"),
            ("tokenizer_config.json", ""),
            ("special_tokens_map.json", ""),
        ] {
            let mut after = before.clone();
            after[file].pointer_mut(place).unwrap()["no_such_field"] = json!({"a": true});
            check(&TOKENIZER, &format!("no_such_field of {file}{place}"), Treatment::PutAside, &before, &after, file);
        }
        before["tokenizer_config.json"]["added_tokens_decoder"] = tokens.clone();
        let mut after = before.clone();
        after["tokenizer_config.json"]["added_tokens_decoder"]["700"]["no_such_field"] = json!(true);
        check(&TOKEN, "no_such_field", Treatment::PutAside, &before, &after, "");
    }
}

/// Templates, in the order in which they count: each is used, and puts aside those after it.
#[test]
fn template_files_do_what_their_rows_say() {
    let mut files = byte_level();
    for field in TEMPLATES.fields.iter().rev() {
        for name in field.names {
            let name = name.replace('…', "rag");
            let text = format!("{name}: {{{{ messages[0].content }}}}");
            let text = if name.ends_with(".json") { json!({ "chat_template": text }) } else { json!(text) };
            let mut after = files.clone();
            after.insert(name.clone(), text);
            check(&TEMPLATES, &name, field.treatment, &files, &after, &name);
            files = after;
        }
    }
    let mut after = files.clone();
    after["chat_template.json"]["chat_template"] = json!("other");
    after["tokenizer_config.json"]["chat_template"] = json!("other");
    check(&TEMPLATES, "what comes later", Treatment::PutAside, &files, &after, "");
}
