//! The CPU executor.

use std::sync::Arc;

use trtllm::runner::executor::{Executor, ExecutorConfig, OutputConfig, RequestSpec};
use trtllm::runner::inflight::CpuExecutor;

use crate::common::{self, Engine};
use crate::subject::{Subject, enqueue, gather};

fn subject() -> Subject {
    let engine = engine();
    Subject { open: Box::new(move |config| Arc::new(open(&engine, config))) }
}

crate::keeps_its_promises!(super::subject);

fn engine() -> Engine {
    common::build(&common::fixture("parity/mistral-gqa"), 16)
}

fn open(engine: &Engine, config: &ExecutorConfig) -> CpuExecutor {
    CpuExecutor::open(&engine.engine, config).unwrap()
}

#[test]
fn threads_and_chunks_do_not_change_a_bit() {
    let fixture = common::fixture("parity/mistral-window");
    let run = |max_num_tokens, threads| {
        let engine = common::build(&fixture, max_num_tokens);
        let executor = open(&engine, &ExecutorConfig { threads: Some(threads), ..ExecutorConfig::default() });
        let output = OutputConfig { return_log_probs: true, return_prompt_log_probs: true, ..OutputConfig::default() };
        let spec = RequestSpec { output, streaming: false, ..RequestSpec::new((0..50).collect(), 20) };
        let id = enqueue(&executor, spec);
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
