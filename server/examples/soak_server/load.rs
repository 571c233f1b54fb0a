//! Many connections, more requests than there is room for, and clients that go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::Mutex;

use super::client::{Client, completion};
use super::figures::{Figure, Goal, quantile};
use super::process::{Process, metric, until};
use super::start;

/// Streams that are open and silent.
const IDLE: usize = 4000;

/// What an open stream costs that says nothing.
pub async fn idle() -> anyhow::Result<Vec<Figure>> {
    // Its first token comes in an hour, and no comment before.
    let server = start::stand_in(IDLE, 3_600_000_000, &["--sse-keep-alive", "0", "--max-queued-tokens", "1000000"])?;
    let request = completion(&json!({ "prompt": [5, 7], "max_tokens": 100, "stream": true }));
    let mut clients = Vec::with_capacity(IDLE);
    for _ in 0..100 {
        clients.push(open(&server, &request).await?);
    }
    let (before, threads) = (server.resident_kib()?, server.threads()?);
    while clients.len() < IDLE {
        clients.push(open(&server, &request).await?);
    }
    let each = (server.resident_kib()? - before) / (IDLE - 100) as f64;
    let more = server.threads()? - threads;
    let cpu = server.cpu()?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let idle = server.cpu()?.since(&cpu).seconds() / 2.0;
    drop(clients);
    let began = Instant::now();
    let are_gone = async || Ok(metric(server.address, "serve_sse_streams").await? == 0.0);
    until("the streams are gone", Duration::from_secs(30), are_gone).await?;
    let gone = began.elapsed().as_secs_f64() * 1e3;
    let remark =
        format!("{more} threads more; {:.2} % of a processor; all gone {gone:.0} ms after their clients", 100.0 * idle);
    let name = format!("memory of an idle stream, of {IDLE}");
    Ok(vec![Figure::new(name, each, "KiB", Goal::AtMost(16.0)).remark(remark)])
}

async fn open(server: &Process, request: &[u8]) -> anyhow::Result<Client> {
    let mut client = Client::connect(server.address).await?;
    client.send(request).await?;
    let status = client.head().await?;
    anyhow::ensure!(status == 200, "a stream was answered {status}");
    Ok(client)
}

/// Sequences at once, and tokens of each, of the server that is overloaded; a token takes 2 ms.
const BATCH: usize = 16;
const TOKENS: usize = 32;

#[derive(Default)]
struct Counts {
    admitted: AtomicU64,
    refused: AtomicU64,
    refusals_ms: Mutex<Vec<f64>>,
}

/// Clients that each ask every `period`, or as soon as they are answered.
async fn offer(server: &Process, clients: usize, period: Duration, time: Duration) -> anyhow::Result<Arc<Counts>> {
    let counts = Arc::new(Counts::default());
    let address = server.address;
    let end = Instant::now() + time;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..clients {
        let counts = counts.clone();
        tasks.spawn(async move {
            let request = completion(&json!({ "prompt": [5, number + 10], "max_tokens": TOKENS, "seed": 1 }));
            let mut client = Client::connect(address).await?;
            tokio::time::sleep(period.mul_f64(number as f64 / clients as f64)).await;
            while Instant::now() < end {
                let began = Instant::now();
                let reply = client.ask(&request).await?;
                match reply.status {
                    200 => counts.admitted.fetch_add(1, Ordering::Relaxed),
                    503 if reply.code() == "queue_full" => {
                        counts.refusals_ms.lock().await.push(began.elapsed().as_secs_f64() * 1e3);
                        counts.refused.fetch_add(1, Ordering::Relaxed)
                    }
                    _ => anyhow::bail!("{reply:?}"),
                };
                tokio::time::sleep((began + period).saturating_duration_since(Instant::now())).await;
            }
            Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(counts)
}

/// Ten times as many requests as can be served.
pub async fn overload() -> anyhow::Result<Vec<Figure>> {
    let server = start::stand_in(BATCH, 2000, &[])?;
    let time = Duration::from_secs(5);
    offer(&server, BATCH, Duration::ZERO, time / 5).await?;
    let unloaded = offer(&server, 2 * BATCH, Duration::ZERO, time).await?;
    let unloaded = unloaded.admitted.load(Ordering::Relaxed) as f64 / time.as_secs_f64();
    // Clients of requests that run or wait do not ask meanwhile.
    let period = Duration::from_millis(100);
    let clients = 5 * BATCH + (10.0 * unloaded * period.as_secs_f64()) as usize;
    offer(&server, clients, period, time / 2).await?;
    let before = server.resident_kib()?;
    let counts = offer(&server, clients, period, 2 * time).await?;
    let after = server.resident_kib()?;
    let admitted = counts.admitted.load(Ordering::Relaxed) as f64 / (2.0 * time.as_secs_f64());
    let refused = counts.refused.load(Ordering::Relaxed) as f64 / (2.0 * time.as_secs_f64());
    let mut times = counts.refusals_ms.lock().await.clone();
    let name = format!("overload x{:.0}: admitted throughput, of the unloaded", (admitted + refused) / unloaded);
    let p99 = format!("median {:.2} ms, of {}", quantile(&mut times, 0.5), times.len());
    Ok(vec![
        Figure::new(name, 100.0 * admitted / unloaded, "%", Goal::AtLeast(95.0))
            .remark(format!("{admitted:.0} and {unloaded:.0} requests/s")),
        Figure::new("a refusal, there and back, p99", quantile(&mut times, 0.99), "ms", Goal::AtMost(5.0)).remark(p99),
        Figure::new("memory added by 10 s more of it", after - before, "KiB", Goal::None)
            .remark(format!("{:.1} MiB resident", after / 1024.0)),
    ])
}

/// How long after a client has gone another request has its place, where there is one place.
pub async fn disconnects(server: &Process, iteration_ms: f64, prompt: &str) -> anyhow::Result<Figure> {
    let mut times = Vec::new();
    let request = |tokens: usize| {
        completion(&json!({ "prompt": prompt, "max_tokens": tokens, "stream": true, "ignore_eos": true }))
    };
    let running = async || metric(server.address, "trtllm_num_requests_running").await;
    let waiting = async || metric(server.address, "trtllm_num_requests_waiting").await;
    for _ in 0..40 {
        let first = open(server, &request(900)).await?;
        until("one runs", Duration::from_secs(10), async || Ok(running().await? == 1.0)).await?;
        let mut second = open(server, &request(1)).await?;
        until("one waits", Duration::from_secs(10), async || Ok(waiting().await? == 1.0)).await?;
        let began = Instant::now();
        drop(first);
        second.part(&mut Vec::new()).await?;
        times.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let name =
        format!("from a client's end to the next request's first token, iterations of {iteration_ms:.1} ms, median");
    let goal = Goal::AtMost(2.0 * iteration_ms + 10.0);
    let remark = format!("most {:.1} ms; its own iteration is one of the two", quantile(&mut times, 1.0));
    Ok(Figure::new(name, quantile(&mut times, 0.5), "ms", goal).remark(remark))
}
