//! What the path from TensorRT-LLM's responses to their requests costs: shim, routing, and text. The stand-in for its library
//! gives tokens without delay, each in a response of its own, on a thread that needs a core too.
//!
//! `cargo bench -p trtllm --bench tensorrt_llm`

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs, reason = "a benchmark prints and may fail")]

#[path = "../tests/common/mod.rs"]
mod common;
#[path = "../tests/common/stand_in.rs"]
mod stand_in;

use std::sync::Arc;
use std::time::{Duration, Instant};

use stand_in::StandInEngine;
use trtllm::runner::executor::{Executor, ExecutorConfig, Request, RequestSpec, Response};
use trtllm::runner::session::{Awaited, Session, Submission};
use trtllm::text::tokenizer::LazyTokenizer;

const TOKENS: usize = 400;
const MODEL: &str = "../assets/demo-model";

fn main() {
    println!("tokens without delay, {TOKENS} a request, each in a response of its own");
    println!("{:>8} {:>22} {:>14} {:>14} {:>14}", "streams", "", "requests/s", "tokens/s", "us a token");
    for streams in [1, 64, 256, 1024] {
        let requests = if streams == 1 { 50 } else { 2500.max(2 * streams) };
        report(streams, "routed", requests, routed(streams, requests));
        report(streams, "as text", requests, as_text(streams, requests));
    }
    println!("\nidle for 3 s with an executor and a session open: {:?} of processor time", idle());
}

fn report(streams: usize, what: &str, requests: usize, elapsed: Duration) {
    let seconds = elapsed.as_secs_f64();
    let tokens = (requests * TOKENS) as f64;
    println!(
        "{streams:>8} {what:>22} {:>14.0} {:>14.0} {:>14.3}",
        requests as f64 / seconds,
        tokens / seconds,
        seconds * 1e6 / tokens
    );
}

fn executor(streams: usize) -> (StandInEngine, Arc<dyn Executor>) {
    let engine = StandInEngine::new(MODEL, &format!("max_batch_size {streams}\n"));
    engine.edit(|config| config["build_config"]["max_batch_size"] = streams.into());
    let executor = engine.open(&ExecutorConfig { iter_stats_max_iterations: 0, ..ExecutorConfig::default() });
    (engine, Arc::new(executor))
}

fn request(executor: &dyn Executor) -> Request {
    Request::new(RequestSpec::new(vec![5, 6, 7, 8], TOKENS), executor.limits(), executor.vocab_size()).unwrap()
}

/// Through the executor: requests are replaced as they end.
fn routed(streams: usize, requests: usize) -> Duration {
    let (_engine, executor) = executor(streams);
    let request = request(executor.as_ref());
    let began = Instant::now();
    for _ in 0..streams {
        executor.enqueue(request.clone()).unwrap();
    }
    let (mut open, mut sent, mut tokens) = (streams, streams, 0);
    while open > 0 {
        for response in executor.await_responses(None) {
            let Response::Result(result) = response else { panic!("{response:?}") };
            tokens += result.output_token_ids.len();
            if result.is_final {
                open -= 1;
                if sent < requests {
                    executor.enqueue(request.clone()).unwrap();
                    (sent, open) = (sent + 1, open + 1);
                }
            }
        }
    }
    assert_eq!(tokens, requests * TOKENS);
    began.elapsed()
}

/// Through a session, which makes text of the tokens.
fn as_text(streams: usize, requests: usize) -> Duration {
    let (engine, executor) = executor(streams);
    let request = request(executor.as_ref());
    let session = Session::start(executor, Some(LazyTokenizer::of(engine.path()))).unwrap();
    let began = Instant::now();
    for _ in 0..streams {
        session.submit(Submission::new(request.clone())).unwrap();
    }
    let (mut open, mut sent, mut bytes) = (streams, streams, 0);
    while open > 0 {
        let Awaited::Outputs(outputs) = session.await_outputs(None) else { panic!("closed") };
        for output in outputs {
            bytes += output.text.len();
            if output.response.is_final() {
                open -= 1;
                if sent < requests {
                    session.submit(Submission::new(request.clone())).unwrap();
                    (sent, open) = (sent + 1, open + 1);
                }
            }
        }
    }
    assert!(bytes > requests * TOKENS / 2, "{bytes} bytes of text");
    began.elapsed()
}

/// Processor time of the process while nothing is asked for.
fn idle() -> Duration {
    let (engine, executor) = executor(64);
    let request = request(executor.as_ref());
    let session = Session::start(executor, Some(LazyTokenizer::of(engine.path()))).unwrap();
    session.submit(Submission::new(request)).unwrap();
    while let Awaited::Outputs(outputs) = session.await_outputs(None) {
        if outputs.iter().any(|output| output.response.is_final()) {
            break;
        }
    }
    // Clock ticks of 10 ms.
    let processor_time = || {
        let text = std::fs::read_to_string("/proc/self/stat").unwrap();
        let fields: Vec<_> = text.rsplit(')').next().unwrap().split_whitespace().collect();
        Duration::from_millis(10 * (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()))
    };
    let before = processor_time();
    std::thread::sleep(Duration::from_secs(3));
    processor_time() - before
}
