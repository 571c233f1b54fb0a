use serde_json::json;

use super::*;

fn set(name: &str, text: &str) -> Result<GenerationOptions, String> {
    let field = GenerationOptions::FIELDS.iter().find(|field| field.name == name).ok_or("no such option")?;
    let mut options = GenerationOptions::default();
    (field.set)(&mut options, text).map(|()| options)
}

#[test]
fn every_option_is_the_same_as_text_and_as_json() {
    for field in GenerationOptions::FIELDS {
        let (text, json) = match field.name {
            "logit_bias" => ("7=-1.5", json!({"7": -1.5})),
            "early_stopping" => ("never", json!("never")),
            "tools" | "documents" => (r#"[{"a": 1}]"#, json!([{"a": 1}])),
            "chat_template_kwargs" => (r#"{"a": 1}"#, json!({"a": 1})),
            "chat_template" | "system" | "lora" | "regex" | "json_schema" | "grammar" | "bad_words" | "stop" => {
                ("x", json!("x"))
            }
            "skip_special_tokens" | "add_generation_prompt" => ("false", json!(false)),
            _ if field.is_switch() => ("true", json!(true)),
            _ => ("1", json!(1)),
        };
        let from_json: GenerationOptions = serde_json::from_value(json!({ field.name: json }))
            .unwrap_or_else(|error| panic!("{}: {error}", field.name));
        assert_eq!(set(field.name, text), Ok(from_json.clone()), "{}", field.name);
        assert_ne!(from_json, GenerationOptions::default(), "{}", field.name);
        let null: GenerationOptions = serde_json::from_value(json!({ field.name: null })).unwrap();
        assert_eq!(null, GenerationOptions::default(), "{}", field.name);
        assert!(!field.help.trim().is_empty());
    }
}

#[test]
fn exclusive_options_exist_and_give_way_together() {
    for name in GenerationOptions::EXCLUSIVE.into_iter().flatten() {
        assert!(GenerationOptions::FIELDS.iter().any(|field| field.name == *name), "{name}");
    }
    let defaults =
        GenerationOptions { max_length: Some(9), regex: Some("a".into()), seed: Some(3), ..Default::default() };
    let own = GenerationOptions { max_new_tokens: Some(5), json: Some(false), ..Default::default() };
    let both = own.or(&defaults);
    assert_eq!((both.max_new_tokens, both.max_length, both.seed), (Some(5), None, Some(3)));
    assert_eq!(both.guides(), []);
    assert_eq!(GenerationOptions::default().or(&defaults), defaults);
}

#[test]
fn values_that_are_wrong_say_what_is_expected() {
    let check = |name: &str, text: &str, expected: &str| {
        let error = set(name, text).unwrap_err();
        assert!(error.contains(expected), "{error}");
    };
    check("tools", "{}", "must be a JSON list");
    check("chat_template_kwargs", "[", "must be a JSON object");
    check("logit_bias", "5", "ID=BIAS");
    check("logit_bias", "x=1", "`x` is not a token id");
    check("logit_bias", "1=x", "`x` is not a number");
    check("early_stopping", "maybe", "`true`, `false`, `never`");
    check("top_k", "-1", "must be a whole number from 0 to 18446744073709551615");
    check("end_id", "1,x", "`x` is not a token id");
    check("allowed_token_ids", "", "`` is not a token id");
    check("skip_special_tokens", "no", "`true` or `false`");
}

#[test]
fn no_value_is_refused_in_the_terms_of_a_library() {
    let wrong =
        [json!(-1), json!(1.5), json!("x"), json!(true), json!([1]), json!({"a": {}}), json!(1e300), json!([{}])];
    let foreign = ["expected", "invalid", "usize", "u64", "u32", "f32", "u8", "i64", "digit", "literal", "line 1"];
    for field in GenerationOptions::FIELDS {
        for value in &wrong {
            let fields = [(field.name.to_owned(), value.clone())].into_iter().collect();
            let Err(error) = GenerationOptions::from_json(fields) else { continue };
            assert!(error.starts_with(&format!("`{}` must be ", field.name)), "{error}");
            let words = error.split(", not ").next().unwrap();
            assert!(!foreign.iter().any(|foreign| words.contains(foreign)), "{error}");
            assert!(error.contains(&value.to_string()) || error.contains("x`"), "{error} does not repeat {value}");
        }
        for text in ["", "x", "-1", "1.5", "1e400", "99999999999999999999999"] {
            let Err(error) = set(field.name, text) else { continue };
            assert!(!foreign.iter().any(|foreign| error.contains(foreign)), "{}: {error}", field.name);
        }
    }
    let fields = json!({"stop": vec![1; 1000]});
    let error = GenerationOptions::from_json(fields.as_object().unwrap().clone()).unwrap_err();
    assert!(error.len() < 200, "{error}");
}
