//! The library throws, stalls, lies, and ends badly. Every request still ends once, and nobody hangs.

use trtllm::runner::executor::tensorrt_llm::OpenError;
use trtllm::runner::executor::{EnqueueError, Executor, ExecutorConfig, FinishReason, RequestSpec, Response, Shutdown};

use crate::deadline::{enqueue, gather, request, within};
use crate::stand_in::StandInEngine;

const MODEL: &str = "parity/mistral-gqa";

fn impatient() -> ExecutorConfig {
    let mut config = ExecutorConfig::default();
    (config.tensorrt_llm.stall_timeout, config.tensorrt_llm.shutdown_timeout) = (1, 1);
    config
}

fn is_error(response: &Response, text: &str) -> bool {
    matches!(response, Response::Error { message, .. } if message.contains(text))
}

#[test]
fn what_is_thrown_while_opening_is_an_error() {
    for (what, text) in [("runtime", "told to throw"), ("range", "told to throw"), ("int", "no exception")] {
        let engine = StandInEngine::new(MODEL, &format!("throw_in construct\nthrow_what {what}\n"));
        let error = engine.try_open(&ExecutorConfig::default()).unwrap_err();
        let OpenError::Open { source, .. } = error else { panic!("{error}") };
        assert!(source.to_string().contains(text), "{source}");
    }
}

#[test]
fn what_is_thrown_at_a_request_refuses_it() {
    within(30, || {
        let engine = StandInEngine::new(MODEL, "throw_in enqueue\nthrow_after 1\n");
        let executor = engine.open(&ExecutorConfig::default());
        enqueue(&executor, RequestSpec::new(vec![1], 3));
        let refused = executor.enqueue(request(&executor, RequestSpec::new(vec![1], 3)));
        assert!(matches!(&refused, Err(EnqueueError::Refused { problem, .. }) if problem.contains("told to throw")));
        gather(&executor, 1);
    });
}

#[test]
fn responses_that_cannot_be_awaited_end_every_request() {
    for what in ["runtime", "int"] {
        within(30, move || {
            let settings = format!("throw_in await\nthrow_after 2\nthrow_what {what}\nlatency_us 2000\n");
            let executor = StandInEngine::new(MODEL, &settings).open(&ExecutorConfig::default());
            let mut accepted = 0;
            for _ in 0..10 {
                accepted += usize::from(executor.enqueue(request(&executor, RequestSpec::new(vec![1], 400))).is_ok());
            }
            let responses = gather(&executor, accepted);
            let failed = responses.iter().filter(|response| is_error(response, "cannot be awaited")).count();
            assert_eq!(failed, accepted);
            let late = executor.enqueue(request(&executor, RequestSpec::new(vec![1], 1)));
            assert!(matches!(late, Err(EnqueueError::Failed { .. })), "{late:?}");
        });
    }
}

#[test]
fn a_cancel_that_throws_lets_the_request_run() {
    within(30, || {
        let executor = StandInEngine::new(MODEL, "throw_in cancel\nlatency_us 300\n").open(&ExecutorConfig::default());
        let id = enqueue(&executor, RequestSpec::new(vec![1], 30));
        executor.cancel(id);
        let responses = gather(&executor, 1);
        let Some(Response::Result(last)) = responses.last() else { panic!("{responses:?}") };
        assert_eq!(last.finish_reason, Some(FinishReason::Length));
    });
}

#[test]
fn statistics_that_throw_are_none() {
    let executor = StandInEngine::new(MODEL, "throw_in stats\n").open(&ExecutorConfig::default());
    assert!(executor.iteration_stats().is_empty());
}

#[test]
fn a_shutdown_that_throws_is_a_shutdown() {
    within(30, || {
        let executor = StandInEngine::new(MODEL, "throw_in shutdown\n").open(&ExecutorConfig::default());
        enqueue(&executor, RequestSpec::new(vec![1], 3));
        executor.shutdown(Shutdown::Drain);
        assert_eq!(gather(&executor, 1).iter().filter(|response| response.is_final()).count(), 1);
    });
}

#[test]
fn a_stall_ends_every_request_and_the_executor() {
    within(30, || {
        let executor = StandInEngine::new(MODEL, "stall_after 3\n").open(&impatient());
        for _ in 0..5 {
            enqueue(&executor, RequestSpec::new(vec![1], 50));
        }
        let responses = gather(&executor, 5);
        assert_eq!(responses.iter().filter(|response| is_error(response, "stall_timeout")).count(), 5);
        assert!(matches!(
            executor.enqueue(request(&executor, RequestSpec::new(vec![1], 1))),
            Err(EnqueueError::Failed { .. })
        ));
        drop(executor);
    });
}

#[test]
fn cancelled_requests_that_do_not_end_are_given_up_at_shutdown() {
    within(30, || {
        let executor = StandInEngine::new(MODEL, "ignore_cancel 1\nlatency_us 100000\n").open(&impatient());
        enqueue(&executor, RequestSpec::new(vec![1], 400));
        executor.shutdown(Shutdown::Cancel);
        assert!(is_error(gather(&executor, 1).last().unwrap(), "shutdown_timeout"));
    });
}

#[test]
fn a_reason_that_does_not_exist_is_carried() {
    let executor = StandInEngine::new(MODEL, "unknown_finish_reason 1\n").open(&ExecutorConfig::default());
    enqueue(&executor, RequestSpec::new(vec![1], 3));
    let responses = gather(&executor, 1);
    let Some(Response::Result(last)) = responses.last() else { panic!("{responses:?}") };
    assert_eq!(last.finish_reason, Some(FinishReason::Unknown(99)));
    assert_eq!(FinishReason::Unknown(99).name(), "unknown");
}

#[test]
fn a_response_may_come_before_its_request_has_returned() {
    within(30, || {
        let executor = StandInEngine::new(MODEL, "hasty 1\n").open(&ExecutorConfig::default());
        for _ in 0..20 {
            enqueue(&executor, RequestSpec::new(vec![1], 3));
        }
        let responses = gather(&executor, 20);
        let tokens = |response: &Response| match response {
            Response::Result(result) => result.output_token_ids.len(),
            error => panic!("{error:?}"),
        };
        assert_eq!(responses.iter().map(tokens).sum::<usize>(), 60);
    });
}

#[test]
fn an_engine_of_another_release_is_not_loaded() {
    let engine = StandInEngine::new(MODEL, "throw_in construct\n");
    engine.edit(|config| config["version"] = "1.1.0".into());
    let error = engine.try_open(&ExecutorConfig::default()).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, OpenError::Version { .. }) && text.contains("1.1.0") && text.contains("1.2.0"), "{text}");
}

#[test]
fn a_rank_that_is_not_there_is_named() {
    let engine = StandInEngine::new(MODEL, "");
    std::fs::remove_file(engine.path().join("rank0.engine")).unwrap();
    let error = engine.try_open(&ExecutorConfig::default()).unwrap_err().to_string();
    assert!(error.contains("rank0.engine"), "{error}");
}
