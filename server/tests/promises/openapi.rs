//! The OpenAPI document says what is there: every path, method, field and error code, and nothing else.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value as Json, json};
use server::error::CODES;
use server::fields::Fields;
use server::http::record::Record;
use server::http::routes::{self, Call};
use server::openai::start::Reader;
use server::openai::{messages, policy, prompt};
use server::tgi;
use server::tokens::{self, Handler};

use super::common::client::{get, request};
use super::common::engine::shared;
use super::common::in_process::InProcess;

fn document() -> Json {
    let reply = get(shared().address, "/openapi.json");
    assert_eq!((reply.status, reply.headers["content-type"].as_str()), (200, "application/json"));
    reply.json()
}

/// Follows references.
fn resolve<'a>(document: &'a Json, mut value: &'a Json) -> &'a Json {
    while let Some(reference) = value["$ref"].as_str() {
        value = document.pointer(reference.strip_prefix('#').unwrap()).unwrap_or_else(|| panic!("no {reference}"));
    }
    value
}

/// The paths of a schema's fields, those of objects and lists inside among them.
fn fields(document: &Json, schema: &Json, path: &str, out: &mut BTreeSet<String>) {
    let schema = resolve(document, schema);
    for list in ["allOf", "anyOf", "oneOf"] {
        for part in schema[list].as_array().into_iter().flatten() {
            fields(document, part, path, out);
        }
    }
    if schema["items"].is_object() {
        fields(document, &schema["items"], &format!("{}[].", path.trim_end_matches('.')), out);
    }
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        out.insert(format!("{path}{name}"));
        fields(document, schema, &format!("{path}{name}."), out);
    }
}

fn documented(name: &str) -> BTreeSet<String> {
    let document = document();
    let mut out = BTreeSet::new();
    fields(&document, &document["components"]["schemas"][name], "", &mut out);
    out
}

/// The fields that are read from these bodies.
fn read<T>(reader: Reader<T>, bodies: &[Json]) -> BTreeSet<String> {
    let InProcess { state, .. } = shared();
    let call = Call::new(Arc::new(Record::new("1".to_owned(), "POST", "", false)));
    let model = state.model().unwrap();
    let mut names = BTreeSet::new();
    for body in bodies {
        let mut fields = Fields::new(body.as_object().unwrap().clone());
        reader(&mut fields, model, &call).unwrap_or_else(|error| panic!("{body}: {error:?}"));
        policy::settle(&mut fields).unwrap();
        assert!(fields.left().is_empty(), "{body}");
        names.append(&mut fields.asked());
    }
    names
}

/// Bodies that reach what is read inside objects, beside `field`.
fn bodies(field: &str, value: &Json) -> Vec<Json> {
    let format = |format: Json| json!({ field: value, "response_format": format });
    vec![
        json!({ field: value, "stream": true, "stream_options": {} }),
        format(json!({ "type": "json_schema", "json_schema": { "schema": {} } })),
        format(json!({ "type": "json", "value": {} })),
        format(json!({ "type": "regex", "value": "a" })),
        format(json!({ "type": "grammar", "value": "start: \"a\"" })),
        format(json!({ "type": "choice", "value": ["a"] })),
        json!({ field: value, "structured_outputs": { "regex": "a" } }),
    ]
}

#[test]
fn every_path_and_method_is_in_the_document_and_nothing_else() {
    let document = document();
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let documented: BTreeSet<(String, BTreeSet<String>)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(path, item)| (path.clone(), resolve(&document, item).as_object().unwrap().keys().cloned().collect()))
        .collect();
    let served = routes::paths().map(|(path, methods)| {
        let mut methods: BTreeSet<_> = methods.split(", ").map(str::to_lowercase).collect();
        // As the document says of all of them at once.
        assert!(methods.remove("options"));
        assert_eq!(methods.remove("head"), methods.contains("get"));
        (path.to_owned(), methods)
    });
    assert_eq!(documented, served.collect());
    for (path, _) in &documented {
        assert_eq!(request(shared().address, "OPTIONS", path, &[], "").status, 204, "{path}");
    }
}

#[test]
fn every_field_that_is_read_is_in_the_document_and_nothing_else() {
    assert_eq!(documented("CompletionRequest"), read(prompt::read, &bodies("prompt", &json!("a"))));
    let parts = json!([{ "type": "text", "text": "a" }, { "type": "refusal", "refusal": "a" }]);
    let messages = json!([{ "role": "user", "content": parts }]);
    assert_eq!(documented("ChatCompletionRequest"), read(messages::read, &bodies("messages", &messages)));
}

/// The fields that are read from these bodies, but for those that every body may have.
fn read_tokens(handler: Handler, bodies: &[Json]) -> BTreeSet<String> {
    let state = &shared().state;
    let call = Call::new(Arc::new(Record::new("1".to_owned(), "POST", "", false)));
    let mut names = BTreeSet::new();
    for body in bodies {
        let fields = Fields::new(body.as_object().unwrap().clone());
        let mut asked = tokens::Asked { state, model: state.model().unwrap(), call: &call, fields };
        assert_eq!(handler(&mut asked).unwrap().status(), 200, "{body}");
        names.append(&mut asked.fields.asked());
    }
    &names - &common()
}

/// The fields that every body may have: those that change nothing, and those that are refused.
fn common() -> BTreeSet<String> {
    let mut nothing = Fields::new(serde_json::Map::new());
    policy::settle(&mut nothing).unwrap();
    nothing.asked()
}

#[test]
fn every_field_of_tgi_is_in_the_document_and_nothing_else() {
    let body = |grammar: Json| json!({ "inputs": "a", "parameters": { "grammar": grammar } });
    let bodies = [
        body(json!({ "type": "json", "value": {} })),
        body(json!({ "type": "json_schema", "value": { "schema": {} } })),
        body(json!({ "type": "regex", "value": "a" })),
    ];
    for reader in [tgi::request::whole, tgi::request::stream, tgi::request::root] {
        assert_eq!(documented("GenerateRequest"), &read::<tgi::request::Own>(reader, &bodies) - &common());
    }
}

#[test]
fn every_field_of_tokens_is_in_the_document_and_nothing_else() {
    let texts = [json!({ "prompt": "a" }), json!({ "inputs": "a" })];
    assert_eq!(documented("TokenizeRequest"), read_tokens(tokens::tokenize::answer, &texts));
    assert_eq!(documented("DetokenizeRequest"), read_tokens(tokens::detokenize::answer, &[json!({ "tokens": [1] })]));
}

#[test]
fn every_error_code_is_in_the_document_and_nothing_else() {
    let document = document();
    let codes = document.pointer("/components/schemas/Error/properties/error/properties/code/enum").unwrap();
    assert_eq!(*codes, json!(CODES));
}

#[test]
fn everything_that_the_document_defines_is_used_and_is_there() {
    let document = document();
    let mut used = BTreeSet::new();
    let mut look = vec![&document];
    while let Some(value) = look.pop() {
        match value {
            Json::Object(map) => {
                if value["$ref"].is_string() {
                    resolve(&document, value);
                    used.insert(value["$ref"].as_str().unwrap().to_owned());
                }
                look.extend(map.values());
            }
            Json::Array(list) => look.extend(list),
            _ => {}
        }
    }
    for (kind, defined) in document["components"].as_object().unwrap() {
        for name in defined.as_object().unwrap().keys().filter(|_| kind != "securitySchemes") {
            assert!(used.contains(&format!("#/components/{kind}/{name}")), "{kind} {name}");
        }
    }
}
