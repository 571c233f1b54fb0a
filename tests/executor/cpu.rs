//! The CPU executor.

use std::sync::Arc;

use system::Machine;
use trtllm::engine_format::WeightType;
use trtllm::runner::executor::{
    CapacitySchedulerPolicy, EnqueueError, Executor, ExecutorConfig, GuidedDecodingParams, KvCacheConfig, OutputConfig,
    PerfMetrics, Request, RequestSpec, Response, SamplingConfig, Shutdown, TokenResult,
};
use trtllm::runner::inflight::CpuExecutor;

use crate::common::{self, Engine};
use crate::subject::{Subject, enqueue, gather};

fn subject(weights: WeightType) -> Subject {
    let engine = common::build_with(&common::fixture("parity/mistral-gqa"), 16, weights);
    Subject { open: Box::new(move |config| Arc::new(open(&engine, config))) }
}

/// Every promise over weights of a type.
macro_rules! keeps_its_promises_with {
    ($name:ident, $weights:expr) => {
        mod $name {
            fn subject() -> crate::subject::Subject {
                super::subject($weights)
            }

            crate::keeps_its_promises!(super::subject);
        }
    };
}
keeps_its_promises_with!(bf16, trtllm::engine_format::WeightType::Bf16);
keeps_its_promises_with!(int8, trtllm::engine_format::WeightType::Int8);
keeps_its_promises_with!(int4, trtllm::engine_format::WeightType::Int4);

fn engine() -> Engine {
    common::build(&common::fixture("parity/mistral-gqa"), 16)
}

fn open(engine: &Engine, config: &ExecutorConfig) -> CpuExecutor {
    CpuExecutor::open(&engine.engine, config).unwrap()
}

#[test]
fn threads_and_chunks_do_not_change_a_bit() {
    let fixture = common::fixture("parity/mistral-window");
    let run = |weights, max_num_tokens, threads| {
        let engine = common::build_with(&fixture, max_num_tokens, weights);
        let executor = open(&engine, &ExecutorConfig { threads: Some(threads), ..ExecutorConfig::default() });
        let output = OutputConfig { return_log_probs: true, return_prompt_log_probs: true, ..OutputConfig::default() };
        let spec = RequestSpec { output, streaming: false, ..RequestSpec::new((0..50).collect(), 20) };
        let id = enqueue(&executor, spec);
        let result = gather(&executor, 1).remove(&id).unwrap().remove(0);
        let bits = |values: Option<Vec<f32>>| values.unwrap().iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        (result.output_token_ids, bits(result.log_probs), bits(result.prompt_log_probs))
    };
    for weights in WeightType::ALL {
        let alone = run(weights, 128, 1);
        for (max_num_tokens, threads) in [(1, 1), (7, 2), (33, 3), (128, 4)] {
            let cut = run(weights, max_num_tokens, threads);
            assert!(alone == cut, "{weights}: chunks of {max_num_tokens}, {threads} threads");
        }
    }
}

/// A token whose embedding is NaN: what has seen it ends with an error, and everything else is as ever.
#[test]
fn a_request_whose_logits_are_no_numbers_ends_and_no_other() {
    let fixture = common::fixture("parity/mistral-gqa");
    let (engine, hidden) = (engine(), engine().engine.config().hidden_size);
    let damaged = common::build(common::with_nan(&fixture, "model.embed_tokens.weight", 7 * hidden).path(), 16);
    let (sound, executor) = (open(&engine, &ExecutorConfig::default()), open(&damaged, &ExecutorConfig::default()));
    let beams = SamplingConfig { beam_width: 2, ..SamplingConfig::default() };
    let draws = SamplingConfig { num_return_sequences: 3, temperature: 1.0, ..SamplingConfig::default() };
    let (mut failing, mut whole) = (Vec::new(), Vec::new());
    for sampling in [SamplingConfig::default(), beams, draws] {
        for return_prompt_log_probs in [false, true] {
            let output = OutputConfig { return_log_probs: true, return_prompt_log_probs, ..OutputConfig::default() };
            let spec = |prompt: Vec<u32>| RequestSpec {
                output,
                sampling: sampling.clone(),
                streaming: false,
                bad_words: vec![vec![7]],
                ..RequestSpec::new(prompt, 5)
            };
            failing.push(enqueue(&executor, spec((1..20).collect())));
            let id = enqueue(&sound, spec((8..27).collect()));
            let expected = gather(&sound, 1).remove(&id).unwrap();
            whole.push((enqueue(&executor, spec((8..27).collect())), expected));
        }
    }
    let (mut finals, mut found) = (0, Vec::new());
    while finals < failing.len() + whole.len() {
        let responses = executor.await_responses(None);
        finals += responses.iter().filter(|response| response.is_final()).count();
        found.extend(responses);
    }
    for id in failing {
        let of_it: Vec<_> = found.iter().filter(|response| response.request_id() == id).collect();
        let [Response::Error { message, .. }] = of_it[..] else { panic!("{of_it:?}") };
        assert!(message.contains("the model's logits are not numbers"), "{message}");
    }
    for (id, expected) in whole {
        let of_it: Vec<_> = found.iter().filter(|response| response.request_id() == id).collect();
        assert_eq!(of_it.len(), expected.len());
        for (found, expected) in of_it.into_iter().zip(expected) {
            let Response::Result(found) = found else { panic!("{found:?}") };
            let place = |result: &TokenResult| (result.output_token_ids.clone(), result.log_probs.clone());
            assert_eq!(place(found), place(&expected));
        }
    }
}

/// Memory that others take after the engine was opened: what runs goes on, what can start in used blocks starts, and what needs
/// more than there is ends with an error.
#[test]
fn a_request_for_which_there_is_no_memory_ends_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("proc")).unwrap();
    let set_free = |kib: usize| {
        std::fs::write(dir.path().join("proc/meminfo"), format!("MemAvailable: {kib} kB\n")).unwrap();
        // Longer than an answer is good for.
        std::thread::sleep(std::time::Duration::from_millis(150));
    };
    set_free(1 << 20);
    let engine = engine();
    for capacity_scheduler_policy in
        [CapacitySchedulerPolicy::GuaranteedNoEvict, CapacitySchedulerPolicy::MaxUtilization]
    {
        let kv_cache = KvCacheConfig { tokens_per_block: 4, ..KvCacheConfig::default() };
        let config = ExecutorConfig { kv_cache, capacity_scheduler_policy, ..ExecutorConfig::default() };
        let machine = Machine::at(dir.path());
        let executor = CpuExecutor::open_on(machine, &engine.engine, None, &config).unwrap();
        let run = |prompt: std::ops::Range<u32>| {
            let id = enqueue(&executor, RequestSpec { streaming: false, ..RequestSpec::new(prompt.collect(), 8) });
            let mut found = Vec::new();
            while !found.iter().any(Response::is_final) {
                found.extend(executor.await_responses(None));
            }
            assert!(found.iter().all(|response| response.request_id() == id));
            match found.remove(0) {
                Response::Result(result) => Ok(result.output_token_ids),
                Response::Error { message, .. } => Err(message),
            }
        };
        let expected = run(0..8).unwrap();
        set_free(0);
        assert_eq!(run(0..8), Ok(expected.clone()));
        assert_eq!(run(8..16).map(|tokens| tokens.len()), Ok(8));
        for _ in 0..2 {
            let problem = run(0..40).unwrap_err();
            assert!(problem.contains("no memory") && problem.contains("MemAvailable"), "{problem}");
            assert_eq!(run(0..8), Ok(expected.clone()));
        }
        set_free(1 << 20);
        assert_eq!(run(0..40).map(|tokens| tokens.len()), Ok(8));
    }
}

#[test]
fn statistics_count_the_steps() {
    let engine = engine();
    let executor = open(&engine, &ExecutorConfig::default());
    enqueue(&executor, RequestSpec::new(vec![1; 40], 5));
    gather(&executor, 1);
    let stats = executor.iteration_stats();
    // Chunks of 16, 16 and 8 tokens give the first token; four more steps give the others.
    assert_eq!(
        stats.iter().map(|step| step.inflight_batching.num_ctx_tokens).collect::<Vec<_>>(),
        [16, 16, 8, 0, 0, 0, 0]
    );
    assert!(stats.iter().zip(0..).all(|(step, iter)| step.iter == iter && step.num_active_requests == 1));
    assert!(executor.iteration_stats().is_empty());
}

#[test]
fn figures_tell_what_the_cache_spared() {
    let engine = engine();
    let kv_cache = KvCacheConfig { tokens_per_block: 8, ..KvCacheConfig::default() };
    let executor = open(&engine, &ExecutorConfig { kv_cache, ..ExecutorConfig::default() });
    let figures = |sampling| {
        let output = OutputConfig { return_perf_metrics: true, ..OutputConfig::default() };
        let spec = RequestSpec { output, sampling, ..RequestSpec::new((0..40).collect(), 5) };
        let id = enqueue(&executor, spec);
        *gather(&executor, 1)[&id].last().unwrap().perf_metrics.clone().unwrap()
    };
    let blocks = |metrics: &PerfMetrics| (metrics.new_blocks, metrics.reused_blocks, metrics.missed_blocks);
    let span = |metrics: &PerfMetrics| metrics.iterations.1 - metrics.iterations.0 + 1;
    // 44 tokens are cached, in six blocks; the last token of the prompt is computed, so its block is not looked for.
    let cold = figures(SamplingConfig::default());
    assert_eq!((cold.cached_prompt_tokens, blocks(&cold)), (0, (6, 0, 4)));
    // Chunks of 16, 16 and 8 tokens give the first token, and each of four more another one.
    assert_eq!(span(&cold), 7);
    let warm = figures(SamplingConfig::default());
    assert_eq!((warm.cached_prompt_tokens, blocks(&warm), span(&warm)), (32, (2, 4, 0), 5));
    // Each of three sequences finds the prompt; the cached tokens are those of the request, once.
    let three = figures(SamplingConfig { num_return_sequences: 3, ..SamplingConfig::default() });
    assert_eq!((three.cached_prompt_tokens, blocks(&three)), (32, (6, 12, 0)));
}

/// A guide is compiled only for a request that has a place: here there is no tokenizer, which a compilation would say.
#[test]
fn a_full_queue_refuses_before_a_guide_is_compiled() {
    let executor = open(&engine(), &ExecutorConfig { max_queue_size: 1, ..ExecutorConfig::default() });
    let guided = || RequestSpec {
        guided_decoding: Some(GuidedDecodingParams::Json),
        ..RequestSpec::new(vec![1, 2], executor.limits().max_seq_len - 2)
    };
    let request = |spec| Request::new(spec, executor.limits(), executor.vocab_size()).unwrap();
    assert!(matches!(executor.enqueue(request(guided())), Err(EnqueueError::Guide { .. })));
    let long = || RequestSpec { guided_decoding: None, ..guided() };
    let full = loop {
        if let Err(error) = executor.enqueue(request(long())) {
            break error;
        }
    };
    assert_eq!(full, EnqueueError::QueueFull { max_queue_size: 1 });
    assert_eq!(executor.enqueue(request(guided())), Err(full));
    executor.shutdown(Shutdown::Cancel);
}
