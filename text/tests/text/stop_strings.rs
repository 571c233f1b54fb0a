//! Stop strings against a search in the whole text.

use proptest::prelude::*;
use text::stop_strings::{Emit, StopStringError, StopStrings};

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

#[test]
fn only_what_may_begin_a_stop_string_is_held() {
    let mut stops = StopStrings::new(owned(&["</end>", "\n\nQ"])).unwrap();
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
    let mut stops = StopStrings::new(owned(&["stop"])).unwrap();
    assert_eq!(stops.push("a sto").text, "a ");
    assert_eq!(stops.finish(), "sto");
    assert_eq!(stops.stopped(), None);
}

#[test]
fn an_empty_stop_string_is_refused() {
    let error = StopStrings::new(owned(&["x", ""])).unwrap_err();
    assert_eq!(error, StopStringError::Empty { number: 2 });
    assert!(error.to_string().contains("number 2 is empty"));
}

#[test]
fn without_stop_strings_all_passes() {
    let mut stops = StopStrings::new(Vec::new()).unwrap();
    assert_eq!(stops.push("anything"), Emit { text: "anything".to_owned(), stopped: None });
}

#[test]
fn time_is_linear_in_the_text() {
    // Single characters against a long stop string of the same: quadratic work would be 10^10 steps.
    let mut stops = StopStrings::new(vec!["a".repeat(100_000) + "b"]).unwrap();
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
        let mut matcher = StopStrings::new(stops.clone()).unwrap();
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
        let mut matcher = StopStrings::new(stops.clone()).unwrap();
        let emit = matcher.push(&whole);
        if emit.stopped.is_none() {
            let held = &whole[emit.text.len()..];
            prop_assert!(held.is_empty() || stops.iter().any(|stop| stop.starts_with(held)));
        }
    }
}
