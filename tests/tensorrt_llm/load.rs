//! Many requests, many threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use trtllm::runner::executor::{EnqueueError, Executor, ExecutorConfig, OutputConfig, RequestSpec, Response};

use crate::deadline::{request, within};
use crate::stand_in::StandInEngine;

const MODEL: &str = "parity/mistral-gqa";

/// Takes responses on a thread until `finals` requests have ended; gives the tokens that came.
fn taker(executor: &Arc<impl Executor + 'static>, finals: usize) -> std::thread::JoinHandle<usize> {
    let executor = executor.clone();
    std::thread::spawn(move || {
        let (mut seen, mut tokens) = (0, 0);
        while seen < finals {
            for response in executor.await_responses(Some(Duration::from_secs(60))) {
                seen += usize::from(response.is_final());
                if let Response::Result(result) = response {
                    tokens += result.output_token_ids.len();
                }
            }
        }
        tokens
    })
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

#[test]
fn fifty_thousand_requests_end_and_leave_nothing() {
    within(300, || {
        const ROUND: usize = 10_000;
        let executor = Arc::new(StandInEngine::new(MODEL, "").open(&ExecutorConfig::default()));
        let mut resident = Vec::new();
        for _ in 0..5 {
            let taker = taker(&executor, ROUND);
            for number in 0..ROUND {
                let mut spec = RequestSpec::new(vec![1, 2, 3], 4);
                spec.streaming = number % 3 != 0;
                loop {
                    match executor.enqueue(request(executor.as_ref(), spec.clone())) {
                        Ok(id) if number % 10 == 0 => break executor.cancel(id),
                        Ok(_) => break,
                        Err(EnqueueError::QueueFull { .. }) => std::thread::yield_now(),
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            let tokens = taker.join().unwrap();
            assert!((ROUND * 9 / 10 * 4..=ROUND * 4).contains(&tokens), "{tokens}");
            resident.push(resident_bytes());
        }
        // The first round fills pools; prompts are kept once.
        assert!(resident[4] < resident[1] + (32 << 20), "memory grows: {resident:?}");
    });
}

#[test]
fn storms_of_cancellations_end_every_request_once() {
    within(120, || {
        const THREADS: usize = 8;
        const REQUESTS: usize = 250;
        let executor = Arc::new(StandInEngine::new(MODEL, "latency_us 50\n").open(&ExecutorConfig::default()));
        let taker = taker(&executor, THREADS * REQUESTS);
        let cancelled = Arc::new(AtomicUsize::new(0));
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (executor, cancelled) = (executor.clone(), cancelled.clone());
                std::thread::spawn(move || {
                    for number in 0..REQUESTS {
                        let mut spec = RequestSpec::new(vec![1 + thread as u32], 20);
                        // Those whose cancellation TensorRT-LLM must not be told of, too.
                        spec.output = OutputConfig { return_log_probs: number % 2 == 0, ..OutputConfig::default() };
                        spec.sampling.num_return_sequences = 1 + number % 3;
                        let id = executor.enqueue(request(executor.as_ref(), spec)).unwrap();
                        for _ in 0..number % 4 {
                            executor.cancel(id);
                            cancelled.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        taker.join().unwrap();
        assert!(cancelled.load(Ordering::Relaxed) > REQUESTS);
        assert!(executor.await_responses(Some(Duration::from_millis(50))).is_empty(), "a response too many");
    });
}
