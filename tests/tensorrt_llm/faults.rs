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
        let refused = executor.enqueue(request(&executor, RequestSpec::new(vec![1], 1)));
        assert!(matches!(refused, Err(EnqueueError::Stalled { .. })), "{refused:?}");
        drop(executor);
    });
}

#[test]
fn after_a_stall_work_is_refused_until_it_is_over() {
    within(60, || {
        let dir = tempfile::tempdir().unwrap();
        let end = dir.path().join("end");
        let settings = format!("latency_us 1000\nstall_after 3\nstall_until {}\n", end.display());
        let executor = StandInEngine::new(MODEL, &settings).open(&impatient());
        for _ in 0..3 {
            enqueue(&executor, RequestSpec::new(vec![1], 400));
        }
        assert!(gather(&executor, 3).iter().filter(|response| is_error(response, "stall_timeout")).count() == 3);
        let offer = || executor.enqueue(request(&executor, RequestSpec::new(vec![1], 5)));
        assert!(matches!(offer(), Err(EnqueueError::Stalled { .. })));
        std::fs::write(end, "").unwrap();
        // What is given up is asked the end of, and new work is taken.
        while let Err(error) = offer() {
            assert!(matches!(error, EnqueueError::Stalled { .. }), "{error}");
            std::thread::yield_now();
        }
        let responses = gather(&executor, 1);
        assert!(
            matches!(responses.last(), Some(Response::Result(last)) if last.finish_reason == Some(FinishReason::Length))
        );
        while executor.load().num_active_requests > 0 {
            std::thread::yield_now();
        }
        let iterations = executor.iteration_stats().last().map_or(0, |stats| stats.iter);
        assert!(iterations < 300, "the requests that were given up ran to their end: {iterations} iterations");
    });
}

/// A request without streaming answers only at its end; that iterations come is a sign of life.
#[test]
fn iterations_without_a_response_are_no_stall() {
    within(30, || {
        let executor = StandInEngine::new(MODEL, "latency_us 100000\n").open(&impatient());
        enqueue(&executor, RequestSpec { streaming: false, ..RequestSpec::new(vec![1], 22) });
        let responses = gather(&executor, 1);
        assert!(
            matches!(&responses[..], [Response::Result(result)] if result.output_token_ids.len() == 22),
            "{responses:?}"
        );
    });
}

#[test]
fn settings_that_cannot_work_with_an_engine_are_refused_by_name() {
    let check = |change: &dyn Fn(&mut ExecutorConfig), edit: &dyn Fn(&mut serde_json::Value), words: Option<&str>| {
        let engine = StandInEngine::new(MODEL, "");
        engine.edit(|config| edit(&mut config["build_config"]));
        let mut config = ExecutorConfig::default();
        change(&mut config);
        match (engine.try_open(&config), words) {
            (Ok(_), None) => {}
            (Err(error @ OpenError::Conflict { .. }), Some(words)) => {
                assert!(error.to_string().contains(words), "{error}");
            }
            (other, words) => panic!("{other:?}, {words:?}"),
        }
    };
    let as_built = |_: &mut serde_json::Value| {};
    let without_paged = |build: &mut serde_json::Value| build["plugin_config"]["use_paged_context_fmha"] = false.into();
    let sink = |config: &mut ExecutorConfig| config.tensorrt_llm.kv_cache.sink_token_length = Some(4);
    check(&sink, &as_built, Some("`kv_cache.sink_token_length`: it was built without plugin_config.streamingllm"));
    check(&sink, &|build| build["plugin_config"]["streamingllm"] = true.into(), None);
    let onboard = |config: &mut ExecutorConfig| config.tensorrt_llm.kv_cache.onboard_blocks = Some(false);
    check(&onboard, &as_built, Some("`kv_cache.onboard_blocks`"));
    check(&onboard, &without_paged, None);
    let window = |config: &mut ExecutorConfig| config.tensorrt_llm.kv_cache.max_attention_window = Some(vec![512, 128]);
    check(&window, &as_built, Some("set max_beam_width to 1"));
    check(&window, &without_paged, None);
    check(&window, &|build| build["max_beam_width"] = 1.into(), None);
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
