//! Lark grammars, against parsers written for these tests.

use text::GuidedDecodingParams;

use crate::walk::{Bench, END, walks};

fn lark(text: &str) -> GuidedDecodingParams {
    GuidedDecodingParams::LarkGrammar(text.to_owned())
}

#[test]
fn what_stops_a_rule_stays_in_the_text() {
    let grammar = "start: line \"!\"\nline[stop=\";\"]: /[a-z]{0,5}/";
    let fits = |text: &str| {
        let letters = text.strip_suffix(";!");
        letters.is_some_and(|letters| letters.len() <= 5 && letters.bytes().all(|byte| byte.is_ascii_lowercase()))
    };
    let finished = walks(&lark(grammar), 20, &fits);
    assert_eq!(finished, 60);
}

/// `sum: product ("+" product)*`, `product: atom ("*" atom)*`, `atom: DIGITS | "(" sum ")"`; what is left of `text`.
fn sum(text: &str) -> Option<&str> {
    let mut rest = product(text)?;
    while let Some(more) = rest.strip_prefix('+') {
        rest = product(more)?;
    }
    Some(rest)
}

fn product(text: &str) -> Option<&str> {
    let mut rest = atom(text)?;
    while let Some(more) = rest.strip_prefix('*') {
        rest = atom(more)?;
    }
    Some(rest)
}

fn atom(text: &str) -> Option<&str> {
    if let Some(inner) = text.strip_prefix('(') {
        return sum(inner)?.strip_prefix(')');
    }
    let rest = text.trim_start_matches(|letter: char| letter.is_ascii_digit());
    (1..=3).contains(&(text.len() - rest.len())).then_some(rest)
}

#[test]
fn sums() {
    let grammar = r#"
        start: sum
        sum: product | sum "+" product
        product: atom | product "*" atom
        atom: DIGITS | "(" sum ")"
        DIGITS: /[0-9]{1,3}/
    "#;
    let finished = walks(&lark(grammar), 20, &|text| sum(text) == Some(""));
    assert!(finished >= 30, "only {finished} of 60 came to an end");
}

#[test]
fn brackets_balance() {
    let balanced = |text: &str| {
        let mut open = Vec::new();
        let fits = text.chars().all(|letter| match letter {
            '[' | '<' => {
                open.push(letter);
                true
            }
            _ => open.pop() == Some(if letter == ']' { '[' } else { '<' }),
        });
        fits && open.is_empty() && !text.is_empty()
    };
    let finished = walks(&lark(r#"start: ("[" start? "]" | "<" start? ">")+"#), 20, &balanced);
    assert!(finished >= 20, "only {finished} of 60 came to an end");
}

#[test]
fn schemas_and_regexes_within_a_grammar() {
    let grammar = "start: /[A-Z]{2}/ \": \" value\nvalue: %json {\"enum\": [1, \"two\", [3]]}";
    let values = ["1", "\"two\"", "[3]"];
    let fits = |text: &str| {
        let (name, value) = text.split_once(": ").unwrap_or_default();
        name.len() == 2 && name.bytes().all(|byte| byte.is_ascii_uppercase()) && {
            let bare: String = value.chars().filter(|letter| !letter.is_whitespace()).collect();
            values.contains(&bare.as_str())
        }
    };
    let finished = walks(&lark(grammar), 20, &fits);
    assert!(finished >= 50, "only {finished} of 60 came to an end");
}

#[test]
fn a_special_token_comes_only_where_a_grammar_names_its_id() {
    for bench in Bench::all() {
        // 1 is the token that begins a prompt.
        let mut guide = bench.compile(&lark("start: \"a\" <[1]> \"b\""));
        let (a, b) = (bench.letter('a'), bench.letter('b'));
        assert_eq!(bench.allowed(&mut guide), a);
        guide.accept(a[0]).unwrap();
        assert_eq!(bench.allowed(&mut guide), [1]);
        guide.accept(1).unwrap();
        assert_eq!(bench.allowed(&mut guide), b);
        guide.accept(b[0]).unwrap();
        assert_eq!(bench.allowed(&mut guide), [END]);
        assert_eq!(bench.text(&[a[0], 1, b[0], END]), "ab");
        // No text spells one, not even bytes that are no text.
        let mut guide = bench.compile(&lark("%llguidance {\"allow_invalid_utf8\": true}\nstart: /(?s-u:.)+/"));
        let special = |id: &u32| bench.tokenizer.is_special(*id);
        assert!(!bench.allowed(&mut guide).iter().any(special));
    }
}
