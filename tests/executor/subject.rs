//! An executor under test, and what every promise needs.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use trtllm::runner::executor::{
    EnqueueError, Executor, ExecutorConfig, Request, RequestId, RequestSpec, Response, TokenResult,
};

const PATIENCE: Duration = Duration::from_secs(60);

/// Makes executors of one kind.
pub(crate) struct Subject {
    pub(crate) open: Box<Open>,
}

type Open = dyn Fn(&ExecutorConfig) -> Arc<dyn Executor>;

impl Subject {
    /// An executor of the default configuration.
    pub(crate) fn default(&self) -> Arc<dyn Executor> {
        (self.open)(&ExecutorConfig::default())
    }
}

pub(crate) fn request(executor: &dyn Executor, spec: RequestSpec) -> Request {
    Request::new(spec, executor.limits(), executor.vocab_size()).unwrap()
}

pub(crate) fn enqueue(executor: &dyn Executor, spec: RequestSpec) -> RequestId {
    executor.enqueue(request(executor, spec)).unwrap()
}

/// Enqueues what an executor may not have: `None` where it says so by name.
pub(crate) fn enqueue_if_known(executor: &dyn Executor, spec: RequestSpec) -> Option<RequestId> {
    match executor.enqueue(request(executor, spec)) {
        Ok(id) => Some(id),
        Err(EnqueueError::Unsupported { executor, feature, .. }) => {
            assert!(!executor.is_empty() && !feature.is_empty());
            None
        }
        Err(error) => panic!("{error}"),
    }
}

pub(crate) type Results = HashMap<RequestId, Vec<TokenResult>>;

/// Takes responses until `finals` final ones have come, and checks what holds for all: nothing comes after an end, each
/// sequence ends once, with a reason, and the request with its last sequence.
pub(crate) fn gather(executor: &dyn Executor, finals: usize) -> Results {
    let deadline = Instant::now() + PATIENCE;
    let mut all = Results::new();
    let mut seen = 0;
    while seen < finals {
        assert!(Instant::now() < deadline, "{seen} of {finals} final responses");
        for response in executor.await_responses(Some(Duration::from_secs(1))) {
            let Response::Result(result) = response else { panic!("{response:?}") };
            seen += usize::from(result.is_final);
            let results = all.entry(result.request_id).or_default();
            let ended = |earlier: &TokenResult| {
                earlier.is_final || earlier.is_sequence_final && earlier.sequence_index == result.sequence_index
            };
            assert!(!results.iter().any(ended), "{result:?} came after an end");
            assert_eq!(result.is_sequence_final, result.finish_reason.is_some());
            assert!(result.is_sequence_final || !result.is_final);
            results.push(result);
        }
    }
    assert!(executor.await_responses(Some(Duration::from_millis(20))).is_empty(), "a response too many");
    all
}

pub(crate) fn tokens(results: &[TokenResult]) -> Vec<u32> {
    results.iter().flat_map(|result| result.output_token_ids.clone()).collect()
}

/// The tokens of one sequence.
pub(crate) fn tokens_of(results: &[TokenResult], sequence_index: usize) -> Vec<u32> {
    let own = results.iter().filter(|result| result.sequence_index == sequence_index);
    own.flat_map(|result| result.output_token_ids.clone()).collect()
}

/// The output of one request alone.
pub(crate) fn output_of(executor: &dyn Executor, spec: RequestSpec) -> Vec<u32> {
    let id = enqueue(executor, spec);
    tokens(&gather(executor, 1)[&id])
}
