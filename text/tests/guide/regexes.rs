//! Regular expressions, against the regex crate and against plain lists of words.

use regex::Regex;
use text::{GuidedDecodingParams, TokenId};

use crate::walk::{Bench, END, Random, draw, logits, walks};

fn check(pattern: &str) {
    let whole = Regex::new(&format!(r"\A(?:{pattern})\z")).unwrap();
    let params = GuidedDecodingParams::Regex(pattern.to_owned());
    let finished = walks(&params, 20, &|text| whole.is_match(text));
    assert!(finished >= 30, "{pattern}: only {finished} of 60 came to an end");
}

#[test]
fn outputs_match_as_a_whole() {
    for pattern in [
        "",
        "yes|no",
        "[0-9]{3}-[0-9]{4}",
        r"-?(0|[1-9]\d*)(\.\d+)?",
        "(19|20)[0-9]{2}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])",
        "[A-Z][a-z]{1,8}( [A-Z][a-z]{1,8}){0,3}",
        "(ab|c){2,5}d?",
        " ?the (sun|moon)",
        "  two blanks",
        "a/b\\/c",
        r#""[^"\\]{0,6}""#,
        "(?i)earth",
        "line\\nfeed\n",
        "[αβγ]{1,4}",
        "(🪐|é|日本){1,3}",
        "[^a-z]{0,4}",
        ".{0,5}",
        "(?s).{0,5}",
        "^anchored$",
        r"\p{Lu}\w{0,3}",
        r"(?-u:\d){2,4}",
        "x*",
    ] {
        check(pattern);
    }
}

/// A token's bytes as its own spelling says them, worked out without the tokenizer's decoder.
fn bytes_by_spelling(bench: &Bench, id: TokenId) -> Option<Vec<u8>> {
    if bench.tokenizer.is_special(id) {
        return None;
    }
    let spelling = bench.tokenizer.id_to_token(id)?;
    if bench.name.ends_with("byte-fallback") {
        if let Some(byte) = spelling.strip_prefix("<0x").and_then(|digits| digits.strip_suffix('>')) {
            return Some(vec![u8::from_str_radix(byte, 16).unwrap()]);
        }
        return Some(spelling.replace('▁', " ").into_bytes());
    }
    // GPT-2's letters for bytes: those that print stand for themselves, the rest begin at U+0100.
    let prints = |byte: u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let others: Vec<u8> = (0..=255).filter(|&byte| !prints(byte)).collect();
    let byte = |letter: char| match u32::from(letter) {
        code @ 0..=255 => code as u8,
        code => others[code as usize - 256],
    };
    Some(spelling.chars().map(byte).collect())
}

#[test]
fn every_token_that_fits_is_allowed_and_no_other() {
    let words = ["the", "there", "th", "a sun", " a sun", "sun\n", "日本", "日本語", "🪐", "é", "", "\0x"];
    let pattern = words.map(regex::escape).join("|");
    for bench in Bench::all() {
        let spelled: Vec<_> = (0..bench.vocab_size as TokenId).map(|id| bytes_by_spelling(&bench, id)).collect();
        let start = bench.compile(&GuidedDecodingParams::Regex(pattern.clone()));
        for seed in 0..60 {
            let (mut guide, mut random, mut so_far) = (start.clone(), Random(seed), Vec::new());
            loop {
                let fits = |id: &TokenId| match &spelled[*id as usize] {
                    _ if *id == END => words.iter().any(|word| word.as_bytes() == so_far),
                    Some(bytes) => {
                        let next = [so_far.as_slice(), bytes].concat();
                        !bytes.is_empty() && words.iter().any(|word| word.as_bytes().starts_with(&next))
                    }
                    None => false,
                };
                let expected: Vec<TokenId> = (0..bench.vocab_size as TokenId).filter(fits).collect();
                assert_eq!(bench.allowed(&mut guide), expected, "{} after {so_far:?}", bench.name);
                let mut logits = logits(&bench, &mut random);
                guide.mask(&mut logits).unwrap();
                let token = draw(&logits);
                guide.accept(token).unwrap();
                if token == END {
                    break;
                }
                so_far.extend_from_slice(spelled[token as usize].as_ref().unwrap());
            }
        }
    }
}
