use super::*;

fn regex_of(grammar: &str) -> String {
    match parse(grammar).unwrap().for_llguidance() {
        ForLlguidance::Regex(regex) => regex,
        ForLlguidance::Lark(lark) => panic!("{lark}"),
    }
}

#[test]
fn a_grammar_without_recursion_is_one_regex() {
    assert_eq!(regex_of(r#"root ::= "a.b" | "c""#), r"(?:a\.b|c)");
    let grammar = "# a comment\nroot ::= word (\", \" word){0,3} \"\"\nword ::=\n  [a-z\\]-]+ # more\n  | [^\\n]?\n";
    assert_eq!(
        regex_of(grammar),
        r"(?:(?:(?:[\u{61}-\u{7a}\u{5d}\u{2d}])+|(?:[^\u{a}])?))(?:, (?:(?:(?:[\u{61}-\u{7a}\u{5d}\u{2d}])+|(?:[^\u{a}])?))){0,3}"
    );
    assert_eq!(regex_of(r#"root ::= "\u0041\x42\U0001F600\n\"\\" ()"#), "AB\u{1F600}\n\"\\\\");
    let regex_syntax = |grammar| regex_syntax::parse(&regex_of(grammar)).unwrap();
    assert_eq!(regex_syntax(r#"root ::= [a-z]{2} "x"{3,}"#), regex_syntax::parse("[a-z]{2}x{3,}").unwrap());
}

#[test]
fn a_recursive_grammar_is_lark() {
    let lark = parse("root ::= \"(\" root \")\" | leaf\nleaf ::= [0-9]+").unwrap().for_llguidance();
    let expected = "start: rule_0\nrule_0: ((\"(\" rule_0 \")\") | rule_1)\nrule_1: (/[\\u{30}-\\u{39}]/)+\n";
    assert_eq!(lark, ForLlguidance::Lark(expected.to_owned()));
}

#[test]
fn ebnf_is_written_in_one_spelling() {
    let written = parse("b-1 ::= [\"a-c]* root ::=\n b-1 'x'".replace("'x'", "\"\u{e9}\"").as_str()).unwrap().to_ebnf();
    assert_eq!(written, "rule_0 ::= ([\\U00000022a-c])*\nroot ::= (rule_0 \"\\U000000e9\")\n");
    let again = parse(&written).unwrap();
    assert_eq!(again.to_ebnf(), written);
    let regex = of_regex(r"^(?i:a)\d{2}(?P<x>b|)$").unwrap().to_ebnf();
    assert!(regex.starts_with(r#"root ::= ("" [Aa] ([0-9"#) && regex.contains(r"\U00000660-\U00000669"), "{regex}");
    assert!(regex.ends_with("){2,2} (\"b\" | \"\") \"\")\n"), "{regex}");
    assert!(parse(&regex).is_ok());
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    for (grammar, said) in [
        ("", "there is no rule `root`"),
        ("start: \"a\"", "`::=` was expected in line 1"),
        ("root ::= a", "there is no rule `a`"),
        ("root ::= root2\nroot2 ::= \"a\nroot3 ::= \"b\"", "the text's end, `\"`, was expected in line 2"),
        ("root ::= \"a\"\nroot ::= \"b\"", "there twice"),
        ("root ::= (\"a\"", "`)` was expected in line 1, where it ends"),
        ("root ::= \"a\" | ", "a text, a class of characters, a rule or `(` was expected in line 1"),
        ("root ::= /a/", "not '/'"),
        ("root ::= [z-a]", "which is empty"),
        ("root ::= []", "is empty"),
        ("root ::= \"a\"**", "not a second one"),
        ("root ::= \"a\"{3,2}", "from 3 to"),
        ("root ::= \"\\q\"", "a known escape"),
        ("root ::= \"\\uD800\"", "which d800 is not"),
    ] {
        let error = parse(grammar).unwrap_err();
        assert!(error.contains(said), "{grammar}: {error}");
    }
    assert!(parse(&format!("root ::= {}\"a\"{}", "(".repeat(200), ")".repeat(200))).is_err());
}
