use super::*;

const TAKEN: &[&str] = &[
    "true",
    "{}",
    r##"{"type": "object", "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 10}, "b": {"$ref": "#/$defs/b"}}, "required": ["a"], "$defs": {"b": {"type": "string", "pattern": "^[A-Z]{2,3}\\d+(x|y)?$"}}}"##,
    r#"{"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}], "title": "T", "default": null}"#,
    r#"{"type": "array", "items": {"type": "string", "enum": ["a", "b"]}, "minItems": 1, "maxItems": 3}"#,
    r##"{"allOf": [{"$ref": "#/definitions/x"}], "description": "one", "definitions": {"x": {"const": 1}}}"##,
    r#"{"type": ["string", "null"], "maxLength": 5}"#,
    r#"{"type": "object", "additionalProperties": {"type": "number", "exclusiveMinimum": 0.5}}"#,
    r#"{"x-guidance": {"lenient": true}, "type": "string", "not": {"const": "a"}}"#,
];

#[test]
fn schemas_that_it_takes_whole_are_taken() {
    for text in TAKEN {
        let params = GuidedDecodingParams::JsonSchema((*text).to_owned());
        assert_eq!(params.for_xgrammar(), Ok(params), "{text}");
    }
}

#[test]
fn what_it_ignores_or_throws_at_is_refused_by_name() {
    for (schema, said) in [
        (r#"{"type": "integer", "multipleOf": 3}"#, "ignore `multipleOf`"),
        (r#"{"type": "array", "items": {"not": {"type": "string"}}}"#, "ignore `not`"),
        (r#"{"properties": {"a": {"type": "array", "uniqueItems": true}}}"#, "ignore `uniqueItems`"),
        (r#"{"type": "object", "minProperties": 1}"#, "ignore `minProperties`"),
        (r#"{"x-guidance": {"lenient": true}, "type": "object", "minProperties": 1}"#, "`minProperties`"),
        (r#"{"allOf": [{"type": "integer"}, {"minimum": 2}]}"#, "one schema in `allOf`"),
        (r##"{"$ref": "#/$defs/a", "minimum": 2, "$defs": {"a": {"type": "integer"}}}"##, "`minimum` beside `$ref`"),
        (r#"{"anyOf": [{"type": "integer"}], "type": "object"}"#, "`type` beside `anyOf`"),
        (r#"{"minimum": 3}"#, "ignore `minimum` without a `type`: add `\"type\": \"integer\"`"),
        (r#"{"type": "string", "minLength": 2, "pattern": "a"}"#, "`minLength` beside `pattern`"),
        (r#"{"type": "object", "properties": {}, "required": ["b"]}"#, "`b` is required"),
        (r#"{"properties": {"a": false}}"#, "admits nothing"),
        (r#"{"type": "integer", "minimum": 5, "maximum": 2}"#, "nothing is both at least `minimum`"),
        (r#"{"type": "integer", "exclusiveMinimum": 5, "exclusiveMaximum": 6}"#, "nothing is both"),
        (r#"{"type": "integer", "minimum": 1.5}"#, "whole numbers"),
        (r#"{"type": "integer", "maximum": 1e30}"#, "whole numbers up to 1e15"),
        (r#"{"type": "string", "minLength": 5, "maxLength": 2}"#, "`minLength`"),
        (r#"{"type": "array", "items": {"type": "integer"}, "minItems": 5, "maxItems": 2}"#, "`minItems`"),
    ] {
        let error = GuidedDecodingParams::JsonSchema(schema.to_owned()).for_xgrammar().unwrap_err().to_string();
        assert!(error.starts_with("the JSON schema cannot be used: ") && error.contains(said), "{schema}: {error}");
    }
    for (pattern, said) in [
        ("(?i)a", "flags"),
        ("(?i:a)", "flags"),
        (r"\p{L}", r"`\p{…}`"),
        (r"[\p{L}]", r"`\p{…}`"),
        (r"a\b", "look-around"),
        (r"\Aa", "look-around"),
        ("(?P<x>a)", "`(?P<name>…)`"),
        ("[[:alpha:]]", "a class in a class"),
        ("[a-c&&b]", "a class made of two"),
        (r"\x{41}", r"`\x{…}`"),
        (r"\a", "a rare escape"),
        ("a|", "an empty alternative"),
        ("(?:a{2}){3}|a{2}{3}", "a repetition of a repetition"),
    ] {
        for schema in [
            serde_json::json!({"type": "string", "pattern": pattern}),
            serde_json::json!({"patternProperties": {pattern: true}}),
        ] {
            let error = GuidedDecodingParams::JsonSchema(schema.to_string()).for_xgrammar().unwrap_err().to_string();
            assert!(error.contains(said), "{pattern}: {error}");
        }
    }
}

#[test]
fn regexes_and_grammars_become_ebnf() {
    let of = |params: GuidedDecodingParams| match params.for_xgrammar().unwrap() {
        GuidedDecodingParams::EbnfGrammar(text) => text,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        of(GuidedDecodingParams::Regex("a|b.".into())),
        "root ::= (\"a\" | (\"b\" [\\U00000000-\\U00000009\\U0000000b-\\U0010ffff]))\n"
    );
    let grammar = GuidedDecodingParams::grammar("root ::= \"yes\" | \"no\"".into());
    assert_eq!(of(grammar), "root ::= (\"yes\" | \"no\")\n");
    let lark = GuidedDecodingParams::grammar("start: \"::=\"".into());
    assert_eq!(lark, GuidedDecodingParams::LarkGrammar("start: \"::=\"".into()));
    assert!(matches!(lark.for_xgrammar(), Err(CompileError::Unsupported { .. })));
}
