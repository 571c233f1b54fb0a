//! Guides that cannot be compiled or followed: an error that says why, never a panic, a hang or an exhausted stack.

use std::fmt::Write;

use text::GuidedDecodingParams;
use text::guide::CompileError;

use crate::walk::{Bench, Random, draw, logits};

fn regex(text: &str) -> GuidedDecodingParams {
    GuidedDecodingParams::Regex(text.to_owned())
}

fn schema(text: &str) -> GuidedDecodingParams {
    GuidedDecodingParams::JsonSchema(text.to_owned())
}

fn lark(text: &str) -> GuidedDecodingParams {
    GuidedDecodingParams::LarkGrammar(text.to_owned())
}

#[test]
fn what_is_wrong_and_where() {
    let [.., bench] = Bench::all();
    for (params, expected) in [
        (regex("abc(de"), "    abc(de\n       ^\nerror: unclosed group"),
        (regex("abc\\"), "incomplete escape"),
        (regex("a(?=b)"), "look-around"),
        (regex(r"(a)\1"), "backreferences"),
        (regex(r"(?-u:\xff)"), "invalid UTF-8"),
        (regex(r"\bword\b"), "lookarounds"),
        (regex("a^b"), "lookarounds"),
        (regex("(?P<stop>a)"), "stop"),
        (regex("[^\\s\\S]"), "no output"),
        (regex(&"a?".repeat(3000)), "simplify"),
        (schema("{\n \"type\": }"), "not JSON: expected value at line 2 column 10"),
        (schema("3"), "schema must be an object or boolean"),
        (schema("false"), "nsatisfiable"),
        (schema(r#"{"type": "strin"}"#), "Invalid type: strin"),
        (schema(r#"{"if": {}, "then": {}}"#), r#"["if", "then"]"#),
        (schema(r#"{"not": {"type": "string"}}"#), r#"["not"]"#),
        (schema(r#"{"type": "array", "uniqueItems": true}"#), "uniqueItems"),
        (schema(r#"{"type": "object", "unevaluatedProperties": false}"#), "unevaluatedProperties"),
        (schema(r#"{"dependentRequired": {"a": ["b"]}}"#), "dependentRequired"),
        (schema(r#"{"oneOf": [{"type": "null"}, {"maxLength": 2}]}"#), "oneOf"),
        (schema(r#"{"type": "string", "format": "colour"}"#), "colour"),
        (schema(r##"{"$ref": "#/$defs/x"}"##), "#/$defs/x"),
        (schema(r#"{"$ref": "http://example.org/x"}"#), "http://example.org/x"),
        (schema(r##"{"$ref": "#"}"##), "no output"),
        (schema(r#"{"type": "integer", "minimum": 5, "maximum": 2}"#), "minimum (5)"),
        (schema(r#"{"type": "string", "pattern": "(ab"}"#), "unclosed group"),
        (lark(""), "no start rule"),
        (lark("start: other\nthird: \"x\""), "\"other\"\n   1 | start: other\n              ^"),
        (lark("start: \"a\" |\n  ) b"), "2(3)"),
        (lark("start: start"), "no output"),
        (lark("start: @other"), "@other"),
        (lark("start: \"a\" <s>"), "written by their ids"),
        (lark("start: <[99999999]>"), "99999999"),
    ] {
        let error = bench.factory.compile(&params, &[]).unwrap_err();
        let CompileError::Invalid { kind, problem } = &error else { panic!("{params:?}: {error}") };
        assert_eq!(*kind, params.kind());
        assert!(problem.contains(expected), "{params:?}: {problem}");
    }
    let ebnf = GuidedDecodingParams::EbnfGrammar("root ::= \"a\"".to_owned());
    let error = bench.factory.compile(&ebnf, &[]).unwrap_err();
    assert!(error.to_string().contains("EBNF grammar (use a Lark grammar)"), "{error}");
}

/// `count` definitions, each of them the next one, as `link` writes them.
fn chain(count: usize, link: impl Fn(usize, usize) -> String) -> String {
    (0..count).fold(String::new(), |mut text, at| {
        let _ = write!(text, "{}", link(at, at + 1));
        text
    })
}

/// Follows a guide for some steps; an error is as good as an output here.
fn follow(bench: &Bench, params: &GuidedDecodingParams) {
    let Ok(mut guide) = bench.factory.compile(params, &[]) else { return };
    let mut random = Random(1);
    for _ in 0..20 {
        let mut scores = logits(bench, &mut random);
        if guide.must_end() || guide.mask(&mut scores).is_err() || guide.accept(draw(&scores)).is_err() {
            return;
        }
    }
}

#[test]
fn a_runaway_grammar_comes_back() {
    let [.., bench] = Bench::all();
    let rules = chain(2300, |at, next| format!("r{at}: r{next}\n"));
    let tokens = chain(1500, |at, next| format!("R{at}: R{next} \"x\"\n"));
    let reference = |at, next| format!("\"{at}\": {{\"$ref\": \"#/$defs/{next}\"}},");
    let sum = |at, next| format!("\"{at}\": {{\"allOf\": [{{\"$ref\": \"#/$defs/{next}\"}}, {{\"maxLength\": 5}}]}},");
    let list = |at, next| format!("\"{at}\": {{\"items\": {{\"$ref\": \"#/$defs/{next}\"}}}},");
    let defined = |count, link: &dyn Fn(usize, usize) -> String| {
        format!(
            "{{\"$ref\": \"#/$defs/0\", \"$defs\": {{{} \"{count}\": {{\"type\": \"string\"}}}}}}",
            chain(count, link)
        )
    };
    let deep = |name: &str, open: &str, next: usize, close: &str| {
        format!("{name}{}{{\"$ref\":\"#/$defs/{next}\"}}{},", open.repeat(50), close.repeat(50))
    };
    let inner = chain(400, |at, next| format!("r{at}:{}r{next}{}\n", "(".repeat(28), ")".repeat(28)));
    let nested = |open: &str, close: &str| format!("{}\"a\"{}", open.repeat(5000), close.repeat(5000));
    for params in [
        regex("((a{1,1000}){1,1000}){1,1000}"),
        regex("(a|b)*a(a|b){40}c"),
        regex("(.*a){50}.{500}"),
        regex("(.*a.*|.*b.*){1,90}x.{1,400}y"),
        regex(&"a?".repeat(4000)),
        regex(&"(a|ab)*".repeat(500)),
        regex(&nested("(", ")")),
        schema(&nested("[", "]")),
        schema(r#"{"type": "string", "maxLength": 100000000}"#),
        schema(r#"{"type": "array", "minItems": 100000000}"#),
        schema(&defined(3500, &reference)),
        schema(&defined(2000, &sum)),
        schema(&defined(2500, &list)),
        schema(&defined(60, &|at, next| deep(&format!("\"{at}\":"), "{\"items\":", next, "}"))),
        schema(&defined(60, &|at, next| deep(&format!("\"{at}\":"), "{\"anyOf\":[", next, "]}"))),
        schema(&defined(60, &|at, next| deep(&format!("\"{at}\":"), "{\"allOf\":[{},", next, "]}"))),
        lark(&format!("start: r0\n{rules}r2300: \"a\"")),
        lark(&format!("start: R0\n{tokens}R1500: \"a\"")),
        lark(&format!("start: r0\n{inner}r400: \"a\"")),
        lark(&format!("start: {}", nested("(", ")"))),
        lark("start: x{100,200}\nx: \"a\" | \"a\" x | x \"a\" | "),
        lark("start: ((\"a\"{1,10000}){1,10000}){1,10000}"),
        lark("start: start start | start | \"a\" | "),
    ] {
        follow(&bench, &params);
    }
}

#[test]
fn what_is_too_long_is_refused() {
    let [bench, ..] = Bench::all();
    let long = "a".repeat(200_000);
    let string = format!("{{\"enum\": [\"{}\"]}}", &long[..20_000]);
    for params in [regex(&long), schema(&long), schema(&string), lark(&long)] {
        let error = bench.factory.compile(&params, &[]).unwrap_err().to_string();
        assert!(error.contains("are refused"), "{error}");
    }
}
