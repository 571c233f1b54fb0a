//! What every executor promises of its whole life: time that is over, full queues, shutdown, waiting, threads, statistics.

use std::sync::Arc;
use std::time::{Duration, Instant};

use trtllm::runner::executor::{EnqueueError, Executor, ExecutorConfig, FinishReason, RequestSpec, Response, Shutdown};

use crate::promises::{drawing, long};
use crate::subject::{Subject, enqueue, gather, output_of, request};

pub(crate) fn figures_of_a_request_are_consistent(subject: &Subject) {
    let executor = subject.default();
    let mut spec = RequestSpec::new((0..40).collect(), 8);
    spec.output.return_perf_metrics = true;
    for num_return_sequences in [1, 3] {
        spec.sampling.num_return_sequences = num_return_sequences;
        let id = enqueue(executor.as_ref(), spec.clone());
        let results = gather(executor.as_ref(), 1).remove(&id).unwrap();
        let (last, earlier) = results.split_last().unwrap();
        assert!(earlier.iter().all(|result| result.perf_metrics.is_none()), "before the final response");
        let metrics = last.perf_metrics.as_deref().unwrap();
        assert!(metrics.first_token > Duration::ZERO, "{metrics:?}");
        assert!(metrics.first_scheduled <= metrics.first_token && metrics.first_token <= metrics.last_token);
        let parts = metrics.queue_time() + metrics.context_time() + metrics.generation_time();
        assert_eq!(parts, metrics.last_token);
        assert!(metrics.iterations.0 < metrics.iterations.1, "{metrics:?}");
    }
    spec.output.return_perf_metrics = false;
    let id = enqueue(executor.as_ref(), spec);
    assert!(gather(executor.as_ref(), 1)[&id].iter().all(|result| result.perf_metrics.is_none()));
}

pub(crate) fn whoever_shuts_down_waits_for_the_end(subject: &Subject) {
    let executor = subject.default();
    let requests = 8;
    (0..requests).for_each(|_| _ = enqueue(executor.as_ref(), long(executor.as_ref())));
    let shut_down = |_| {
        let executor = executor.clone();
        std::thread::spawn(move || {
            executor.shutdown(Shutdown::Drain);
            executor.load()
        })
    };
    let threads: Vec<_> = (0..2).map(shut_down).collect();
    for thread in threads {
        let load = thread.join().unwrap();
        assert_eq!((load.num_queued_requests, load.num_active_requests), (0, 0), "it returned before the end");
    }
    gather(executor.as_ref(), requests);
}

pub(crate) fn an_allotted_time_ends_a_request(subject: &Subject) {
    let executor = subject.default();
    let spec = RequestSpec { allotted_time: Some(Duration::from_nanos(1)), ..long(executor.as_ref()) };
    let id = enqueue(executor.as_ref(), spec);
    let results = &gather(executor.as_ref(), 1)[&id];
    assert_eq!(results.last().unwrap().finish_reason, Some(FinishReason::TimedOut));
}

pub(crate) fn a_full_queue_refuses_and_names_its_limit(subject: &Subject) {
    let executor = (subject.open)(&ExecutorConfig { max_queue_size: 2, ..ExecutorConfig::default() });
    let mut accepted = 0;
    let refused = loop {
        match executor.enqueue(request(executor.as_ref(), long(executor.as_ref()))) {
            Ok(_) => accepted += 1,
            Err(error) => break error,
        }
        assert!(accepted < 1000, "the queue is never full");
    };
    assert_eq!(refused, EnqueueError::QueueFull { max_queue_size: 2 });
    assert!(refused.to_string().contains("max_queue_size is 2"));
    executor.shutdown(Shutdown::Cancel);
    gather(executor.as_ref(), accepted);
}

pub(crate) fn shutdown_drains_or_cancels_then_refuses(subject: &Subject) {
    for (how, expected) in [(Shutdown::Drain, FinishReason::Length), (Shutdown::Cancel, FinishReason::Cancelled)] {
        let executor = subject.default();
        let ids: Vec<_> = (0..3).map(|_| enqueue(executor.as_ref(), RequestSpec::new(vec![2; 9], 100))).collect();
        executor.shutdown(how);
        executor.shutdown(how);
        let late = executor.enqueue(request(executor.as_ref(), RequestSpec::new(vec![2], 1)));
        assert_eq!(late, Err(EnqueueError::ShutDown));
        let all = gather(executor.as_ref(), 3);
        assert_eq!(all[&ids[2]].last().unwrap().finish_reason, Some(expected));
        assert!(executor.await_responses(None).is_empty(), "nothing more can come");
    }
}

pub(crate) fn a_shutdown_wakes_who_waits(subject: &Subject) {
    let executor = subject.default();
    let waiting = executor.clone();
    let waiter = std::thread::spawn(move || waiting.await_responses(None));
    std::thread::sleep(Duration::from_millis(20));
    executor.shutdown(Shutdown::Drain);
    assert!(waiter.join().unwrap().is_empty());
}

pub(crate) fn dropping_an_executor_ends_its_work(subject: &Subject) {
    let began = Instant::now();
    let executor = subject.default();
    for _ in 0..20 {
        enqueue(executor.as_ref(), long(executor.as_ref()));
    }
    drop(executor);
    assert!(began.elapsed() < Duration::from_secs(30));
}

pub(crate) fn waiting_uses_no_processor_time(subject: &Subject) {
    let executor = subject.default();
    gather(executor.as_ref(), 0);
    let processor_time = || {
        let text = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
        let fields: Vec<_> = text.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = processor_time();
    assert!(executor.await_responses(Some(Duration::from_millis(500))).is_empty());
    // Clock ticks of 10 ms: a spin would take fifty.
    assert!(processor_time() - before <= 5);
}

pub(crate) fn threads_share_an_executor(subject: &Subject) {
    let executor = subject.default();
    let alone = output_of(executor.as_ref(), drawing(3, 6));
    let submit = |_| {
        let executor: Arc<dyn Executor> = executor.clone();
        std::thread::spawn(move || (0..25).map(|_| enqueue(executor.as_ref(), drawing(3, 6))).collect::<Vec<_>>())
    };
    let submitters: Vec<_> = (0..4).map(submit).collect();
    let await_some = |_| {
        let executor: Arc<dyn Executor> = executor.clone();
        std::thread::spawn(move || {
            let (mut finals, mut tokens) = (0, 0);
            loop {
                let responses = executor.await_responses(None);
                if responses.is_empty() {
                    return (finals, tokens);
                }
                for response in responses {
                    let Response::Result(result) = response else { panic!("{response:?}") };
                    finals += usize::from(result.is_final);
                    tokens += result.output_token_ids.len();
                }
            }
        })
    };
    let waiters: Vec<_> = (0..2).map(await_some).collect();
    let ids: std::collections::HashSet<_> =
        submitters.into_iter().flat_map(|thread| thread.join().unwrap()).map(|id| id.0).collect();
    assert_eq!(ids.len(), 100, "every request has an id of its own");
    executor.shutdown(Shutdown::Drain);
    let seen = waiters.into_iter().map(|thread| thread.join().unwrap());
    let (finals, tokens) = seen.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    assert_eq!((finals, tokens), (100, 100 * alone.len()));
}

pub(crate) fn statistics_are_taken_once(subject: &Subject) {
    let executor = subject.default();
    enqueue(executor.as_ref(), RequestSpec::new(vec![1; 10], 5));
    gather(executor.as_ref(), 1);
    let stats = executor.iteration_stats();
    assert!(!stats.is_empty());
    assert!(stats.iter().is_sorted_by(|a, b| a.iter < b.iter));
    assert_eq!(stats.iter().map(|step| step.num_completed_requests).sum::<usize>(), 1);
    assert!(executor.iteration_stats().is_empty());

    let executor = (subject.open)(&ExecutorConfig { iter_stats_max_iterations: 0, ..ExecutorConfig::default() });
    enqueue(executor.as_ref(), RequestSpec::new(vec![1; 10], 5));
    gather(executor.as_ref(), 1);
    assert!(executor.iteration_stats().is_empty());
}
