//! Guides that cannot be compiled or followed: an error that says why, never a panic, a hang or an exhausted stack.

use std::fmt::Write;

use text::GuidedDecodingParams;
use text::guide::{CompileError, GuideError};

use crate::walk::{Bench, END, Random, draw, logits, walk};

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
        (regex(r"\bword\b"), r"`\b` and `\B` cannot be used"),
        (regex("a^b"), "`^`, `$`"),
        (regex("(?P<stop>a)"), "stop"),
        (regex("[^\\s\\S]"), "no output"),
        (regex(&"a?".repeat(3000)), "simplify"),
        (schema(&wide_object(2900)), "too complex"),
        (schema("{\n \"type\": }"), "it is not JSON at line 2 column 10"),
        (schema("3"), "schema must be an object or boolean"),
        (schema("false"), "nsatisfiable"),
        (schema(r#"{"type": "strin"}"#), "Invalid type: strin"),
        (
            schema(r#"{"if": {}, "then": {}}"#),
            r#"not supported: `if`, `then`; leave it out, or ignore what is not supported with `"x-guidance": {"lenient": true}`"#,
        ),
        (schema(r#"{"not": {"type": "string"}}"#), "it has keywords that are not supported: `not`;"),
        (schema(r#"{"type": "array", "uniqueItems": true}"#), "uniqueItems"),
        (schema(r#"{"type": "object", "unevaluatedProperties": false}"#), "unevaluatedProperties"),
        (schema(r#"{"dependentRequired": {"a": ["b"]}}"#), "dependentRequired"),
        (schema(r#"{"oneOf": [{"type": "null"}, {"maxLength": 2}]}"#), "oneOf"),
        (
            schema(r#"{"type": "string", "format": "colour"}"#),
            r#"Unknown format: colour; leave it out, or ignore what is not supported with `"x-guidance": {"lenient": true}`"#,
        ),
        (schema(r##"{"$ref": "#/$defs/x"}"##), "#/$defs/x"),
        (schema(r##"{"$ref": "#/$defs/a~1b", "$defs": {"a/b": {}}}"##), "rename the definition"),
        (
            schema(r#"{"$ref": "http://example.org/x"}"#),
            "a `$ref` must begin with `#/`, and 'http://example.org/x' does not",
        ),
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
        (GuidedDecodingParams::EbnfGrammar("root ::= rule".to_owned()), "there is no rule `rule`"),
        (GuidedDecodingParams::EbnfGrammar("root ::= root".to_owned()), "no output"),
    ] {
        let error = bench.factory.compile(&params, &[]).unwrap_err();
        let CompileError::Invalid { kind, problem } = &error else { panic!("{params:?}: {error}") };
        assert_eq!(*kind, params.kind());
        assert!(problem.contains(expected), "{params:?}: {problem}");
    }
}

/// A schema of `count` integers, none of them required.
fn wide_object(count: usize) -> String {
    let property = |at: usize| format!("\"property {at}\": {{\"type\": \"integer\"}}");
    format!("{{\"type\": \"object\", \"properties\": {{{}}}}}", (0..count).map(property).collect::<Vec<_>>().join(","))
}

#[test]
fn an_object_of_many_optional_properties_works() {
    let [.., bench] = Bench::all();
    for count in [450, 500, 2400] {
        let mut guide = bench.compile(&schema(&wide_object(count)));
        let complete = |text: &str| serde_json::from_str::<serde_json::Value>(text).is_ok();
        walk(&bench, &mut guide, 3, 60, &complete);
    }
}

#[test]
fn what_becomes_too_complex_on_the_way_says_so() {
    let [.., bench] = Bench::all();
    // Too wide, but only within another object.
    let nested =
        format!("{{\"type\": \"object\", \"properties\": {{\"a\": {}}}, \"required\": [\"a\"]}}", wide_object(2900));
    let mut guide = bench.compile(&schema(&nested));
    let mut random = Random(1);
    let error = loop {
        let mut scores = logits(&bench, &mut random);
        guide.mask(&mut scores).unwrap();
        if let Err(error) = guide.accept(draw(&scores)) {
            break error;
        }
    };
    assert!(matches!(&error, GuideError::TooComplex { problem } if problem.contains("items")), "{error}");
    assert!(error.to_string().contains("simplify"), "{error}");
}

#[test]
fn a_token_that_the_mask_excludes_is_refused_and_leaves_the_guide_as_it_was() {
    let [.., bench] = Bench::all();
    let mut guide = bench.compile(&regex("[0-9]{3}"));
    let [letter, digit] = ['a', '7'].map(|letter| bench.letter(letter)[0]);
    for _ in 0..3 {
        assert_eq!(guide.accept(letter), Err(GuideError::Refused { token: letter }));
        assert_eq!(guide.accept(u32::MAX), Err(GuideError::Refused { token: u32::MAX }));
        guide.accept(digit).unwrap();
    }
    assert!(guide.must_end());
    assert_eq!(guide.accept(digit), Err(GuideError::Over));
}

/// A guide is compiled once: where time is over, one that is known still comes, and another does not.
#[test]
fn what_was_compiled_lately_is_known_by_its_content_and_ends() {
    let [.., bench] = Bench::all();
    let (known, other) = (regex("[ab]+"), regex("[ab]*"));
    let factory = bench.factory;
    factory.compile(&known, &[END]).unwrap();
    let factory = factory.with_deadline(std::time::Duration::ZERO);
    for params in [&known, &known.clone()] {
        factory.compile(params, &[END]).unwrap();
    }
    for (params, end_ids) in [(&other, &[END][..]), (&known, &[]), (&known, &[END, 3])] {
        let error = factory.compile(params, end_ids).unwrap_err().to_string();
        assert!(error.contains("takes longer than 0 s; simplify it"), "{error}");
    }
}

/// `count` definitions, each of them the next one, as `link` writes them.
fn chain(count: usize, link: impl Fn(usize, usize) -> String) -> String {
    (0..count).fold(String::new(), |mut text, at| {
        let _ = write!(text, "{}", link(at, at + 1));
        text
    })
}

/// Follows a guide for some steps; an error is as good as an output here, unless it says that the mask was wrong.
fn follow(bench: &Bench, params: &GuidedDecodingParams) {
    let Ok(mut guide) = bench.factory.compile(params, &[]) else { return };
    let mut random = Random(1);
    for _ in 0..20 {
        let mut scores = logits(bench, &mut random);
        if guide.must_end() || guide.mask(&mut scores).is_err() {
            return;
        }
        match guide.accept(draw(&scores)) {
            Ok(()) => {}
            Err(GuideError::TooComplex { .. }) => return,
            Err(other) => panic!("the mask admitted what was refused: {other}"),
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
