//! What a streamed token costs.

use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::net::TcpListener;

use super::client::{Client, completion};
use super::figures::{Figure, Goal};
use super::process::Cpu;
use super::start;

/// Streams at once.
pub const STREAMS: usize = 64;

/// Bytes of a chunk of a token, about.
const CHUNK: usize = 260;

/// What streams came to.
pub struct Run {
    pub tokens: f64,
    /// Chunks with text.
    pub chunks: f64,
    pub seconds: f64,
    pub cpu: Cpu,
    pub client_seconds: f64,
}

/// Streams `tokens` tokens on each of `streams` connections at once.
pub async fn run(server: &super::process::Process, streams: usize, tokens: usize) -> anyhow::Result<Run> {
    let address = server.address;
    let (before, client, began) = (server.cpu()?, client_cpu(), Instant::now());
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..streams {
        tasks.spawn(async move {
            let body = json!({ "prompt": [5, number + 10], "max_tokens": tokens, "stream": true, "seed": 1 });
            let mut client = Client::connect(address).await?;
            client.send(&completion(&body)).await?;
            let status = client.head().await?;
            anyhow::ensure!(status == 200, "a stream was answered {status}");
            let (mut part, mut chunks, mut last) = (Vec::new(), 0, Vec::new());
            while client.part(&mut part).await? {
                chunks += part.windows(8).filter(|window| window == b"\"text\":\"").count();
                std::mem::swap(&mut last, &mut part);
            }
            anyhow::ensure!(last.ends_with(b"data: [DONE]\n\n"), "a stream ended without [DONE]");
            // The last one has no text, but the reason of the end.
            anyhow::Ok(chunks - 1)
        });
    }
    let mut chunks = 0;
    while let Some(done) = tasks.join_next().await {
        chunks += done??;
    }
    let seconds = began.elapsed().as_secs_f64();
    Ok(Run {
        tokens: (streams * tokens) as f64,
        chunks: chunks as f64,
        seconds,
        cpu: server.cpu()?.since(&before),
        client_seconds: client_cpu() - client,
    })
}

/// Seconds of processor time of this process, whose first thread does all the work.
pub fn client_cpu() -> f64 {
    seconds("/proc/self/schedstat")
}

/// Seconds of processor time of this thread.
fn thread_cpu() -> f64 {
    seconds("/proc/thread-self/schedstat")
}

fn seconds(path: &str) -> f64 {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse::<f64>().ok()).unwrap_or_default() / 1e9
}

/// Tokens that come one after the other, each in a chunk of its own; and as fast as they can, in chunks of many.
pub async fn figures() -> anyhow::Result<Vec<Figure>> {
    let mut figures = Vec::new();
    let mut most_single: f64 = 0.0;
    for period_us in [20_000, 5_000, 2_000, 1_000, 640, 500, 400] {
        let server = start::stand_in(STREAMS, period_us, &[])?;
        let tokens = (5_000_000 / period_us).clamp(400, 4000) as usize;
        run(&server, STREAMS, 16).await?;
        let done = run(&server, STREAMS, tokens).await?;
        let single = done.chunks / done.tokens;
        let micros = done.cpu.seconds() * 1e6 / done.tokens;
        let goal = if period_us == 5_000 { Goal::AtMost(5.0) } else { Goal::None };
        let rate = done.tokens / done.seconds;
        let name =
            format!("processor time a token, {STREAMS} streams, {:.0} tokens/s asked for", 64e6 / period_us as f64);
        let remark = format!(
            "{:.1} % in chunks of their own, {rate:.0} tokens/s; {}; client {:.2}",
            100.0 * single,
            done.cpu.shares(done.tokens),
            done.client_seconds * 1e6 / done.tokens
        );
        figures.push(Figure::new(name, micros, "µs", goal).remark(remark));
        most_single = most_single.max(done.chunks / done.seconds);
    }
    figures.push(floor().await?);
    figures.push(Figure::new("chunks/s, most of these", most_single, "chunks/s", Goal::AtLeast(100_000.0)));
    let server = start::stand_in(STREAMS, 0, &[])?;
    run(&server, STREAMS, 200).await?;
    let done = run(&server, STREAMS, 40_000).await?;
    let micros = done.cpu.seconds() * 1e6 / done.tokens;
    figures.push(Figure::new("processor time a token, as fast as they come", micros, "µs", Goal::AtMost(1.5)).remark(
        format!(
            "{:.1} tokens a chunk; {}; client {:.2}",
            done.tokens / done.chunks,
            done.cpu.shares(done.tokens),
            done.client_seconds * 1e6 / done.tokens
        ),
    ));
    figures.push(Figure::new(
        "tokens/s, as fast as they come",
        done.tokens / done.seconds,
        "tokens/s",
        Goal::AtLeast(250_000.0),
    ));
    Ok(figures)
}

/// What a write of a chunk's size costs by itself: to 64 sockets in turn, whose reader waits for them, as often as the server would.
/// No server that sends tokens as they come can do with less.
pub async fn floor() -> anyhow::Result<Figure> {
    const WRITES: usize = 400;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let (mut writers, mut readers) = (Vec::new(), tokio::task::JoinSet::new());
    for _ in 0..STREAMS {
        let socket = std::net::TcpStream::connect(listener.local_addr()?)?;
        socket.set_nodelay(true)?;
        writers.push(socket);
        let (mut socket, _) = listener.accept().await?;
        readers.spawn(async move { tokio::io::copy(&mut socket, &mut tokio::io::sink()).await });
    }
    let writer = std::thread::spawn(move || {
        let before = thread_cpu();
        for _ in 0..WRITES {
            let began = Instant::now();
            for writer in &mut writers {
                writer.write_all(&[b'x'; CHUNK])?;
            }
            std::thread::sleep(Duration::from_millis(5).saturating_sub(began.elapsed()));
        }
        anyhow::Ok((thread_cpu() - before) * 1e6 / (WRITES * STREAMS) as f64)
    });
    while let Some(done) = readers.join_next().await {
        done??;
    }
    let micros = writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    let name = format!("of these, a write of {CHUNK} bytes to a socket by itself, 12800 a second");
    Ok(Figure::new(name, micros, "µs", Goal::None))
}
