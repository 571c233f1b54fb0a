//! What is cancelled, late or shut down while a pass runs does not wait for its end.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail where it likes")]

use std::time::{Duration, Instant};

use runner::executor::{
    Executor, ExecutorConfig, FinishReason, Limits, Request, RequestId, RequestSpec, Response, Shutdown, TokenId,
};
use runner::inflight::CpuExecutor;
use runner::scripted_model::{Script, ScriptedModel};

const LIMITS: Limits = Limits { max_seq_len: 512, max_batch_size: 8, max_num_tokens: 64 };

/// A layer takes 50 ms, a pass 4 s.
const LAYERS: u32 = 80;
const PASS: Duration = Duration::from_secs(4);

/// Far less than a pass, and enough layers for a busy machine.
const SOON: Duration = Duration::from_secs(2);

fn executor() -> CpuExecutor {
    let script = Script { latency_per_step: PASS, num_layers: LAYERS, ..Script::default() };
    CpuExecutor::with_model(ScriptedModel::new(script).unwrap(), LIMITS, &ExecutorConfig::default()).unwrap()
}

fn enqueue(executor: &CpuExecutor, spec: RequestSpec) -> RequestId {
    executor.enqueue(Request::new(spec, executor.limits(), executor.vocab_size()).unwrap()).unwrap()
}

/// Waits until the owner has begun an iteration with what was sent in.
fn until_it_runs(executor: &CpuExecutor) {
    while executor.load().num_active_requests + executor.load().num_queued_requests == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(200));
}

/// The next response, which ends a request: which, how, and when.
fn end(executor: &CpuExecutor) -> (RequestId, FinishReason, Instant) {
    let responses = executor.await_responses(Some(Duration::from_secs(60)));
    let [Response::Result(result)] = responses.as_slice() else { panic!("{responses:?}") };
    assert!(result.is_final, "{result:?}");
    (result.request_id, result.finish_reason.unwrap(), Instant::now())
}

fn expected(prompt: &[TokenId], count: usize) -> Vec<TokenId> {
    let next = Script::default().next_token;
    let mut sequence = prompt.to_vec();
    (0..count).for_each(|_| sequence.push(next(&sequence)));
    sequence.split_off(prompt.len())
}

#[test]
fn a_cancelled_prompt_ends_and_its_pass_is_dropped() {
    let executor = executor();
    let long = enqueue(&executor, RequestSpec::new((0..60).collect(), 3));
    let short = enqueue(&executor, RequestSpec { streaming: false, ..RequestSpec::new(vec![9], 1) });
    until_it_runs(&executor);
    let asked = Instant::now();
    executor.cancel(long);
    let (id, reason, ended) = end(&executor);
    assert_eq!((id, reason), (long, FinishReason::Cancelled));
    assert!(ended - asked < SOON, "{:?}", ended - asked);
    // The other's token takes a pass of its own, and comes as it would alone.
    let responses = executor.await_responses(None);
    let [Response::Result(result)] = responses.as_slice() else { panic!("{responses:?}") };
    assert_eq!((result.request_id, &result.output_token_ids), (short, &expected(&[9], 1)));
    let passes = executor.iteration_stats();
    assert_eq!(passes.len(), 1, "{passes:?}");
    assert_eq!(passes[0].inflight_batching.num_ctx_tokens, 1);
}

#[test]
fn one_that_is_cancelled_ends_while_the_pass_goes_on_for_others() {
    let executor = executor();
    let short = enqueue(&executor, RequestSpec::new(vec![9], 1));
    let long = enqueue(&executor, RequestSpec { streaming: false, ..RequestSpec::new((0..60).collect(), 1) });
    until_it_runs(&executor);
    let asked = Instant::now();
    executor.cancel(short);
    let (id, reason, ended) = end(&executor);
    assert_eq!((id, reason), (short, FinishReason::Cancelled));
    assert!(ended - asked < SOON, "{:?}", ended - asked);
    let responses = executor.await_responses(None);
    let [Response::Result(result)] = responses.as_slice() else { panic!("{responses:?}") };
    let prompt: Vec<_> = (0..60).collect();
    assert_eq!((result.request_id, &result.output_token_ids), (long, &expected(&prompt, 1)));
    // Both were in the one pass that there was.
    let passes: Vec<_> = executor.iteration_stats().iter().map(|pass| pass.inflight_batching.num_ctx_tokens).collect();
    assert_eq!(passes, [61]);
}

#[test]
fn time_that_is_over_is_heard_wherever_the_request_is() {
    let executor = executor();
    let allotted = |millis| Some(Duration::from_millis(millis));
    let began = Instant::now();
    // It runs, and most of the pass is for another.
    let runs = RequestSpec { allotted_time: allotted(300), ..RequestSpec::new(vec![9], 1) };
    let runs = enqueue(&executor, runs);
    let long = enqueue(&executor, RequestSpec::new((0..60).collect(), 1));
    until_it_runs(&executor);
    // It has not been looked at.
    let arrived = RequestSpec { allotted_time: allotted(500), ..RequestSpec::new(vec![8], 1) };
    let arrived = enqueue(&executor, arrived);
    let ends = [end(&executor), end(&executor)];
    assert_eq!(ends.map(|(id, reason, _)| (id, reason)), [runs, arrived].map(|id| (id, FinishReason::TimedOut)));
    assert!(ends[1].2 - began < SOON, "{:?}", ends[1].2 - began);
    assert_eq!(executor.load().num_queued_requests, 0);
    executor.cancel(long);
    assert_eq!(end(&executor).0, long);
}

#[test]
fn a_shutdown_that_cancels_does_not_wait_for_the_pass() {
    let executor = executor();
    let ids = [60, 1].map(|length| enqueue(&executor, RequestSpec::new((0..length).collect(), 5)));
    until_it_runs(&executor);
    let asked = Instant::now();
    executor.shutdown(Shutdown::Cancel);
    assert!(asked.elapsed() < SOON, "{:?}", asked.elapsed());
    let responses = executor.await_responses(None);
    let ended: Vec<_> = responses.iter().filter(|response| response.is_final()).map(Response::request_id).collect();
    assert!(ids.iter().all(|id| ended.contains(id)) && ended.len() == 2, "{responses:?}");
}
