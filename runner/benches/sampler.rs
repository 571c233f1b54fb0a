//! Sampling one row of a vocabulary of 131072: `cargo bench -p runner --bench sampler`.
//!
//! Each iteration copies the logits first, as sampling changes them: `copy` is what that costs.

use std::hint::black_box;

use cpu_kernels::Kernels;
use criterion::{Criterion, criterion_group, criterion_main};
use runner::executor::{RequestSpec, SamplingConfig};
use runner::inflight::internals::{Mask, Sampler, best, top_log_probs};

const VOCAB_SIZE: usize = 131_072;

/// Roughly normal logits of a standard deviation, the same in every run.
fn logits(deviation: f32) -> Vec<f32> {
    let mut state = 1_u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1 << 24) as f32
    };
    (0..VOCAB_SIZE).map(|_| ((0..12).map(|_| uniform()).sum::<f32>() - 6.0) * deviation).collect()
}

/// What a model says mostly: a bulk of no weight, and a few tokens far above it.
fn peaked() -> Vec<f32> {
    let mut logits = logits(2.5);
    for rank in 0..200 {
        logits[rank * 641 + 7] = 18.0 - 1.5 * (rank as f32 + 1.0).ln();
    }
    logits
}

fn spec(sampling: SamplingConfig) -> RequestSpec {
    let prompt = (0..2048).map(|i| (i * 7919) % 1500).collect();
    RequestSpec { sampling: SamplingConfig { seed: 7, ..sampling }, ..RequestSpec::new(prompt, 100) }
}

fn row(c: &mut Criterion) {
    // An instruction set that was asked for and is not there is no reason to measure another one.
    let Ok(kernels) = Kernels::detect() else { return };
    let mut group = c.benchmark_group(format!("sampler/{}", kernels.isa()));
    let mut measure = |name: &str, spec: &RequestSpec, logits: &[f32], mask: Option<Mask<'_>>| {
        let sampler = Sampler::new(kernels, spec);
        let mut tokens = spec.input_token_ids.clone();
        let mut row = logits.to_vec();
        group.bench_function(name, |b| {
            b.iter(|| {
                row.copy_from_slice(logits);
                // Another position, so another draw.
                tokens.push(1);
                let token = sampler.sample(black_box(&mut row), &tokens, mask);
                tokens.truncate(if tokens.len() > 4096 { 2048 } else { tokens.len() });
                token
            });
        });
    };
    let drawn = || SamplingConfig { temperature: 0.8, ..SamplingConfig::default() };
    let top_p = || SamplingConfig { top_p: 0.9, ..drawn() };
    let (peaked, flat, even) = (peaked(), logits(1.0), vec![1.0; VOCAB_SIZE]);
    let form = |logits: &mut [f32]| {
        for (token, logit) in logits.iter_mut().enumerate() {
            *logit = if token % 64 == 7 { *logit } else { f32::NEG_INFINITY };
        }
    };
    measure("greedy", &spec(SamplingConfig::default()), &peaked, None);
    measure("temperature", &spec(drawn()), &peaked, None);
    measure("top-p 0.9 peaked", &spec(top_p()), &peaked, None);
    measure("top-p 0.9 flat", &spec(top_p()), &flat, None);
    measure("top-p 0.9 all equal", &spec(top_p()), &even, None);
    measure("top-p 0.9 masked", &spec(top_p()), &peaked, Some(&form));
    measure("min-p 0.05", &spec(SamplingConfig { min_p: 0.05, ..drawn() }), &peaked, None);
    measure("top-k 50", &spec(SamplingConfig { top_k: 50, ..drawn() }), &flat, None);
    measure("top-k 50 top-p 0.9", &spec(SamplingConfig { top_k: 50, ..top_p() }), &flat, None);
    let penalized = SamplingConfig {
        repetition_penalty: 1.1,
        presence_penalty: 0.5,
        frequency_penalty: 0.1,
        ..SamplingConfig::default()
    };
    measure("greedy with penalties", &spec(penalized), &peaked, None);
    let ngrams = SamplingConfig { no_repeat_ngram_size: 3, ..SamplingConfig::default() };
    measure("greedy with n-grams", &spec(ngrams), &peaked, None);
    group.bench_function("best", |b| b.iter(|| best(kernels, black_box(&peaked))));
    group
        .bench_function("top 20 log-probabilities", |b| b.iter(|| top_log_probs(kernels, black_box(&peaked), 0.0, 20)));
    group.bench_function("pass: sum at least", |b| b.iter(|| kernels.sum_at_least(black_box(&peaked), 0.5)));
    group.bench_function("pass: exp weights and copy", |b| {
        let mut row = peaked.clone();
        b.iter(|| {
            row.copy_from_slice(&peaked);
            kernels.exp_weights(black_box(&mut row), 18.0, 1.25);
        });
    });
    let mut row = peaked.clone();
    group.bench_function("copy", |b| b.iter(|| black_box(&mut row).copy_from_slice(black_box(&peaked))));
    let mut row = peaked.clone();
    group.bench_function("copy and mask", |b| {
        b.iter(|| {
            row.copy_from_slice(&peaked);
            form(black_box(&mut row));
        });
    });
    group.finish();
}

criterion_group!(benches, row);
criterion_main!(benches);
