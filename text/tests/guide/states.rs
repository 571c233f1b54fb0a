//! A guide's life: clones, ends, and tokens that it does not take.

use text::GuidedDecodingParams;
use text::detokenizer::Detokenizer;
use text::guide::GuideError;

use crate::walk::{Bench, END, Random, draw, logits, walk};

fn regex(text: &str) -> GuidedDecodingParams {
    GuidedDecodingParams::Regex(text.to_owned())
}

#[test]
fn a_clone_goes_on_as_its_original_would_have() {
    let params = GuidedDecodingParams::JsonSchema(
        r#"{"type": "array", "items": {"type": "string", "maxLength": 9}, "minItems": 4, "maxItems": 4}"#.to_owned(),
    );
    for bench in Bench::all() {
        for seed in 0..10 {
            let (mut guide, mut random) = (bench.compile(&params), Random(seed));
            for step in 0.. {
                let mut scores = logits(&bench, &mut random);
                guide.mask(&mut scores).unwrap();
                let token = draw(&scores);
                guide.accept(token).unwrap();
                if token == END {
                    break;
                }
                if step % 3 == 0 {
                    let (mut one, mut other) = (guide.clone(), guide.clone());
                    let (first, second) = (walk_on(&bench, &mut one, seed + 1), walk_on(&bench, &mut other, seed + 1));
                    assert_eq!(first, second);
                    assert_eq!(bench.allowed(&mut guide.clone()), bench.allowed(&mut guide));
                }
            }
        }
    }
}

/// The tokens of a random model until the end.
fn walk_on(bench: &Bench, guide: &mut text::guide::Guide, seed: u64) -> Vec<u32> {
    let (mut random, mut ids) = (Random(seed), Vec::new());
    while ids.last() != Some(&END) {
        let mut scores = logits(bench, &mut random);
        guide.mask(&mut scores).unwrap();
        ids.push(draw(&scores));
        guide.accept(*ids.last().unwrap()).unwrap();
    }
    ids
}

#[test]
fn without_end_ids_the_guide_says_when_it_is_over() {
    for bench in Bench::all() {
        let mut guide = bench.factory.compile(&regex("[0-9]{2}|x"), &[]).unwrap();
        let mut random = Random(3);
        let mut ids = Vec::new();
        while !guide.must_end() {
            let mut scores = logits(&bench, &mut random);
            guide.mask(&mut scores).unwrap();
            assert_eq!(scores[END as usize], f32::NEG_INFINITY);
            ids.push(draw(&scores));
            guide.accept(ids[ids.len() - 1]).unwrap();
        }
        let text = bench.text(&ids);
        assert!(text == "x" || text.len() == 2, "{text}");
        let mut scores = logits(&bench, &mut random);
        assert_eq!(guide.mask(&mut scores), Err(GuideError::Over));
        assert_eq!(guide.accept(ids[0]), Err(GuideError::Over));
    }
}

#[test]
fn every_end_id_ends_and_none_is_text() {
    for bench in Bench::all() {
        let b = bench.tokenizer.token_to_id("b").unwrap();
        let a = bench.tokenizer.token_to_id("a").unwrap();
        // `b` is an end here, and no part of the output though the regex has it. Ids beyond the model are left out.
        let mut guide = bench.factory.compile(&regex("ab?c?|abb"), &[END, b, 1_000_000]).unwrap();
        assert!(!bench.allowed(&mut guide).contains(&b));
        guide.accept(a).unwrap();
        assert!(!guide.must_end());
        let allowed = bench.allowed(&mut guide);
        assert!(allowed.contains(&b) && allowed.contains(&END), "{allowed:?}");
        guide.accept(b).unwrap();
        assert!(guide.must_end());
        assert_eq!(guide.accept(END), Err(GuideError::Refused { token: END }));
    }
}

#[test]
fn what_the_mask_excludes_is_refused() {
    for bench in Bench::all() {
        let start = bench.compile(&regex("[0-9]+"));
        let a = bench.tokenizer.token_to_id("a").unwrap();
        let absent = bench.tokenizer.vocab_size() as u32;
        for token in [a, END, 0, absent, bench.vocab_size as u32, u32::MAX] {
            assert_eq!(start.clone().accept(token), Err(GuideError::Refused { token }));
        }
    }
}

#[test]
fn the_first_blank_is_part_of_the_output() {
    for bench in Bench::all() {
        for (pattern, blanks) in [("the sun", 0), (" the sun", 1), ("  the sun", 2)] {
            let is_it = |text: &str| text == pattern;
            for seed in 0..5 {
                let text = walk(&bench, &mut bench.compile(&regex(pattern)), seed, 40, &is_it).unwrap();
                assert_eq!(text.len() - text.trim_start().len(), blanks);
            }
        }
    }
}

#[test]
fn a_guided_text_is_one_by_itself() {
    for bench in Bench::all() {
        let ids = bench.tokenizer.encode("the sun", false).unwrap();
        let text = |mut detokenizer: Detokenizer| ids.iter().map(|&id| detokenizer.push(id)).collect::<String>();
        let (guided, plain) = (
            text(Detokenizer::of_guided_output(&bench.tokenizer, true)),
            text(Detokenizer::after_prompt(&bench.tokenizer, &[1], true)),
        );
        // Word marks: the blank of a text's first word is dropped, except from an output whose blanks are counted.
        assert_eq!(plain, "the sun");
        assert_eq!(guided, if bench.name.ends_with("byte-fallback") { " the sun" } else { "the sun" });
    }
}

#[test]
fn guides_go_to_other_threads() {
    fn check<T: Send>() {}
    fn check_shared<T: Send + Sync>() {}
    check::<text::guide::Guide>();
    check_shared::<text::guide::GuideFactory>();
}

#[test]
fn logits_of_another_length_are_masked_all_the_same() {
    for bench in Bench::all() {
        let mut guide = bench.compile(&regex("a"));
        let a = bench.letter('a');
        let mut longer = vec![0.0; bench.vocab_size + 100];
        guide.mask(&mut longer).unwrap();
        assert_eq!(longer.iter().filter(|logit| logit.is_finite()).count(), a.len());
        let mut shorter = vec![0.0; a[0] as usize];
        guide.mask(&mut shorter).unwrap();
        assert!(shorter.iter().all(|logit| *logit == f32::NEG_INFINITY));
    }
}
