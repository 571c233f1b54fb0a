//! Beam search returns what Transformers returns, on cases that have a margin (`fixtures/README.md`), also beside other
//! requests and where the cache is tight.

#![allow(clippy::unwrap_used, reason = "a test may fail where it likes")]

mod common;

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;
use trtllm::runner::executor::{
    CapacitySchedulerPolicy, EarlyStopping, Executor, ExecutorConfig, FinishReason, KvCacheConfig, KvCacheDtype,
    OutputConfig, Request, RequestId, RequestSpec, Response, SamplingConfig, TokenResult,
};
use trtllm::runner::inflight::CpuExecutor;

#[derive(Deserialize)]
struct Case {
    model: String,
    prompt_ids: Vec<u32>,
    end_ids: Vec<u32>,
    max_tokens: usize,
    beam_width: usize,
    length_penalty: f32,
    early_stopping: Value,
    beams: Vec<Vec<u32>>,
    scores: Vec<f32>,
}

impl Case {
    fn spec(&self) -> RequestSpec {
        RequestSpec {
            end_ids: self.end_ids.clone(),
            sampling: SamplingConfig {
                beam_width: self.beam_width,
                num_return_sequences: self.beam_width,
                length_penalty: self.length_penalty,
                early_stopping: match &self.early_stopping {
                    Value::Bool(true) => EarlyStopping::Yes,
                    Value::Bool(false) => EarlyStopping::No,
                    _ => EarlyStopping::Never,
                },
                ..SamplingConfig::default()
            },
            output: OutputConfig { return_log_probs: true, ..OutputConfig::default() },
            ..RequestSpec::new(self.prompt_ids.clone(), self.max_tokens)
        }
    }
}

fn cases() -> Vec<Case> {
    let text = std::fs::read_to_string(common::fixture("beams/cases.json")).unwrap();
    let cases: Vec<Case> = serde_json::from_str(&text).unwrap();
    assert!(cases.len() >= 30 && cases.iter().any(|case| case.beams.iter().any(|beam| beam.len() < case.max_tokens)));
    cases
}

fn enqueue(executor: &CpuExecutor, spec: RequestSpec) -> RequestId {
    executor.enqueue(Request::new(spec, executor.limits(), executor.vocab_size()).unwrap()).unwrap()
}

fn gather(executor: &CpuExecutor, mut open: usize) -> HashMap<RequestId, Vec<TokenResult>> {
    let mut all: HashMap<RequestId, Vec<TokenResult>> = HashMap::new();
    while open > 0 {
        for response in executor.await_responses(None) {
            let Response::Result(result) = response else { panic!("{response:?}") };
            open -= usize::from(result.is_final);
            all.entry(result.request_id).or_default().push(result);
        }
    }
    all
}

#[test]
fn beams_are_those_of_transformers() {
    for model in ["mistral-gqa", "mistral-window", "llama-mha-fp32"] {
        let engine = common::build(&common::fixture("parity").join(model), 9);
        let cases: Vec<_> = cases().into_iter().filter(|case| case.model == model).collect();
        assert!(!cases.is_empty());
        for policy in [CapacitySchedulerPolicy::GuaranteedNoEvict, CapacitySchedulerPolicy::MaxUtilization] {
            let kv_cache = KvCacheConfig { max_tokens: Some(120), tokens_per_block: 4, ..KvCacheConfig::default() };
            let config = ExecutorConfig { capacity_scheduler_policy: policy, kv_cache, ..ExecutorConfig::default() };
            let executor = CpuExecutor::open(&engine.engine, &config).unwrap();
            let mut ids = Vec::new();
            for case in &cases {
                ids.push(enqueue(&executor, case.spec()));
                enqueue(&executor, RequestSpec::new(case.prompt_ids.clone(), 30));
            }
            let all = gather(&executor, 2 * cases.len());
            for (case, id) in cases.iter().zip(ids) {
                check(case, &all[&id]);
            }
        }
    }
}

/// Transformers has no such cache, so a search is compared with itself: alone, and beside others where the cache is tight.
#[test]
fn over_a_kv_cache_in_int8_company_changes_no_beam() {
    let engine = common::build(&common::fixture("parity/mistral-gqa"), 9);
    let open = |max_tokens, tokens_per_block| {
        let kv_cache =
            KvCacheConfig { dtype: KvCacheDtype::Int8, max_tokens, tokens_per_block, ..KvCacheConfig::default() };
        CpuExecutor::open(&engine.engine, &ExecutorConfig { kv_cache, ..ExecutorConfig::default() }).unwrap()
    };
    let beams = |results: &[TokenResult]| {
        let bits = |result: &TokenResult| result.log_probs.as_ref().unwrap().iter().map(|x| x.to_bits()).collect();
        results.iter().map(|result| (result.output_token_ids.clone(), bits(result))).collect::<Vec<(_, Vec<u32>)>>()
    };
    let cases: Vec<_> = cases().into_iter().filter(|case| case.model == "mistral-gqa").collect();
    let (quiet, busy) = (open(None, 32), open(Some(120), 4));
    let ids: Vec<_> = cases
        .iter()
        .map(|case| {
            enqueue(&busy, RequestSpec::new(case.prompt_ids.clone(), 30));
            enqueue(&busy, case.spec())
        })
        .collect();
    let all = gather(&busy, 2 * cases.len());
    for (case, id) in cases.iter().zip(ids) {
        let alone = enqueue(&quiet, case.spec());
        assert_eq!(beams(&all[&id]), beams(&gather(&quiet, 1)[&alone]), "prompt {:?}", case.prompt_ids);
    }
}

fn check(case: &Case, results: &[TokenResult]) {
    let what = format!("{}, prompt {:?}, {} beams", case.model, case.prompt_ids, case.beam_width);
    let beams: Vec<_> = results.iter().map(|result| result.output_token_ids.clone()).collect();
    assert_eq!(beams, case.beams, "{what}");
    for (index, (result, &score)) in results.iter().zip(&case.scores).enumerate() {
        assert_eq!(result.sequence_index, index);
        assert!(result.is_sequence_final && result.is_final == (index + 1 == case.beams.len()));
        let last = result.output_token_ids.last().unwrap();
        let ended = case.end_ids.contains(last);
        assert_eq!(result.finish_reason, Some(if ended { FinishReason::EndId } else { FinishReason::Length }));
        let sum: f32 = result.log_probs.as_ref().unwrap().iter().sum();
        assert_eq!(result.cum_log_prob, Some(sum));
        let ours = sum / (result.output_token_ids.len() as f32).powf(case.length_penalty);
        assert!((ours - score).abs() < 0.05 * (1.0 + score.abs()), "{what}: score {ours}, not {score}");
    }
}

#[test]
fn fewer_sequences_than_beams_are_the_best() {
    let engine = common::build(&common::fixture("parity/mistral-gqa"), 9);
    let executor = CpuExecutor::open(&engine.engine, &ExecutorConfig::default()).unwrap();
    for case in cases().iter().filter(|case| case.model == "mistral-gqa" && case.beam_width > 2) {
        let mut spec = case.spec();
        spec.sampling.num_return_sequences = 2;
        let id = enqueue(&executor, spec);
        let beams: Vec<_> = gather(&executor, 1)[&id].iter().map(|result| result.output_token_ids.clone()).collect();
        assert_eq!(beams, case.beams[..2]);
    }
}

#[test]
fn a_cancelled_search_ends_each_of_its_sequences() {
    let engine = common::build(&common::fixture("parity/mistral-gqa"), 9);
    let executor = CpuExecutor::open(&engine.engine, &ExecutorConfig::default()).unwrap();
    let sampling = SamplingConfig { beam_width: 3, num_return_sequences: 3, ..SamplingConfig::default() };
    let spec = RequestSpec { sampling, ..RequestSpec::new(vec![1], executor.limits().max_seq_len - 1) };
    let id = enqueue(&executor, spec);
    executor.cancel(id);
    let results = &gather(&executor, 1)[&id];
    assert_eq!(results.iter().map(|result| result.sequence_index).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(results.iter().all(|result| result.finish_reason == Some(FinishReason::Cancelled)));
}
