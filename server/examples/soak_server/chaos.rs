//! Rounds of torment. After each nothing is left of it in the server; then the server is told to end in the middle of more, and ends
//! in order.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::Signal;
use tokio::task::JoinSet;

use super::client::get;
use super::oracle::Oracle;
use super::process::{Process, metric, until};
use super::script::{Random, Script};
use super::torment::World;

/// Clients at once.
const CLIENTS: u64 = 48;

/// Torments a server for a time, and ends it. What came of it, for people.
pub async fn round(
    mut server: Process,
    script: Option<&Script>,
    longest: usize,
    seed: u64,
    time: Duration,
) -> anyhow::Result<String> {
    let is_ready = async || Ok(get(server.address, "/ready").await?.status == 200);
    until("the server is ready", Duration::from_secs(60), is_ready).await?;
    let oracle = Oracle::learn(server.address, longest, script).await.context("asking for the answers")?;
    let world = Arc::new(World::new(server.address, oracle));
    // As many as are there from the start, and those that the first requests bring.
    settle(&server).await?;
    let (threads, descriptors, before) = (server.threads()?, server.descriptors()?, server.resident_kib()?);
    let mut tasks = begin(&world, seed, Instant::now() + time);
    finish(&mut tasks).await?;
    settle(&server).await.context("what is left after it")?;
    let now = (server.threads()?, server.descriptors()?);
    ensure!(
        now == (threads, descriptors),
        "threads and descriptors were {:?}, and are {now:?}",
        (threads, descriptors)
    );
    let after = server.resident_kib()?;
    // Once more, and now the server ends.
    let mut tasks = begin(&world, !seed, Instant::now() + Duration::from_secs(60));
    tokio::time::sleep(Duration::from_millis(500)).await;
    world.is_ending.store(true, Ordering::SeqCst);
    server.signal(Signal::TERM)?;
    let ended = async {
        while !server.has_ended()? {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(30), ended).await.context("the server does not end")??;
    let status = server.wait(Duration::from_secs(1))?;
    // There is nothing to connect to any more.
    tokio::time::sleep(Duration::from_millis(100)).await;
    world.stop();
    finish(&mut tasks).await.context("while the server ended")?;
    ensure!(status.code() == Some(0), "the server ended with {status}: {:?}", server.said());
    let said = server.said();
    ensure!(!said.iter().any(|line| line.contains("panicked")), "{said:?}");
    let counts: Vec<_> = world.counts().into_iter().map(|(what, count)| format!("{what} {count}")).collect();
    Ok(format!("{}; memory {:.1} MiB before, {:.1} after", counts.join(", "), before / 1024.0, after / 1024.0))
}

fn begin(world: &Arc<World>, seed: u64, end: Instant) -> JoinSet<anyhow::Result<()>> {
    let mut tasks = JoinSet::new();
    for number in 0..CLIENTS {
        let (world, mut random) = (world.clone(), Random::new(seed ^ number << 32));
        tasks.spawn(async move {
            while Instant::now() < end && !world.is_over() {
                world.deed(&mut random).await?;
            }
            Ok(())
        });
    }
    tasks
}

async fn finish(tasks: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Result<()> {
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(())
}

/// Waits until nothing is under way.
async fn settle(server: &Process) -> anyhow::Result<()> {
    // The connection that asks is one.
    for (name, rest) in [
        ("trtllm_num_requests_running", 0.0),
        ("trtllm_num_requests_waiting", 0.0),
        ("trtllm_kv_cache_used_blocks", 0.0),
        ("serve_sse_streams", 0.0),
        ("serve_connections", 1.0),
    ] {
        let is_at_rest = async || Ok(metric(server.address, name).await? == rest);
        until(name, Duration::from_secs(10), is_at_rest).await?;
    }
    // Its threads of the moment and the sockets of the last connections.
    tokio::time::sleep(Duration::from_millis(200)).await;
    ensure!(get(server.address, "/ready").await?.status == 200, "the server is not ready");
    tokio::time::sleep(Duration::from_millis(100)).await;
    Ok(())
}
