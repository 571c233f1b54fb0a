//! Starting servers, and how long that takes.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use engine_format::EngineDir;
use runner::engine::Engine;
use runner::executor::ExecutorConfig;

use super::client;
use super::figures::{Figure, Goal, quantile};
use super::process::{Process, until};

/// The server over the stand-in.
pub fn stand_in(max_batch_size: usize, period_us: u64, arguments: &[&str]) -> anyhow::Result<Process> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["stand-in", "--max-batch-size", &max_batch_size.to_string()]);
    command.args(["--period-us", &period_us.to_string()]).args(arguments);
    Process::start(command)
}

/// `serve-engine` over an engine, ready.
pub async fn serve_engine(program: &Path, engine: &Path, arguments: &[&str]) -> anyhow::Result<Process> {
    let mut command = Command::new(program);
    command.arg("--engine").arg(engine).args(arguments);
    let server = Process::start(command)?;
    let is_ready = async || Ok(client::get(server.address, "/ready").await?.status == 200);
    until("the engine is open", Duration::from_secs(120), is_ready).await?;
    Ok(server)
}

/// From a start to listening, and to ready beside what opening the engine takes by itself.
pub async fn figures(program: &Path, engine: &Path) -> anyhow::Result<Vec<Figure>> {
    let (mut listening, mut ready, mut opening) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..10 {
        let began = Instant::now();
        let opened = Engine::start_with_text(EngineDir::open(engine)?, &ExecutorConfig::default())?;
        opening.push(began.elapsed().as_secs_f64() * 1e3);
        drop(opened);
        let began = Instant::now();
        let server = serve_engine(program, engine, &[]).await?;
        ready.push(began.elapsed().as_secs_f64() * 1e3);
        listening.push(server.listening.as_secs_f64() * 1e3);
    }
    let opening = quantile(&mut opening, 0.5);
    let remark = format!("opening the engine alone takes {opening:.1} ms");
    Ok(vec![
        Figure::new("from start to listening, median", quantile(&mut listening, 0.5), "ms", Goal::AtMost(50.0)),
        Figure::new("from start to ready, median", quantile(&mut ready, 0.5), "ms", Goal::AtMost(opening + 20.0))
            .remark(remark),
    ])
}
