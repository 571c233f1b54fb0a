//! In-flight batching changes nothing that a request can see: its tokens and log-probabilities are, bit for bit, those
//! that it gets alone, whatever runs beside it and however the work is cut.

#![allow(clippy::unwrap_used, reason = "a test may fail where it likes")]

mod common;

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use common::Engine;
use proptest::prelude::*;
use trtllm::engine_format::WeightType;
use trtllm::runner::cpu_model::{CpuModel, ForwardPass, KvCache, StepSequence};
use trtllm::runner::executor::{
    CapacitySchedulerPolicy, Executor, ExecutorConfig, FinishReason, KvCacheConfig, KvCacheDtype, OutputConfig,
    Request, RequestId, RequestSpec, Response, SamplingConfig,
};
use trtllm::runner::inflight::CpuExecutor;
use trtllm::runner::model::ForwardError;

const MAX_SEQ_LEN: usize = 96;

/// A model with grouped query heads, and one with a sliding window; with weights and KV caches of each type.
static ENGINES: LazyLock<[(Engine, KvCacheDtype); 6]> = LazyLock::new(|| {
    [
        ("parity/mistral-gqa", WeightType::Bf16, KvCacheDtype::Bf16),
        ("parity/mistral-window", WeightType::Bf16, KvCacheDtype::Bf16),
        ("parity/mistral-gqa", WeightType::Int8, KvCacheDtype::Bf16),
        ("parity/mistral-window", WeightType::Int4, KvCacheDtype::Bf16),
        ("parity/mistral-gqa", WeightType::Bf16, KvCacheDtype::Int8),
        ("parity/mistral-window", WeightType::Int8, KvCacheDtype::Int8),
    ]
    .map(|(name, weights, dtype)| (common::build_with(&common::fixture(name), 64, weights), dtype))
});

/// What one sequence of a request came to.
#[derive(Debug, Clone, Default, PartialEq)]
struct Outcome {
    tokens: Vec<u32>,
    /// Bits of the log-probabilities.
    log_probs: Vec<u32>,
    top_log_probs: Vec<Vec<(u32, u32)>>,
    prompt_log_probs: Option<Vec<u32>>,
    finish: Option<FinishReason>,
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Takes responses until every request has ended, and checks what the contract promises on the way.
fn gather(executor: &dyn Executor, ids: &[RequestId], mut on_wait: impl FnMut(usize)) -> Vec<Vec<Outcome>> {
    let mut all: HashMap<RequestId, HashMap<usize, Outcome>> = HashMap::new();
    let mut ended = HashMap::new();
    let mut rounds = 0;
    while ended.len() < ids.len() {
        on_wait(rounds);
        rounds += 1;
        let responses = executor.await_responses(Some(Duration::from_secs(60)));
        assert!(!responses.is_empty(), "{} of {} requests ended, and nothing comes", ended.len(), ids.len());
        for response in responses {
            let Response::Result(result) = response else { panic!("{response:?}") };
            assert!(!ended.contains_key(&result.request_id), "a response after the final one");
            let outcome = all.entry(result.request_id).or_default().entry(result.sequence_index).or_default();
            assert!(outcome.finish.is_none(), "a response after the sequence's final one");
            assert_eq!(result.is_sequence_final, result.finish_reason.is_some());
            outcome.tokens.extend(&result.output_token_ids);
            outcome.log_probs.extend(bits(&result.log_probs.unwrap_or_default()));
            outcome.top_log_probs.extend(
                result
                    .top_log_probs
                    .unwrap_or_default()
                    .iter()
                    .map(|top| top.iter().map(|one| (one.token_id, one.log_prob.to_bits())).collect::<Vec<_>>()),
            );
            if let Some(log_probs) = result.prompt_log_probs {
                assert!(outcome.prompt_log_probs.replace(bits(&log_probs)).is_none(), "prompt log-probabilities twice");
            }
            outcome.finish = result.finish_reason;
            if result.is_final {
                ended.insert(result.request_id, ());
            }
        }
    }
    let sorted = |outcomes: HashMap<usize, Outcome>| {
        let mut sorted: Vec<_> = outcomes.into_iter().collect();
        sorted.sort_by_key(|&(index, _)| index);
        assert!(sorted.iter().enumerate().all(|(expected, (index, _))| expected == *index));
        sorted.into_iter().map(|(_, outcome)| outcome).collect()
    };
    ids.iter().map(|id| sorted(all.remove(id).unwrap())).collect()
}

fn open(engine: usize, config: &ExecutorConfig) -> CpuExecutor {
    let (engine, dtype) = &ENGINES[engine];
    let kv_cache = KvCacheConfig { dtype: *dtype, ..config.kv_cache.clone() };
    CpuExecutor::open(&engine.engine, &ExecutorConfig { kv_cache, ..config.clone() }).unwrap()
}

fn enqueue(executor: &dyn Executor, spec: &RequestSpec) -> RequestId {
    executor.enqueue(Request::new(spec.clone(), executor.limits(), executor.vocab_size()).unwrap()).unwrap()
}

/// What `spec` comes to in an executor of its own, with default settings. Remembered, since workloads repeat requests.
fn alone(engine: usize, spec: &RequestSpec) -> Vec<Outcome> {
    static KNOWN: Mutex<Vec<(usize, RequestSpec, Vec<Outcome>)>> = Mutex::new(Vec::new());
    let known = |known: &[(usize, RequestSpec, Vec<Outcome>)]| {
        known.iter().find(|(e, s, _)| *e == engine && s == spec).map(|(.., outcome)| outcome.clone())
    };
    if let Some(outcome) = known(&KNOWN.lock().unwrap()) {
        return outcome;
    }
    let executor = open(engine, &ExecutorConfig { threads: Some(1), ..ExecutorConfig::default() });
    let id = enqueue(&executor, spec);
    let outcome = gather(&executor, &[id], |_| ()).remove(0);
    KNOWN.lock().unwrap().push((engine, spec.clone(), outcome.clone()));
    outcome
}

fn requests() -> impl Strategy<Value = RequestSpec> {
    // Prompts of a small alphabet that mostly begin alike, so that prefixes are shared at many lengths.
    let prompt = (0usize..40, prop::collection::vec(0u32..3, 1..30)).prop_map(|(shared, own)| {
        let beginning = (0..shared as u32).map(|position| position * 7 % 5);
        beginning.chain(own).collect::<Vec<_>>()
    });
    let sampling =
        (0u64..3, 1usize..4, prop::bool::ANY).prop_map(|(seed, num_return_sequences, draws)| SamplingConfig {
            temperature: if draws { 1.0 } else { 0.0 },
            top_p: 0.95,
            repetition_penalty: 1.1,
            seed,
            num_return_sequences,
            ..SamplingConfig::default()
        });
    let output = (prop::bool::ANY, prop::bool::ANY, 0usize..3).prop_map(|(one, prompt, top_log_probs)| OutputConfig {
        return_log_probs: one,
        return_prompt_log_probs: prompt,
        top_log_probs,
        ..OutputConfig::default()
    });
    (prompt, 1usize..24, sampling, output, prop::bool::ANY, 0u8..3).prop_map(
        |(prompt, max_tokens, sampling, output, streaming, priority)| RequestSpec {
            sampling,
            output,
            streaming,
            priority: f32::from(priority) / 2.0,
            ..RequestSpec::new(prompt, max_tokens)
        },
    )
}

fn configs() -> impl Strategy<Value = ExecutorConfig> {
    let cache = (MAX_SEQ_LEN..3 * MAX_SEQ_LEN, prop::sample::select(vec![1, 3, 8, 16, 32, 50]), prop::bool::ANY)
        .prop_map(|(max_tokens, tokens_per_block, enable_block_reuse)| KvCacheConfig {
            max_tokens: Some(max_tokens + tokens_per_block),
            tokens_per_block,
            enable_block_reuse,
            ..KvCacheConfig::default()
        });
    (1usize..4, 1usize..9, 1usize..65, prop::bool::ANY, cache).prop_map(
        |(threads, max_batch_size, max_num_tokens, evicts, kv_cache)| ExecutorConfig {
            threads: Some(threads),
            max_batch_size: Some(max_batch_size),
            max_num_tokens: Some(max_num_tokens),
            capacity_scheduler_policy: if evicts {
                CapacitySchedulerPolicy::MaxUtilization
            } else {
                CapacitySchedulerPolicy::GuaranteedNoEvict
            },
            kv_cache,
            ..ExecutorConfig::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn company_changes_no_bit(
        engine in 0usize..6,
        config in configs(),
        specs in prop::collection::vec(requests(), 1..14),
        delays in prop::collection::vec(0u8..4, 14),
        cancelled in prop::collection::vec(prop::option::weighted(0.25, 0usize..20), 14),
    ) {
        let expected: Vec<_> = specs.iter().map(|spec| alone(engine, spec)).collect();
        let executor = open(engine, &config);
        let mut ids = Vec::new();
        for (spec, delay) in specs.iter().zip(&delays) {
            ids.push(enqueue(&executor, spec));
            std::thread::sleep(Duration::from_millis((*delay).into()));
        }
        let outcomes = gather(&executor, &ids, |round| {
            for (&id, _) in ids.iter().zip(&cancelled).filter(|&(_, at)| *at == Some(round)) {
                // All of it, or one sequence, if there is one of that index.
                if round % 2 == 0 { executor.cancel(id) } else { executor.cancel_sequence(id, round / 2 % 3) }
            }
        });
        for ((outcomes, expected), cancelled) in outcomes.iter().zip(&expected).zip(&cancelled) {
            prop_assert_eq!(outcomes.len(), expected.len());
            for (outcome, expected) in outcomes.iter().zip(expected) {
                if cancelled.is_some() && outcome.finish == Some(FinishReason::Cancelled) {
                    prop_assert!(expected.tokens.starts_with(&outcome.tokens));
                    prop_assert!(expected.log_probs.starts_with(&outcome.log_probs));
                } else {
                    prop_assert_eq!(outcome, expected);
                }
            }
        }
    }
}

/// A pass that is dropped between two layers, over tokens that are then computed in other chunks, changes no bit.
#[test]
fn a_dropped_pass_leaves_no_trace() {
    for (engine, dtype) in ENGINES.iter() {
        let model = CpuModel::open(&engine.engine, Some(2)).unwrap();
        let tokens: Vec<u32> = (0..40).collect();
        let blocks: Vec<u32> = (0..10).rev().collect();
        let logits = |dropped: &[usize]| {
            let (mut cache, mut pass) = (KvCache::new(model.config(), *dtype, 10, 4).unwrap(), ForwardPass::default());
            let step = |start: usize, end: usize| StepSequence { tokens: &tokens[start..end], start, blocks: &blocks };
            model.forward(&mut pass, &mut cache, &[step(0, 10)], &mut || false).unwrap();
            for &layers in dropped {
                let mut asked = 0;
                let mut interrupted = || {
                    asked += 1;
                    asked > layers
                };
                let ended = model.forward(&mut pass, &mut cache, &[step(10, 40 - layers)], &mut interrupted);
                assert!(matches!(ended, Err(ForwardError::Interrupted)), "{ended:?} after {layers} layers");
            }
            model.forward(&mut pass, &mut cache, &[step(10, 25)], &mut || false).unwrap();
            model.forward(&mut pass, &mut cache, &[step(25, 40)], &mut || false).unwrap();
            bits(model.logits(&mut pass, &(0..15).collect::<Vec<_>>(), &mut Vec::new()))
        };
        let layers = model.config().num_hidden_layers;
        assert!(layers > 1);
        assert_eq!(logits(&(0..layers).collect::<Vec<_>>()), logits(&[]));
    }
}

/// Window 16, blocks of 4 and 16 tokens an iteration: a sequence holds 9 blocks at most, and 5 when it generates.
#[test]
fn a_window_is_all_that_a_sequence_needs() {
    let spec = |number: u32| {
        let output =
            OutputConfig { return_log_probs: true, return_prompt_log_probs: number == 1, ..OutputConfig::default() };
        let sampling = SamplingConfig { num_return_sequences: 2, temperature: 1.0, ..SamplingConfig::default() };
        let prompt = (0..60).map(|position| position % 50).chain([number]).collect();
        RequestSpec { output, sampling, ..RequestSpec::new(prompt, 150) }
    };
    let beams = |number: u32| {
        let sampling = SamplingConfig { beam_width: 3, num_return_sequences: 3, ..SamplingConfig::default() };
        RequestSpec { sampling, ..RequestSpec::new((0..45).chain([number]).collect(), 60) }
    };
    let specs: Vec<_> = (0..3).map(spec).chain([beams(0), spec(0), beams(1)]).collect();
    // Those with a window: in bf16, over codes, and with a cache in codes.
    for engine in [1, 3, 5] {
        let expected: Vec<_> = specs.iter().map(|spec| alone(engine, spec)).collect();
        within_a_window(engine, &specs, &expected);
    }
}

fn within_a_window(engine: usize, specs: &[RequestSpec], expected: &[Vec<Outcome>]) {
    for policy in [CapacitySchedulerPolicy::GuaranteedNoEvict, CapacitySchedulerPolicy::MaxUtilization] {
        let kv_cache = KvCacheConfig { max_tokens: Some(80), tokens_per_block: 4, ..KvCacheConfig::default() };
        let config = ExecutorConfig {
            kv_cache,
            max_num_tokens: Some(16),
            capacity_scheduler_policy: policy,
            ..ExecutorConfig::default()
        };
        let executor = open(engine, &config);
        assert_eq!(executor.limits().max_seq_len, 256, "the cache of 80 tokens does not lower it");
        let ids: Vec<_> = specs.iter().map(|spec| enqueue(&executor, spec)).collect();
        assert!(gather(&executor, &ids, |_| ()) == expected, "{policy:?}");
        let stats = executor.iteration_stats().pop().unwrap();
        assert_eq!(stats.kv_cache.used_num_blocks, 0);
    }
}
