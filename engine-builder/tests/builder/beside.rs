//! The files beside the weights: each is opened by the build as a run opens it, and each travels into the engine.

use std::fs;
use std::path::Path;

use engine_builder::Source;
use engine_format::EngineDir;
use engine_format::engine_dir::COMPANION_FILES;

use crate::support::{Model, TOKENIZER, build, entries};

const BY_NAME: &str = "additional_chat_templates/rag.jinja";
const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n";
const PAGE: &str = "<!DOCTYPE html>\n<title>Log in";

/// A tiny model with a tokenizer.
fn model() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    Model::tiny().write(dir.path());
    put(dir.path(), "tokenizer.json", TOKENIZER);
    dir
}

fn put(dir: &Path, name: &str, content: &str) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// Every file that a run may read, with content that it can use.
fn whole(name: &str) -> &'static str {
    match name {
        "tokenizer.json" => TOKENIZER,
        "tokenizer_config.json" => r#"{"eos_token": "a"}"#,
        "special_tokens_map.json" => r#"{"pad_token": "a"}"#,
        "added_tokens.json" => r#"{"b": 1}"#,
        "chat_template.jinja" | BY_NAME => "{{ messages[0].content }}",
        "chat_template.json" => r#"{"chat_template": "{{ messages }}"}"#,
        "generation_config.json" => r#"{"eos_token_id": [0]}"#,
        other => panic!("{other}: a new file needs its content here"),
    }
}

fn every_file() -> impl Iterator<Item = &'static str> {
    COMPANION_FILES.into_iter().chain([BY_NAME])
}

#[test]
fn every_file_travels_into_the_engine_as_it_is() {
    let (model, out) = (model(), tempfile::tempdir().unwrap());
    every_file().for_each(|name| put(model.path(), name, whole(name)));
    put(model.path(), "additional_chat_templates/notes.txt", "no template");
    assert_eq!(Source::open(model.path()).unwrap().warnings(), [""; 0]);
    let engine = out.path().join("engine");
    build(model.path(), &engine).unwrap();
    for name in every_file() {
        assert_eq!(fs::read_to_string(engine.join(name)).unwrap(), whole(name), "{name}");
        assert!(EngineDir::open(&engine).unwrap().has_file(name), "{name}");
    }
    assert_eq!(entries(&engine.join("additional_chat_templates")), ["rag.jinja"]);
    put(&engine, BY_NAME, "{{ messages[1].content }}");
    let error = EngineDir::open(&engine).unwrap_err().to_string();
    assert!(error.contains(BY_NAME), "{error}");
}

#[test]
fn a_broken_file_ends_the_build_with_its_name() {
    for name in every_file() {
        let refused = |what: &str, damage: &dyn Fn(&Path), words: &[&str]| {
            let model = model();
            damage(model.path());
            let error = Source::open(model.path()).expect_err(&format!("{name}: {what}")).to_string();
            let last = name.rsplit('/').next().unwrap();
            assert!([&[last], words].concat().iter().all(|word| error.contains(word)), "{name}: {what}: {error}");
        };
        let content = |content: &'static str| move |dir: &Path| put(dir, name, content);
        refused("a pointer", &content(POINTER), &["Git LFS pointer", "git lfs pull"]);
        refused("a page", &content(PAGE), &["HTML page"]);
        let folder = |dir: &Path| {
            let _ = fs::remove_file(dir.join(name));
            fs::create_dir_all(dir.join(name)).unwrap();
        };
        refused("a folder", &folder, &["directory"]);
        if name.ends_with(".json") {
            refused("cut short", &content(r#"{"version": "#), &[]);
            refused("empty", &content(""), &[]);
            refused("a list", &content("[]"), &[]);
        }
    }
}

/// What leaves an engine that is good for something is a warning, and names the file all the same.
#[test]
fn what_only_text_or_chat_needs_is_a_warning_with_the_file() {
    let tokenizer = |field: &str, value: &str| TOKENIZER.replacen('{', &format!("{{\"{field}\": {value}, "), 1);
    let cases = [
        (
            "tokenizer.json",
            tokenizer(
                "decoder",
                r#"{"type": "CTC", "pad_token": "<pad>", "word_delimiter_token": "|", "cleanup": true}"#,
            ),
            "token ids only",
        ),
        ("chat_template.jinja", "{% for %}".to_owned(), "cannot chat"),
        (BY_NAME, "{% for %}".to_owned(), "cannot chat"),
        ("tokenizer_config.json", r#"{"chat_template": "{% for %}"}"#.to_owned(), "cannot chat"),
        ("tokenizer_config.json", r#"{"chat_template": 3}"#.to_owned(), "cannot chat"),
        ("chat_template.json", r#"{"chat_template": "{% for %}"}"#.to_owned(), "cannot chat"),
    ];
    for (name, content, words) in cases {
        let model = model();
        put(model.path(), name, &content);
        let source = Source::open(model.path()).unwrap();
        let told = source.warnings().iter().any(|warning| warning.contains(name) && warning.contains(words));
        assert!(told, "{name}: {content}: {:?}", source.warnings());
    }
    let model = model();
    fs::remove_file(model.path().join("tokenizer.json")).unwrap();
    let source = Source::open(model.path()).unwrap();
    assert!(source.warnings()[0].contains("tokenizer.json"), "{:?}", source.warnings());
}

/// Parts of `tokenizer.json` that a run would stumble over.
#[test]
fn every_part_of_the_tokenizer_is_looked_at() {
    let parts = [
        ("decoder", r#"{"type": "NoSuch"}"#),
        ("normalizer", r#"{"type": "Replace", "pattern": {"Regex": "("}, "content": ""}"#),
        ("pre_tokenizer", r#"{"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": false}"#),
        ("post_processor", r#"{"type": "TemplateProcessing", "single": [], "pair": [], "special_tokens": {}}"#),
        ("added_tokens", r#"[{"id": "0"}]"#),
    ];
    for (field, value) in parts {
        let model = model();
        put(model.path(), "tokenizer.json", &TOKENIZER.replacen('{', &format!("{{\"{field}\": {value}, "), 1));
        let error = Source::open(model.path()).expect_err(field).to_string();
        assert!(error.contains("tokenizer.json"), "{field}: {error}");
    }
}
