//! What requests cost that are not streamed, and how long the server keeps one.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::json;

use super::client::{Client, completion, request};
use super::figures::{Figure, Goal, quantile};
use super::process::Process;
use super::start;
use super::streams;

/// Connections that ask at once.
const CLIENTS: usize = 16;

fn one_token() -> Vec<u8> {
    completion(&json!({ "prompt": [5, 7], "max_tokens": 1, "temperature": 0 }))
}

/// Asks for one token again and again for a while. How often it was answered.
async fn ask(address: SocketAddr, keeps: bool, time: Duration) -> anyhow::Result<u64> {
    let (end, request) = (Instant::now() + time, one_token());
    let mut kept = None;
    let mut count = 0;
    while Instant::now() < end {
        let mut client = match kept.take() {
            Some(client) => client,
            None => Client::connect(address).await?,
        };
        let reply = client.ask(&request).await?;
        anyhow::ensure!(reply.status == 200, "{reply:?}");
        count += 1;
        kept = Some(client).filter(|_| keeps);
    }
    Ok(count)
}

async fn rate(server: &Process, keeps: bool, goal: f64) -> anyhow::Result<Figure> {
    let time = Duration::from_secs(3);
    ask(server.address, keeps, time / 6).await?;
    let (before, client, began) = (server.cpu()?, streams::client_cpu(), Instant::now());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        tasks.spawn(ask(server.address, keeps, time));
    }
    let mut count = 0;
    while let Some(done) = tasks.join_next().await {
        count += done??;
    }
    let (count, seconds) = (count as f64, began.elapsed().as_secs_f64());
    let cpu = server.cpu()?.since(&before);
    let name = if keeps { "requests of one token, keep-alive" } else { "requests of one token, a connection each" };
    Ok(Figure::new(name, count / seconds, "requests/s", Goal::AtLeast(goal)).remark(format!(
        "{:.1} µs of processor time each: {}; client {:.1}",
        cpu.seconds() * 1e6 / count,
        cpu.shares(count),
        (streams::client_cpu() - client) * 1e6 / count
    )))
}

/// Rates, and the time of a request that is alone.
pub async fn figures() -> anyhow::Result<Vec<Figure>> {
    let server = start::stand_in(64, 0, &[])?;
    let mut figures = vec![rate(&server, true, 8000.0).await?, rate(&server, false, 2500.0).await?];
    let mut client = Client::connect(server.address).await?;
    let mut times = Vec::new();
    for number in 0..4000 {
        let began = Instant::now();
        let reply = client.ask(&one_token()).await?;
        anyhow::ensure!(reply.status == 200, "{reply:?}");
        if number >= 200 {
            times.push(began.elapsed().as_secs_f64() * 1e6);
        }
        // Requests that are alone come with pauses.
        tokio::time::sleep(Duration::from_micros(300)).await;
    }
    figures.push(Figure::new(
        "a request alone, there and back, median",
        quantile(&mut times, 0.5),
        "µs",
        Goal::AtMost(150.0),
    ));
    figures.push(Figure::new("the same, p99", quantile(&mut times, 0.99), "µs", Goal::AtMost(1000.0)));
    figures.push(health().await?);
    Ok(figures)
}

/// `/health` while all streams run as fast as they can.
async fn health() -> anyhow::Result<Figure> {
    let server = start::stand_in(streams::STREAMS, 0, &[])?;
    let (done, is_done) = tokio::sync::oneshot::channel::<()>();
    let address = server.address;
    // On a thread of its own: the streams keep this one busy.
    let probe = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async move {
            let (mut is_done, mut times) = (is_done, Vec::new());
            let mut client = Client::connect(address).await?;
            while is_done.try_recv() == Err(tokio::sync::oneshot::error::TryRecvError::Empty) {
                let began = Instant::now();
                let reply = client.ask(&request("GET", "/health", "")).await?;
                anyhow::ensure!(reply.status == 200, "{reply:?}");
                times.push(began.elapsed().as_secs_f64() * 1e3);
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            Ok(times)
        })
    });
    for _ in 0..4 {
        streams::run(&server, streams::STREAMS, 20_000).await?;
    }
    drop(done);
    let mut times = probe.join().map_err(|_| anyhow::anyhow!("the probe panicked"))??;
    let remark = format!("median {:.2} ms, of {}", quantile(&mut times, 0.5), times.len());
    Ok(Figure::new("/health while saturated, p99", quantile(&mut times, 0.99), "ms", Goal::AtMost(50.0)).remark(remark))
}
