//! The sampler against the reference, over random requests.

use std::sync::LazyLock;

use cpu_kernels::Kernels;
use proptest::collection::vec;
use proptest::prelude::*;

use super::reference::{filtered, processed};
use super::tests::{NONE, all_kernels, kernels, spec};
use super::*;

/// A request of few tokens, so that everything happens, and logits of which some are equal.
fn chain() -> impl Strategy<Value = (RequestSpec, Vec<TokenId>, Vec<f32>)> {
    let sizes = (prop_oneof![2usize..12, 200usize..3000], prop_oneof![Just(0.01f32), Just(2.0), Just(9.0)]);
    let logits = sizes.prop_flat_map(|(vocab_size, spread)| {
        vec((-100i32..100).prop_map(move |step| step as f32 * 0.0301 * spread), vocab_size)
    });
    let bad_words = vec(vec(0..2u32, 1..4), 0..3);
    let lists = (vec(0..2u32, 1..9), vec(0..2u32, 0..9), logits, bad_words, vec((0..2u32, -2.0f32..2.0), 0..2));
    let filters = (
        0.2f32..2.0,
        prop_oneof![Just(0usize), 1..40usize],
        prop_oneof![Just(1.0f32), 0.01f32..1.0],
        prop_oneof![Just(0.0f32), 0.001f32..1.0],
        any::<u64>(),
    );
    let penalties = (
        prop_oneof![Just(1.0f32), 0.5f32..2.0],
        -1.0f32..2.0,
        prop_oneof![Just(0.0f32), -0.5f32..1.0],
        0usize..5,
        0usize..5,
        0usize..5,
    );
    (lists, filters, penalties).prop_map(|(lists, filters, penalties)| {
        let (prompt, output, logits, bad_words, embedding_bias) = lists;
        let (temperature, top_k, top_p, min_p, seed) = filters;
        let (repetition_penalty, presence_penalty, frequency_penalty, prompt_ignore_length, ngram, min_tokens) =
            penalties;
        let sampling = SamplingConfig {
            temperature,
            top_k,
            top_p,
            min_p,
            seed,
            min_tokens,
            repetition_penalty,
            presence_penalty,
            frequency_penalty,
            prompt_ignore_length,
            no_repeat_ngram_size: ngram,
            ..SamplingConfig::default()
        };
        let tokens = [&prompt[..], &output].concat();
        let spec = spec(&prompt, |spec| {
            (spec.end_ids, spec.bad_words) = (vec![1], bad_words);
            (spec.embedding_bias, spec.sampling) = (embedding_bias, sampling);
        });
        (spec, tokens, logits)
    })
}

fn sampler_of(kernels: Kernels, spec: &RequestSpec, tokens: &[TokenId]) -> Sampler {
    let mut sampler = Sampler::new(kernels, spec);
    tokens[spec.input_token_ids.len()..].iter().for_each(|&token| sampler.accept(token));
    sampler
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn processed_logits_are_the_references((spec, tokens, logits) in chain()) {
        let expected = processed(&spec, &logits, &tokens, 1.0);
        let mut found = logits;
        sampler_of(kernels(), &spec, &tokens).process(&mut found, &tokens);
        for (&found, expected) in found.iter().zip(expected) {
            let found = f64::from(found);
            prop_assert!(found == expected || (found - expected).abs() <= 1e-5 * (1.0 + expected.abs()), "{found}, not {expected}");
        }
    }

    /// The token is the one that the reference's cumulative distribution has at the same uniform number: so the kept
    /// sets are equal, and so are the probabilities.
    #[test]
    fn draws_are_the_references((spec, tokens, logits) in chain()) {
        let z = processed(&spec, &logits, &tokens, f64::from(spec.sampling.temperature));
        let expected = filtered(&spec, &z);
        // f32 and f64 may disagree about what is nearly equal.
        prop_assume!(expected.margin > 3e-5);
        let uniform = draw::uniform(spec.sampling.seed, tokens.len() as u64);
        static KERNELS: LazyLock<Vec<Kernels>> = LazyLock::new(|| all_kernels("draws_are_the_references"));
        for &kernels in KERNELS.iter() {
            let token = sampler_of(kernels, &spec, &tokens).sample(&mut logits.clone(), &tokens, None);
            let place = expected.kept.iter().position(|&(kept, _)| kept == token);
            prop_assert!(place.is_some(), "{token} is not kept");
            let before: f64 = expected.kept.iter().take(place.unwrap()).map(|(_, p)| p).sum();
            let after = before + expected.kept[place.unwrap()].1;
            prop_assert!((before - 1e-4..after + 1e-4).contains(&uniform), "{token}: {uniform} of {before}..{after}");
        }
    }

    /// Least weight and zeroed ties together are the fewest that are enough, at a size where the bisection works.
    #[test]
    fn top_p_keeps_the_fewest_that_are_enough(seed: u64, top_p in 0.001f32..0.999, spread in 0.0f32..20.0, steps in 1u64..10_000) {
        let mut weights: Vec<f32> = (0..5000).map(|i| (draw::uniform(seed, i % steps) as f32 * -spread).exp()).collect();
        weights[777] = 1.0;
        let given: Vec<f64> = weights.iter().map(|&weight| f64::from(weight)).collect();
        let least = filters::least_kept(kernels(), &mut weights, top_p, 0.0);
        let kept = |place: usize| weights[place] >= least;
        let mut order: Vec<usize> = (0..given.len()).collect();
        order.sort_by(|&a, &b| given[b].total_cmp(&given[a]).then(a.cmp(&b)));
        let count = (0..given.len()).filter(|&place| kept(place)).count();
        prop_assert!(order.iter().take(count).all(|&place| kept(place)), "not the best {count}");
        let enough = f64::from(top_p) * given.iter().sum::<f64>();
        let sum: f64 = order.iter().take(count).map(|&place| given[place]).sum();
        prop_assert!(sum >= enough * (1.0 - 5e-6), "{sum} of {enough}");
        prop_assert!(sum - given[order[count - 1]] < enough * (1.0 + 5e-6), "{sum} of {enough}: one too many");
    }

    #[test]
    fn any_logits_give_a_token(logits in vec(any::<f32>(), 1..50), seed: u64, len in 1usize..9, temperature in 0.0f32..3.0,
                               top_k in 0usize..60, top_p in 0.0f32..=1.0, min_p in 0.0f32..=1.0) {
        let config = SamplingConfig { temperature, top_k, top_p, min_p, repetition_penalty: 1.3, seed, ..SamplingConfig::default() };
        let spec = spec(&[0], |spec| spec.sampling = config);
        let sample = || Sampler::new(kernels(), &spec).sample(&mut logits.clone(), &vec![0; len], None);
        prop_assert!((sample() as usize) < logits.len());
        prop_assert!(!logits[sample() as usize].is_nan() || logits.iter().all(|logit| logit.is_nan() || *logit == NONE));
        prop_assert_eq!(sample(), std::thread::scope(|scope| scope.spawn(sample).join().unwrap()));
    }
}
