//! Ten thousand requests with each type of weights, a third of them cancelled at some moment or left by their client, leave
//! memory and blocks where they were.

#![allow(clippy::unwrap_used, reason = "a test may fail where it likes")]

mod common;

use std::collections::HashMap;

use trtllm::engine_format::WeightType;
use trtllm::runner::executor::{
    CapacitySchedulerPolicy, Executor, ExecutorConfig, FinishReason, KvCacheConfig, Request, RequestId, RequestSpec,
    Response, SamplingConfig,
};
use trtllm::runner::inflight::CpuExecutor;

const ROUNDS: u64 = 10;
const REQUESTS: u64 = 1000;

/// Anonymous memory of this process in KiB; zero where the system does not tell.
fn anonymous_memory() -> i64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    field.and_then(|field| field.trim().strip_suffix("kB")?.trim().parse().ok()).unwrap_or(0)
}

fn spec(number: u64) -> RequestSpec {
    let prompt = (0..1 + number % 40).map(|position| (position * (1 + number % 3) % 60) as u32).collect();
    let mut spec = RequestSpec::new(prompt, 1 + (number % 13) as usize);
    spec.sampling = match number % 7 {
        0 => SamplingConfig { num_return_sequences: 3, temperature: 1.0, seed: number, ..SamplingConfig::default() },
        1 => SamplingConfig { beam_width: 2, num_return_sequences: 2, ..SamplingConfig::default() },
        _ => SamplingConfig { temperature: 1.0, seed: number, ..SamplingConfig::default() },
    };
    spec.streaming = !number.is_multiple_of(5);
    spec.output.return_log_probs = number.is_multiple_of(3);
    spec
}

/// Sends a round of requests in, cancels a third of them at different moments, and takes every response.
fn round(executor: &CpuExecutor, first: u64) -> usize {
    let mut open: HashMap<RequestId, u64> = HashMap::new();
    let (mut cancelled, mut ended) = (0, 0);
    for number in first..first + REQUESTS {
        let request = Request::new(spec(number), executor.limits(), executor.vocab_size()).unwrap();
        let id = executor.enqueue(request).unwrap();
        open.insert(id, number);
        match number % 9 {
            // Before it can have started.
            0 => executor.cancel(id),
            // Some time later: an earlier one, which waits, runs or has ended.
            3 | 6 => executor.cancel(RequestId(id.0.saturating_sub(number % 50))),
            _ => {}
        }
    }
    while !open.is_empty() {
        for response in executor.await_responses(None) {
            let Response::Result(result) = response else { panic!("{response:?}") };
            cancelled += usize::from(result.is_final && result.finish_reason == Some(FinishReason::Cancelled));
            if result.is_final {
                assert!(open.remove(&result.request_id).is_some(), "two final responses");
                ended += 1;
            }
        }
    }
    assert_eq!(ended, REQUESTS);
    cancelled
}

/// One test, since memory is the process's.
#[test]
fn ten_thousand_requests_leave_nothing() {
    for weights in [WeightType::Bf16, WeightType::Int8, WeightType::Int4] {
        requests_leave_nothing(weights);
    }
}

fn requests_leave_nothing(weights: WeightType) {
    let engine = common::build_with(&common::fixture("parity/mistral-gqa"), 64, weights);
    let kv_cache = KvCacheConfig { max_tokens: Some(320), tokens_per_block: 8, ..KvCacheConfig::default() };
    let config = ExecutorConfig {
        capacity_scheduler_policy: CapacitySchedulerPolicy::MaxUtilization,
        kv_cache,
        ..ExecutorConfig::default()
    };
    let executor = CpuExecutor::open(&engine.engine, &config).unwrap();
    let mut cancelled = round(&executor, 0) + round(&executor, REQUESTS);
    let before = anonymous_memory();
    for number in 2..ROUNDS {
        cancelled += round(&executor, number * REQUESTS);
        let last = executor.iteration_stats().pop().unwrap();
        assert_eq!(last.kv_cache.used_num_blocks, 0, "blocks are held though nothing runs");
        assert_eq!((last.num_queued_requests, last.kv_cache.max_num_blocks), (0, 40));
    }
    assert!(cancelled as u64 > ROUNDS * REQUESTS / 10, "{weights}: {cancelled} were cancelled in time");
    // A kilobyte left behind by each of 8000 requests would be twice this; fewer requests would not stand out from what an
    // allocator keeps.
    let grown = anonymous_memory() - before;
    assert!(grown < 4096, "{weights}: {grown} KiB more than before");
}
