//! The sampler against values computed by hand.

use cpu_kernels::{Isa, Kernels};

use super::*;

/// Every instruction set of this CPU; of each other one a line says so, which captured output does not swallow.
pub(super) fn all_kernels(test: &str) -> Vec<Kernels> {
    let (here, elsewhere): (Vec<_>, Vec<_>) =
        Isa::ALL.into_iter().map(|isa| (isa, Kernels::for_isa(isa))).partition(|(_, kernels)| kernels.is_some());
    for (isa, _) in elsewhere {
        let line = format!("\nDISCARDED: {test} for {isa}, which this CPU lacks\n");
        let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
    }
    here.into_iter().filter_map(|(_, kernels)| kernels).collect()
}

pub(super) fn kernels() -> Kernels {
    Kernels::detect().unwrap()
}

pub(super) fn spec(prompt: &[TokenId], change: impl FnOnce(&mut RequestSpec)) -> RequestSpec {
    let mut spec = RequestSpec::new(prompt.to_vec(), 100);
    change(&mut spec);
    spec
}

fn drawn(change: impl FnOnce(&mut SamplingConfig)) -> RequestSpec {
    spec(&[0], |spec| {
        spec.sampling.temperature = 1.0;
        change(&mut spec.sampling);
    })
}

/// Logits after bias, penalties and bans at temperature 1.
fn changed<const N: usize>(spec: &RequestSpec, output: &[TokenId], mut logits: [f32; N]) -> [f32; N] {
    let mut sampler = Sampler::new(kernels(), spec);
    output.iter().for_each(|&token| sampler.accept(token));
    sampler.process(&mut logits, &[&spec.input_token_ids, output].concat());
    logits
}

pub(super) const NONE: f32 = f32::NEG_INFINITY;

#[test]
fn greedy_takes_the_lowest_id_among_equals() {
    for kernels in all_kernels("greedy_takes_the_lowest_id_among_equals") {
        assert_eq!(best(kernels, &[1.0, 3.0, 3.0, 2.0]), 1);
        assert_eq!(best(kernels, &[f32::NAN, -1.0, f32::NAN]), 1);
        assert_eq!(best(kernels, &[f32::NAN, NONE]), 0);
        assert_eq!(best(kernels, &[1.0, f32::INFINITY, f32::INFINITY]), 1);
        let mut logits = vec![0.5; 1000];
        for place in [999, 640, 639, 128, 127, 1] {
            logits[place] = 2.0;
            assert_eq!(best(kernels, &logits), place as TokenId);
        }
        assert_eq!(Sampler::new(kernels, &spec(&[0], |_| ())).sample(&mut [1.0, 3.0, 3.0, 2.0], &[0], None), 1);
    }
}

#[test]
fn top_log_probs_are_the_best_in_order() {
    let logits = [f32::NAN, 2.0, 4.0, 4.0, 3.0];
    let top =
        |n| top_log_probs(kernels(), &logits, 5.0, n).iter().map(|t| (t.token_id, t.log_prob)).collect::<Vec<_>>();
    assert_eq!(top(0), []);
    assert_eq!(top(1), [(2, -1.0)]);
    assert_eq!(top(3), [(2, -1.0), (3, -1.0), (4, -2.0)]);
    assert_eq!(top(9), [(2, -1.0), (3, -1.0), (4, -2.0), (1, -3.0)]);
}

#[test]
fn bias_is_added() {
    let biased = spec(&[0], |spec| spec.embedding_bias = vec![(1, 0.5), (2, -3.0), (1, 1.0)]);
    assert_eq!(changed(&biased, &[], [1.0, 2.0, 3.0]), [1.0, 3.5, 0.0]);
}

#[test]
fn repetition_divides_what_is_positive_and_multiplies_what_is_negative_once() {
    let penalized = spec(&[0, 0, 1], |spec| spec.sampling.repetition_penalty = 2.0);
    assert_eq!(changed(&penalized, &[2, 2], [3.0, -1.0, 0.0, 5.0]), [1.5, -2.0, 0.0, 5.0]);
}

#[test]
fn presence_counts_once_and_frequency_each_time() {
    let penalized = spec(&[0, 0, 1], |spec| {
        spec.sampling.presence_penalty = 0.5;
        spec.sampling.frequency_penalty = 0.25;
    });
    assert_eq!(changed(&penalized, &[2, 0], [3.0, 3.0, 3.0, 3.0]), [1.75, 2.25, 2.25, 3.0]);
}

#[test]
fn presence_and_frequency_overlook_the_start_of_the_prompt_but_repetition_does_not() {
    let penalized = |ignore| {
        spec(&[0, 1, 0], |spec| {
            spec.sampling.repetition_penalty = 2.0;
            spec.sampling.presence_penalty = 0.5;
            spec.sampling.frequency_penalty = 0.25;
            spec.sampling.prompt_ignore_length = ignore;
        })
    };
    assert_eq!(changed(&penalized(0), &[2], [4.0; 4]), [1.0, 1.25, 1.25, 4.0]);
    assert_eq!(changed(&penalized(2), &[2], [4.0; 4]), [1.25, 2.0, 1.25, 4.0]);
    assert_eq!(changed(&penalized(99), &[2], [4.0; 4]), [2.0, 2.0, 1.25, 4.0]);
}

#[test]
fn penalties_come_after_the_temperature() {
    // At 2, logits 4 and 3 are 2 and 1.5; presence takes 1 of the first, not half of that.
    let penalized = drawn(|config| {
        config.temperature = 2.0;
        config.presence_penalty = 1.0;
        config.min_p = 0.7;
    });
    // Weights e^-0.5 = 0.61 and 1: min-p keeps the second alone. Before the temperature they would be equal.
    let sampler = Sampler::new(kernels(), &penalized);
    for len in 1..200 {
        assert_eq!(sampler.sample(&mut [4.0, 3.0], &vec![0; len], None), 1);
    }
}

#[test]
fn end_ids_wait_for_the_minimum_length() {
    let waiting = spec(&[0], |spec| {
        spec.end_ids = vec![1, 3];
        spec.stop_words = vec![vec![2]];
        spec.sampling.min_tokens = 2;
    });
    assert_eq!(changed(&waiting, &[], [1.0; 4]), [1.0, NONE, 1.0, NONE]);
    assert_eq!(changed(&waiting, &[0], [1.0; 4]), [1.0, NONE, 1.0, NONE]);
    assert_eq!(changed(&waiting, &[0, 0], [1.0; 4]), [1.0; 4]);
}

#[test]
fn bad_words_are_never_completed() {
    let bad = spec(&[0, 1], |spec| spec.bad_words = vec![vec![3], vec![0, 1, 2], vec![1, 0]]);
    assert_eq!(changed(&bad, &[], [1.0; 4]), [NONE, 1.0, NONE, NONE]);
    assert_eq!(changed(&bad, &[1], [1.0; 4]), [NONE, 1.0, 1.0, NONE]);
    assert_eq!(changed(&bad, &[1, 2], [1.0; 4]), [1.0, 1.0, 1.0, NONE]);
}

#[test]
fn n_grams_do_not_occur_twice() {
    let of = |size| spec(&[0, 1, 2], |spec| spec.sampling.no_repeat_ngram_size = size);
    assert_eq!(changed(&of(2), &[0], [1.0; 4]), [1.0, NONE, 1.0, 1.0]);
    assert_eq!(changed(&of(3), &[0, 1], [1.0; 4]), [1.0, 1.0, NONE, 1.0]);
    assert_eq!(changed(&of(3), &[0], [1.0; 4]), [1.0; 4]);
    assert_eq!(changed(&of(1), &[0], [1.0; 4]), [NONE, NONE, NONE, 1.0]);
    assert_eq!(changed(&of(usize::MAX), &[0], [1.0; 4]), [1.0; 4]);
    // The same token twice in a row is one 2-gram; a third would be the second.
    assert_eq!(changed(&of(2), &[2], [1.0; 4]), [1.0, 1.0, NONE, 1.0]);
}

#[test]
fn bans_are_lifted_where_they_leave_nothing_and_the_mask_never() {
    let banned = spec(&[0], |spec| {
        spec.bad_words = vec![vec![0], vec![1], vec![2], vec![2]];
        spec.end_ids = vec![2];
        spec.sampling.min_tokens = 5;
    });
    assert_eq!(changed(&banned, &[], [1.0, 3.0, 2.0]), [1.0, 3.0, 2.0]);
    let sampler = Sampler::new(kernels(), &banned);
    assert_eq!(sampler.sample(&mut [1.0, 3.0, 2.0], &[0], None), 1);
    let mask = |logits: &mut [f32]| logits[1] = NONE;
    assert_eq!(sampler.sample(&mut [1.0, 3.0, 2.0], &[0], Some(&mask)), 2);
    // The mask alone leaves the fourth.
    assert_eq!(sampler.sample(&mut [1.0, 3.0, 2.0, -9.0], &[0], Some(&mask)), 3);
    let nothing = |logits: &mut [f32]| logits.fill(NONE);
    assert_eq!(sampler.sample(&mut [1.0, 3.0, 2.0, -9.0], &[0], Some(&nothing)), 0);
}

#[test]
fn a_clone_goes_its_own_way() {
    let mut sampler = Sampler::new(kernels(), &spec(&[0], |spec| spec.sampling.repetition_penalty = 2.0));
    let mut clone = sampler.clone();
    sampler.accept(1);
    clone.accept(2);
    let choose = |sampler: &Sampler| sampler.sample(&mut [0.0, 3.0, 2.9], &[0, 1], None);
    assert_eq!((choose(&sampler), choose(&clone)), (2, 1));
}

#[test]
fn sequences_have_seeds_of_their_own() {
    let spec = |seed| drawn(|config| config.seed = seed);
    let draws = |spec: &RequestSpec, index| {
        let sampler = Sampler::new(kernels(), spec).of_sequence(index);
        (1..50).map(|len| sampler.sample(&mut [0.0; 1000], &vec![0; len], None)).collect::<Vec<_>>()
    };
    assert_eq!(draws(&spec(5), 2), draws(&spec(7), 0));
    assert_ne!(draws(&spec(5), 0), draws(&spec(5), 1));
    assert_eq!(draws(&spec(u64::MAX), 1), draws(&spec(0), 0));
}

#[test]
fn sequences_share_what_their_request_asks_for() {
    let many = spec(&[0], |spec| spec.embedding_bias = (0..100_000).map(|token| (token, 1.0)).collect());
    let first = Sampler::new(kernels(), &many);
    assert!(std::ptr::eq(&*first.rules, &*first.of_sequence(7).rules));
}

/// How often each token is drawn.
fn hits(spec: &RequestSpec, logits: &[f32], count: usize) -> Vec<usize> {
    let mut hits = vec![0; logits.len()];
    let sampler = Sampler::new(kernels(), spec);
    let tokens = vec![0; count];
    for len in 1..=count {
        hits[sampler.sample(&mut logits.to_vec(), &tokens[..len], None) as usize] += 1;
    }
    hits
}

#[test]
fn draws_follow_the_distribution() {
    // Weights 1, 2, 4, 8 of 15, at temperature 2.
    let logits: Vec<f32> = (0..4).map(|i| i as f32 * 2.0 * std::f32::consts::LN_2).collect();
    let hits = hits(&drawn(|config| config.temperature = 2.0), &logits, 30_000);
    for (hits, weight) in hits.iter().zip([1.0, 2.0, 4.0, 8.0]) {
        let expected = weight / 15.0;
        let bound = 5.0 * (expected * (1.0 - expected) / 30_000.0f64).sqrt();
        assert!((*hits as f64 / 30_000.0 - expected).abs() < bound, "{hits} against {expected}");
    }
}

#[test]
fn filters_keep_what_they_should() {
    let logits: Vec<f32> = (0..4).map(|i| i as f32 * std::f32::consts::LN_2).collect();
    let kept = |change: fn(&mut SamplingConfig)| {
        hits(&drawn(change), &logits, 3000).iter().map(|&hits| hits > 0).collect::<Vec<_>>()
    };
    assert_eq!(kept(|config| config.top_k = 2), [false, false, true, true]);
    // 8/15 = 0.533 is short of 0.6, with 4/15 it is 0.8.
    assert_eq!(kept(|config| config.top_p = 0.6), [false, false, true, true]);
    assert_eq!(kept(|config| config.top_p = 0.5), [false, false, false, true]);
    assert_eq!(kept(|config| config.top_p = 0.0), [false, false, false, true]);
    assert_eq!(kept(|config| config.min_p = 0.2), [false, true, true, true]);
    // 8 of the 12 that top-k leaves are 0.667.
    assert_eq!(kept(|config| (config.top_k, config.top_p) = (2, 0.65)), [false, false, false, true]);
    assert_eq!(kept(|config| config.top_k = 99), [true; 4]);
    assert_eq!(kept(|_| ()), [true; 4]);
}

#[test]
fn of_equals_the_lowest_ids_are_kept() {
    let kept =
        |change: fn(&mut SamplingConfig)| hits(&drawn(change), &[1.0; 1000], 30_000).iter().rposition(|&h| h > 0);
    assert_eq!(kept(|config| config.top_p = 0.3995), Some(399));
    assert_eq!(kept(|config| config.top_k = 300), Some(299));
}

#[test]
fn extreme_settings_and_logits_give_a_token() {
    for temperature in [f32::from_bits(1), 1e-30, f32::MAX] {
        let sampler = Sampler::new(kernels(), &drawn(|config| config.temperature = temperature));
        for logits in [[NONE, f32::MAX, 1.0], [f32::NAN, 5.0, -f32::MAX], [-3.0, f32::INFINITY, f32::NAN]] {
            let token = sampler.sample(&mut logits.clone(), &[0], None);
            assert!(
                token == 1 || temperature == f32::MAX && logits[token as usize] > NONE,
                "{temperature}: {logits:?}"
            );
        }
        assert_eq!(sampler.sample(&mut [f32::NAN; 3], &[0], None), 0);
    }
}
