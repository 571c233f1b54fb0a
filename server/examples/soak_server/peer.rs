//! `serve-engine` and llama.cpp's server beside each other: the same small model, the same client, the same requests.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::{Value as Json, json};

use super::client::{Client, completion, get};
use super::figures::quantile;
use super::process::{Process, until};
use super::start;

/// Tokens of an answer.
const TOKENS: usize = 64;

/// What a run of requests came to.
struct Run {
    tokens_per_second: f64,
    requests_per_second: f64,
    first_token_ms: f64,
    cpu_ms_per_token: f64,
    threads: String,
}

/// A figure of a run.
type Of = fn(&Run) -> f64;

/// llama.cpp's server, ready.
async fn llama(program: &Path, gguf: &Path, parallel: usize) -> anyhow::Result<Process> {
    // It cannot be told to take any port and to say which.
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let mut command = Command::new(program);
    command.args(["--host", "127.0.0.1", "--port", &port.to_string(), "--threads", "2", "--threads-batch", "2"]);
    command.args(["--parallel", &parallel.to_string(), "--ctx-size", &(1024 * parallel).to_string()]);
    command.arg("--model").arg(gguf);
    let server = Process::at(command, ([127, 0, 0, 1], port).into())?;
    let is_ready = async || Ok(matches!(get(server.address, "/health").await, Ok(reply) if reply.status == 200));
    until("llama.cpp's server is ready", Duration::from_secs(120), is_ready).await?;
    Ok(server)
}

/// Sends `requests` requests, `clients` at once, and reads their streams.
async fn run(server: &Process, clients: usize, requests: usize, turn: usize) -> anyhow::Result<Run> {
    let address = server.address;
    let (before, began) = (server.cpu()?, Instant::now());
    let mut tasks = tokio::task::JoinSet::new();
    for client in 0..clients {
        tasks.spawn(async move {
            let mut times = Vec::new();
            for number in (client..requests).step_by(clients) {
                // Each begins otherwise, so that no prompt is in a cache.
                let prompt = format!("{turn}{number}. {}", ["The planets of our solar system are "; 6].concat());
                let body = json!({
                    "prompt": prompt, "max_tokens": TOKENS, "temperature": 0, "stream": true, "ignore_eos": true,
                });
                let began = Instant::now();
                // llama.cpp's server closes a connection after a stream.
                let mut connection = Client::connect(address).await?;
                connection.send(&completion(&body)).await?;
                ensure!(connection.head().await? == 200, "a stream was refused");
                let (mut part, mut text, mut first) = (Vec::new(), Vec::new(), None);
                while connection.part(&mut part).await? {
                    first.get_or_insert_with(|| began.elapsed().as_secs_f64() * 1e3);
                    text.extend_from_slice(&part);
                }
                let text = String::from_utf8(text)?;
                let ends =
                    text.lines().filter_map(|line| serde_json::from_str::<Json>(line.strip_prefix("data: ")?).ok());
                let reason = ends
                    .filter_map(|event| event["choices"][0]["finish_reason"].as_str().map(str::to_owned))
                    .next_back();
                let end = text.char_indices().nth_back(300).map_or(0, |(place, _)| place);
                ensure!(
                    reason.as_deref() == Some("length"),
                    "an answer is shorter than it should be: {}",
                    &text[end..]
                );
                times.extend(first);
            }
            anyhow::Ok(times)
        });
    }
    let mut times = Vec::new();
    while let Some(done) = tasks.join_next().await {
        times.extend(done??);
    }
    let (seconds, cpu) = (began.elapsed().as_secs_f64(), server.cpu()?.since(&before));
    let tokens = (requests * TOKENS) as f64;
    Ok(Run {
        tokens_per_second: tokens / seconds,
        requests_per_second: requests as f64 / seconds,
        first_token_ms: quantile(&mut times, 0.5),
        cpu_ms_per_token: cpu.seconds() * 1e3 / tokens,
        threads: cpu.shares(tokens),
    })
}

/// Both, in turns: a table, the best of the turns.
pub async fn compare(
    serve_engine: &Path,
    engine: &Path,
    program: &Path,
    gguf: &Path,
    turns: usize,
) -> anyhow::Result<String> {
    let mut lines = vec!["| | serve-engine | llama.cpp | ratio |".to_owned(), "| --- | --- | --- | --- |".to_owned()];
    let mut threads = String::new();
    for (clients, requests) in [(1, 8), (8, 32)] {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for turn in 0..turns {
            let server =
                start::serve_engine(serve_engine, engine, &["--threads", "2", "--max-batch-size", "8"]).await?;
            run(&server, clients, clients, 100 + turn).await?;
            ours.push(run(&server, clients, requests, turn).await?);
            drop(server);
            let server = llama(program, gguf, 8).await?;
            run(&server, clients, clients, 100 + turn).await?;
            theirs.push(run(&server, clients, requests, turn).await?);
        }
        let best = |runs: &[Run], of: Of, is_larger: bool| {
            let values = runs.iter().map(of);
            if is_larger { values.fold(0.0, f64::max) } else { values.fold(f64::INFINITY, f64::min) }
        };
        let rows: [(&str, Of, bool); 4] = [
            ("tokens/s", |run| run.tokens_per_second, true),
            ("requests/s", |run| run.requests_per_second, true),
            ("time to first token, median, ms", |run| run.first_token_ms, false),
            ("processor time a token, ms", |run| run.cpu_ms_per_token, false),
        ];
        for (name, of, is_larger) in rows {
            let (one, other) = (best(&ours, of, is_larger), best(&theirs, of, is_larger));
            lines.push(format!("| {clients} at once, {name} | {one:.2} | {other:.2} | {:.2} |", one / other));
        }
        if let Some(last) = ours.last() {
            threads += &format!("{clients} at once, µs a token by thread: {}\n", last.threads);
        }
    }
    Ok(format!("{}\n{threads}", lines.join("\n")))
}
