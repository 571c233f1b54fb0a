//! Stop strings against a search in the whole text.

use proptest::prelude::*;
use text::stop_strings::{Emit, StopSearch, StopStringError, StopStrings};
use text::tokenizer::Tokenizer;

use crate::support::fixtures;

/// The definition: the shortest beginning of the text that ends with a stop string, cut before the longest such one.
fn naive(stops: &[String], text: &str) -> (String, Option<usize>) {
    let ends = (0..=text.len()).filter(|&end| text.is_char_boundary(end));
    for end in ends {
        let found = stops.iter().enumerate().filter(|(_, stop)| text[..end].ends_with(stop.as_str()));
        // Of equal ones the first.
        if let Some((index, stop)) = found.rev().max_by_key(|(_, stop)| stop.len()) {
            let first = stops.iter().position(|other| other == stop).unwrap_or(index);
            return (text[..end - stop.len()].to_owned(), Some(first));
        }
    }
    (text.to_owned(), None)
}

fn owned(stops: &[&str]) -> Vec<String> {
    stops.iter().map(|&stop| stop.to_owned()).collect()
}

fn search(stops: Vec<String>) -> StopSearch {
    StopSearch::in_text(StopStrings::new(stops).unwrap())
}

#[test]
fn only_what_may_begin_a_stop_string_is_held() {
    let mut stops = search(owned(&["</end>", "\n\nQ"]));
    let mut push = |delta: &str| {
        let Emit { text, stopped } = stops.push(delta);
        (text, stopped)
    };
    assert_eq!(push("one <"), ("one ".to_owned(), None));
    assert_eq!(push("b>two</"), ("<b>two".to_owned(), None));
    assert_eq!(push("en"), (String::new(), None));
    assert_eq!(push("emy\n"), ("</enemy".to_owned(), None));
    assert_eq!(push("\n"), (String::new(), None));
    assert_eq!(push("\n"), ("\n".to_owned(), None), "the second and third blank line may still begin it");
    assert_eq!(push("Q: more"), (String::new(), Some(1)));
    assert_eq!(push("ignored"), (String::new(), Some(1)));
    assert_eq!(stops.finish(), "");
    assert_eq!(stops.stopped(), Some(1));
}

#[test]
fn the_end_gives_back_what_was_held() {
    let mut stops = search(owned(&["stop"]));
    assert_eq!(stops.push("a sto").text, "a ");
    assert_eq!(stops.finish(), "sto");
    assert_eq!(stops.stopped(), None);
}

/// Text and special tokens as a stream has them: `<4>` is the special token 4.
fn signs(search: &mut StopSearch, shown: bool, pieces: &[&str]) -> (String, Option<usize>) {
    let (mut text, mut stopped) = (String::new(), None);
    for piece in pieces {
        let emit = match *piece {
            "[INST]" => search.push_special(3, if shown { piece } else { "" }),
            "[/INST]" => search.push_special(4, if shown { piece } else { "" }),
            other => search.push(other),
        };
        text.push_str(&emit.text);
        stopped = emit.stopped;
        if stopped.is_some() {
            break;
        }
    }
    text.push_str(&search.finish());
    (text, stopped)
}

#[test]
fn special_tokens_in_a_stop_string_are_found_by_their_ids() {
    let tokenizer = Tokenizer::open(&fixtures().join("tokenizer")).unwrap();
    assert_eq!(tokenizer.token_to_id("[INST]"), Some(3));
    let check = |stops: &[&str], shown: bool, pieces: &[&str], expected: (&str, Option<usize>)| {
        let stops = StopStrings::new(owned(stops)).unwrap();
        for included in [false, true] {
            let mut search = StopSearch::new(stops.clone().included(included), &tokenizer, shown);
            let kept = expected.1.filter(|_| included).map(|stop| stops.texts()[stop].clone()).unwrap_or_default();
            let given = signs(&mut search, shown, pieces);
            assert_eq!(given, (format!("{}{kept}", expected.0), expected.1), "{stops:?} {shown} {pieces:?}");
        }
    };
    for shown in [false, true] {
        check(&["[INST]"], shown, &["ab", "[INST]", "c"], ("ab", Some(0)));
        check(&["\n[INST]", "x"], shown, &["ab", "\n", "[INST]"], ("ab", Some(0)));
        check(&["b[INST]c"], shown, &["ab", "[INST]", "cd"], ("a", Some(0)));
        check(
            &["[/INST][INST]"],
            shown,
            &["[/INST]", "[/INST]", "[INST]"],
            (if shown { "[/INST]" } else { "" }, Some(0)),
        );
        // Written out in letters it is a stop text too; another special token between its parts is none of it.
        check(&["[INST]"], shown, &["a[IN", "ST]b"], ("a", Some(0)));
        check(&["b[INST]"], shown, &["b", "[/INST]", "[INST]"], (if shown { "b[/INST][INST]" } else { "b" }, None));
        // The text before may be part of a longer one.
        check(&["é[INST]", "[INST]"], shown, &["é", "[INST]"], ("", Some(0)));
    }
    // A hidden special token does not part a text.
    check(&["abc"], false, &["xab", "[INST]", "cd"], ("x", Some(0)));
    check(&["abc"], true, &["xab", "[INST]", "cd"], ("xab[INST]cd", None));
    check(&["NST]c"], true, &["xab", "[INST]", "cd"], ("xab[I", Some(0)));
}

#[test]
fn an_empty_stop_string_is_refused() {
    let error = StopStrings::new(owned(&["x", ""])).unwrap_err();
    assert_eq!(error, StopStringError::Empty { number: 2 });
    assert!(error.to_string().contains("number 2 is empty"));
}

#[test]
fn without_stop_strings_all_passes() {
    let mut stops = search(Vec::new());
    assert_eq!(stops.push("anything"), Emit { text: "anything".to_owned(), stopped: None });
}

#[test]
fn time_is_linear_in_the_text() {
    // Single characters against a long stop string of the same: quadratic work would be 10^10 steps.
    let mut stops = search(vec!["a".repeat(100_000) + "b"]);
    let mut given = 0;
    for _ in 0..300_000 {
        given += stops.push("a").text.len();
    }
    assert_eq!(given, 200_000);
    assert_eq!(stops.finish().len(), 100_000);
}

fn text(alphabet: &'static [&'static str], length: std::ops::Range<usize>) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(alphabet), length).prop_map(|parts| parts.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_cut_into_pieces_stops_where_the_whole_text_does(
        stops in prop::collection::vec(text(&["a", "b", "é", "🪐"], 1..5), 0..4),
        pieces in prop::collection::vec(text(&["a", "a", "b", "é", "è", "🪐"], 0..4), 0..12),
    ) {
        let whole = pieces.concat();
        let mut matcher = search(stops.clone());
        let mut given = String::new();
        let mut stopped = None;
        for piece in &pieces {
            let emit = matcher.push(piece);
            given.push_str(&emit.text);
            stopped = emit.stopped;
            prop_assert!(whole.starts_with(&given));
        }
        given.push_str(&matcher.finish());
        prop_assert_eq!((given, stopped), naive(&stops, &whole));
    }

    #[test]
    fn nothing_is_held_that_cannot_become_a_stop_string(
        stops in prop::collection::vec(text(&["a", "b", "é"], 1..5), 1..4),
        whole in text(&["a", "b", "é"], 0..12),
    ) {
        let mut matcher = search(stops.clone());
        let emit = matcher.push(&whole);
        if emit.stopped.is_none() {
            let held = &whole[emit.text.len()..];
            prop_assert!(held.is_empty() || stops.iter().any(|stop| stop.starts_with(held)));
        }
    }
}
