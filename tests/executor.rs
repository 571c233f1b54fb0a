//! What the executor contract promises, on every executor that there is.

#![allow(clippy::unwrap_used, reason = "a test may fail where it likes")]

mod common;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use common::Engine;
use trtllm::runner::executor::{
    EnqueueError, Executor, ExecutorConfig, FinishReason, OutputConfig, Request, RequestId, RequestSpec, Response,
    SamplingConfig, Shutdown, TokenResult,
};
use trtllm::runner::inflight::CpuExecutor;

const PATIENCE: Duration = Duration::from_secs(60);

fn engine() -> Engine {
    common::build(&common::fixture("parity/mistral-gqa"), 16)
}

fn open(engine: &Engine, config: &ExecutorConfig) -> CpuExecutor {
    CpuExecutor::open(&engine.engine, config).unwrap()
}

fn request(executor: &dyn Executor, spec: RequestSpec) -> Request {
    Request::new(spec, executor.limits(), executor.vocab_size()).unwrap()
}

/// Takes responses until `finals` final ones have come.
fn gather(executor: &dyn Executor, finals: usize) -> HashMap<RequestId, Vec<TokenResult>> {
    let deadline = Instant::now() + PATIENCE;
    let mut all: HashMap<RequestId, Vec<TokenResult>> = HashMap::new();
    let mut seen = 0;
    while seen < finals {
        assert!(Instant::now() < deadline, "{seen} of {finals} final responses");
        for response in executor.await_responses(Some(Duration::from_secs(1))) {
            let Response::Result(result) = response else { panic!("{response:?}") };
            seen += usize::from(result.is_final);
            let results = all.entry(result.request_id).or_default();
            assert!(!results.last().is_some_and(|last| last.is_final), "a response after the final one");
            assert_eq!(result.is_final, result.finish_reason.is_some());
            assert_eq!(result.is_final, result.is_sequence_final);
            results.push(result);
        }
    }
    assert!(executor.await_responses(Some(Duration::from_millis(20))).is_empty(), "a response too many");
    all
}

fn tokens(results: &[TokenResult]) -> Vec<u32> {
    results.iter().flat_map(|result| result.output_token_ids.clone()).collect()
}

#[test]
fn streaming_and_whole_delivery_agree() {
    let engine = engine();
    let executor = open(&engine, &ExecutorConfig::default());
    let spec = RequestSpec {
        output: OutputConfig { return_log_probs: true, return_prompt_log_probs: true, ..OutputConfig::default() },
        ..RequestSpec::new(vec![3, 1, 4, 1, 5], 12)
    };
    let streamed = executor.enqueue(request(&executor, spec.clone())).unwrap();
    let whole = executor.enqueue(request(&executor, RequestSpec { streaming: false, ..spec })).unwrap();
    let all = gather(&executor, 2);
    assert_eq!(all[&streamed].len(), 12);
    assert_eq!(all[&whole].len(), 1);
    assert_eq!(tokens(&all[&streamed]), tokens(&all[&whole]));
    let log_probs: Vec<f32> = all[&streamed].iter().flat_map(|result| result.log_probs.clone().unwrap()).collect();
    assert_eq!(Some(log_probs), all[&whole][0].log_probs);
    assert_eq!(all[&streamed][0].prompt_log_probs, all[&whole][0].prompt_log_probs);
    assert_eq!(all[&whole][0].prompt_log_probs.as_ref().map(Vec::len), Some(4));
    assert_eq!(all[&streamed].last().unwrap().finish_reason, Some(FinishReason::Length));
}

#[test]
fn any_end_id_ends_and_is_delivered() {
    let engine = engine();
    let executor = open(&engine, &ExecutorConfig::default());
    let spec = RequestSpec::new(vec![3, 1, 4], 10);
    let free = executor.enqueue(request(&executor, spec.clone())).unwrap();
    let output = tokens(&gather(&executor, 1)[&free]);
    let end = output[4];
    let first = output.iter().position(|&token| token == end).unwrap();
    let ended = executor.enqueue(request(&executor, RequestSpec { end_ids: vec![end], ..spec })).unwrap();
    let results = &gather(&executor, 1)[&ended];
    assert_eq!(tokens(results), output[..=first]);
    assert_eq!(results.last().unwrap().finish_reason, Some(FinishReason::EndId));
}

#[test]
fn a_seed_decides_the_draws() {
    let engine = engine();
    let executor = open(&engine, &ExecutorConfig::default());
    let run = |seed| {
        let sampling = SamplingConfig { temperature: 1.0, top_p: 0.95, seed, ..SamplingConfig::default() };
        let spec = RequestSpec { sampling, ..RequestSpec::new(vec![7, 8, 9], 20) };
        let id = executor.enqueue(request(&executor, spec)).unwrap();
        tokens(&gather(&executor, 1)[&id])
    };
    let (first, again, other) = (run(1), run(1), run(2));
    assert_eq!(first, again);
    assert_ne!(first, other);
}

#[test]
fn threads_and_chunks_do_not_change_a_bit() {
    let fixture = common::fixture("parity/mistral-window");
    let run = |max_num_tokens, threads| {
        let engine = common::build(&fixture, max_num_tokens);
        let executor = open(&engine, &ExecutorConfig { threads: Some(threads), ..ExecutorConfig::default() });
        let output = OutputConfig { return_log_probs: true, return_prompt_log_probs: true, ..OutputConfig::default() };
        let spec = RequestSpec { output, streaming: false, ..RequestSpec::new((0..50).collect(), 20) };
        let id = executor.enqueue(request(&executor, spec)).unwrap();
        let result = gather(&executor, 1).remove(&id).unwrap().remove(0);
        let bits = |values: Option<Vec<f32>>| values.unwrap().iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        (result.output_token_ids, bits(result.log_probs), bits(result.prompt_log_probs))
    };
    let alone = run(128, 1);
    for (max_num_tokens, threads) in [(1, 1), (7, 2), (33, 3), (128, 4)] {
        assert!(alone == run(max_num_tokens, threads), "chunks of {max_num_tokens}, {threads} threads");
    }
}

#[test]
fn cancelled_requests_still_end_once() {
    let engine = engine();
    let executor = open(&engine, &ExecutorConfig::default());
    let long = RequestSpec::new(vec![1], executor.limits().max_seq_len - 1);
    let ids: Vec<_> = (0..20).map(|_| executor.enqueue(request(&executor, long.clone())).unwrap()).collect();
    ids.iter().rev().for_each(|&id| executor.cancel(id));
    executor.cancel(RequestId(u64::MAX));
    let all = gather(&executor, 20);
    let reasons: Vec<_> = ids.iter().map(|id| all[id].last().unwrap().finish_reason.unwrap()).collect();
    assert!(reasons[1..].iter().all(|&reason| reason == FinishReason::Cancelled), "{reasons:?}");
}

#[test]
fn a_full_queue_refuses_and_names_its_limit() {
    let engine = engine();
    let executor = open(&engine, &ExecutorConfig { max_queue_size: 2, ..ExecutorConfig::default() });
    let spec = RequestSpec::new(vec![1], executor.limits().max_seq_len - 1);
    let mut accepted = 0;
    let refused = loop {
        match executor.enqueue(request(&executor, spec.clone())) {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
        assert!(accepted < 1000, "the queue is never full");
    };
    assert_eq!(refused, EnqueueError::QueueFull { max_queue_size: 2 });
    assert!(refused.to_string().contains("max_queue_size is 2"));
    executor.shutdown(Shutdown::Cancel);
    gather(&executor, accepted);
}

#[test]
fn shutdown_drains_or_cancels_then_refuses() {
    let engine = engine();
    for (how, expected) in [(Shutdown::Drain, FinishReason::Length), (Shutdown::Cancel, FinishReason::Cancelled)] {
        let executor = open(&engine, &ExecutorConfig::default());
        let ids: Vec<_> =
            (0..3).map(|_| executor.enqueue(request(&executor, RequestSpec::new(vec![2; 9], 100))).unwrap()).collect();
        executor.shutdown(how);
        let late = executor.enqueue(request(&executor, RequestSpec::new(vec![2], 1)));
        assert_eq!(late, Err(EnqueueError::ShutDown));
        let all = gather(&executor, 3);
        assert_eq!(all[&ids[2]].last().unwrap().finish_reason, Some(expected));
        assert!(executor.await_responses(None).is_empty(), "nothing more can come");
    }
}

#[test]
fn waiting_uses_no_processor_time() {
    let engine = engine();
    let executor = open(&engine, &ExecutorConfig::default());
    gather(&executor, 0);
    let processor_time = || {
        let text = std::fs::read_to_string("/proc/self/task/self/stat")
            .or_else(|_| std::fs::read_to_string("/proc/thread-self/stat"));
        let text = text.unwrap();
        let fields: Vec<_> = text.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = processor_time();
    assert!(executor.await_responses(Some(Duration::from_millis(500))).is_empty());
    // Clock ticks of 10 ms: a spin would take fifty.
    assert!(processor_time() - before <= 5);
}

#[test]
fn statistics_count_the_steps() {
    let engine = engine();
    let executor = open(&engine, &ExecutorConfig::default());
    executor.enqueue(request(&executor, RequestSpec::new(vec![1; 40], 5))).unwrap();
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
