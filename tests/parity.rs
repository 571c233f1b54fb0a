//! The CPU engine against Hugging Face Transformers, by the fixtures in `fixtures/parity`.
//!
//! The bar: the engine's error against the fp32 reference is at most Transformers' own error in bfloat16 (mean), and at
//! most 1.25 times it (maximum); greedy tokens are equal where the margin exceeds what that error allows.

#![allow(clippy::unwrap_used, reason = "a test may fail where it likes")]

mod common;

use std::collections::BTreeMap;

use serde_json::Value;
use trtllm::engine_format::WeightType;
use trtllm::runner::cpu_model::{CpuModel, ForwardPass, KvCache, StepSequence};
use trtllm::runner::executor::{
    Executor, ExecutorConfig, KvCacheDtype, OutputConfig, Request, RequestId, RequestSpec, Response, TokenResult,
};
use trtllm::runner::inflight::CpuExecutor;

struct Reference {
    json: Value,
    log_probs: Vec<Vec<f32>>,
}

impl Reference {
    fn read(name: &str) -> Self {
        let dir = common::fixture("parity").join(name);
        let json: Value = serde_json::from_slice(&std::fs::read(dir.join("reference.json")).unwrap()).unwrap();
        let bytes = std::fs::read(dir.join("reference.safetensors")).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let prompts = json["prompts"].as_array().unwrap().len();
        let read = |prompt| {
            let tensor = tensors.tensor(&format!("prompts.{prompt}.log_probs")).unwrap();
            tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
        };
        Self { log_probs: (0..prompts).map(read).collect(), json }
    }

    fn bound(&self, figure: &str) -> f64 {
        self.json["hf_bf16"][figure].as_f64().unwrap()
    }

    fn ids(&self, prompt: usize) -> Vec<u32> {
        ids(&self.json["prompts"][prompt]["ids"])
    }
}

fn ids(value: &Value) -> Vec<u32> {
    value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// Mean and largest error of all log-probabilities of a fixture's prompts.
fn errors(name: &str, weights: WeightType, dtype: KvCacheDtype) -> (f64, f64) {
    let reference = Reference::read(name);
    let engine = common::build_with(&common::fixture("parity").join(name), 64, weights);
    let model = CpuModel::open(&engine.engine, Some(2)).unwrap();
    assert_eq!(model.weight_type(), weights);
    let vocab_size = model.config().vocab_size;
    let (mut sum, mut count, mut max) = (0.0, 0usize, 0.0f64);
    for (prompt, expected) in reference.log_probs.iter().enumerate() {
        let tokens = reference.ids(prompt);
        let mut cache = KvCache::new(model.config(), dtype, tokens.len().div_ceil(32), 32).unwrap();
        let blocks: Vec<u32> = (0..cache.num_blocks() as u32).collect();
        let (mut pass, mut logits) = (ForwardPass::default(), Vec::new());
        let step = [StepSequence { tokens: &tokens, start: 0, blocks: &blocks }];
        model.forward(&mut pass, &mut cache, &step, &mut || false).unwrap();
        model.logits(&mut pass, &(0..tokens.len()).collect::<Vec<_>>(), &mut logits);
        for (row, expected) in logits.chunks_exact(vocab_size).zip(expected.chunks_exact(vocab_size)) {
            for (token, &expected) in expected.iter().enumerate() {
                let error = f64::from(model.log_prob(row, token as u32) - expected).abs();
                assert!(error.is_finite(), "{name}: a log-probability is not finite");
                sum += error;
                max = max.max(error);
                count += 1;
            }
        }
    }
    assert!(count > 1000, "{name}: {count} log-probabilities");
    (sum / count as f64, max)
}

#[test]
fn every_distribution_is_within_the_bar() {
    for name in common::parity_fixtures() {
        let reference = Reference::read(&name);
        let (mean, max) = errors(&name, WeightType::Bf16, KvCacheDtype::Bf16);
        let (mean_bar, max_bar) = (reference.bound("mean_abs_error"), 1.25 * reference.bound("max_abs_error"));
        println!("{name}: mean {mean:.4} of {mean_bar:.4}, max {max:.4} of {max_bar:.4}");
        assert!(mean <= mean_bar, "{name}: mean error {mean} over {mean_bar}");
        assert!(max <= max_bar, "{name}: largest error {max} over {max_bar}");
    }
}

/// These models are tiny, which is the worst case: with few columns, errors hardly cancel.
#[test]
fn quantized_weights_stay_within_their_bars() {
    for (weights, factor) in [(WeightType::Int8, 4.0), (WeightType::Int4, 40.0)] {
        for name in common::parity_fixtures() {
            let (mean, _) = errors(&name, weights, KvCacheDtype::Bf16);
            let bar = factor * Reference::read(&name).bound("mean_abs_error");
            println!("{name}, {weights}: mean {mean:.4} of {bar:.4}");
            assert!(mean <= bar, "{name}, {weights}: mean error {mean} over {bar}");
        }
    }
}

/// The engine rounds six things a layer to bf16, keys and values among them, and is off by 0.65 of Transformers' mean at most. In
/// eight bits a normal block of 32, whose largest is 2.4 deviations, is off by 2.4 / 127 / sqrt(12) of one: 3.4 times what bf16 is. If all
/// six weigh the same, that is sqrt((4 + 2 * 3.4^2) / 6) * 0.65 = 1.4 of the mean.
#[test]
fn a_kv_cache_in_int8_stays_within_its_bar() {
    for name in common::parity_fixtures() {
        let (mean, _) = errors(&name, WeightType::Bf16, KvCacheDtype::Int8);
        let bar = 1.5 * Reference::read(&name).bound("mean_abs_error");
        println!("{name}, a KV cache in int8: mean {mean:.4} of {bar:.4}");
        assert!(mean <= bar, "{name}: mean error {mean} over {bar}");
    }
}

#[test]
fn greedy_tokens_and_their_log_probs_agree_through_the_executor() {
    for name in common::parity_fixtures() {
        let reference = Reference::read(&name);
        // Chunks of five tokens: the context phase takes several steps.
        let engine = common::build(&common::fixture("parity").join(&name), 5);
        let executor = CpuExecutor::open(&engine.engine, &ExecutorConfig::default()).unwrap();
        let bar = 1.25 * reference.bound("max_abs_error");
        for (prompt, expected) in reference.json["prompts"].as_array().unwrap().iter().enumerate() {
            let (expected_ids, margins) = (ids(&expected["greedy"]["ids"]), numbers(&expected["greedy"]["margins"]));
            let expected_log_probs = numbers(&expected["greedy"]["log_probs"]);
            let tokens = reference.ids(prompt);
            let mut spec = RequestSpec::new(tokens.clone(), expected_ids.len());
            spec.output =
                OutputConfig { return_log_probs: true, return_prompt_log_probs: true, ..OutputConfig::default() };
            let result = complete(&executor, spec);

            let prompt_log_probs = result.prompt_log_probs.unwrap();
            assert_eq!(prompt_log_probs.len(), tokens.len() - 1);
            let vocab_size = executor.vocab_size();
            for (position, &log_prob) in prompt_log_probs.iter().enumerate() {
                let next = tokens[position + 1] as usize;
                let expected = reference.log_probs[prompt][position * vocab_size + next];
                assert!(f64::from((log_prob - expected).abs()) <= bar, "{name}, prompt {prompt}, position {position}");
            }

            let log_probs = result.log_probs.unwrap();
            let mut compared = 0;
            for step in 0..expected_ids.len() {
                if result.output_token_ids[step] != expected_ids[step] {
                    // Either token's log-probability may be wrong by the bar.
                    let margin = margins[step];
                    assert!(margin <= 2.0 * bar, "{name}, prompt {prompt}, step {step}: margin {margin} over {bar}");
                    break;
                }
                let error = (f64::from(log_probs[step]) - expected_log_probs[step]).abs();
                assert!(error <= bar, "{name}, prompt {prompt}, step {step}: error {error} over {bar}");
                compared += 1;
            }
            println!("{name}, prompt {prompt}: {compared} of {} greedy tokens compared", expected_ids.len());
        }
    }
}

/// Runs one request and joins its responses.
fn complete(executor: &CpuExecutor, spec: RequestSpec) -> TokenResult {
    let request = Request::new(spec, executor.limits(), executor.vocab_size()).unwrap();
    let id = executor.enqueue(request).unwrap();
    let mut whole: BTreeMap<RequestId, TokenResult> = BTreeMap::new();
    loop {
        for response in executor.await_responses(None) {
            let Response::Result(result) = response else { panic!("{response:?}") };
            let is_final = result.is_final;
            whole
                .entry(result.request_id)
                .and_modify(|whole| {
                    whole.output_token_ids.extend(&result.output_token_ids);
                    if let (Some(all), Some(new)) = (&mut whole.log_probs, &result.log_probs) {
                        all.extend(new);
                    }
                })
                .or_insert(result);
            if is_final {
                return whole.remove(&id).unwrap();
            }
        }
    }
}
