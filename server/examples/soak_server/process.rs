//! A server under load, from outside: what it takes and holds, from `/proc`, and what it says of itself.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::client;

/// A process that serves.
pub struct Process {
    child: Child,
    pub address: SocketAddr,
    /// From its start to when it listened.
    pub listening: Duration,
    /// The last lines that it wrote.
    said: std::thread::JoinHandle<Vec<String>>,
    _dir: TempDir,
}

/// Nanoseconds of processor time by the names of threads.
#[derive(Debug, Clone, Default)]
pub struct Cpu(BTreeMap<String, u64>);

impl Cpu {
    /// What was used since an earlier reading.
    pub fn since(&self, earlier: &Self) -> Self {
        let of = |(name, now): (&String, &u64)| {
            (name.clone(), now.saturating_sub(earlier.0.get(name).copied().unwrap_or_default()))
        };
        Self(self.0.iter().map(of).collect())
    }

    pub fn seconds(&self) -> f64 {
        self.0.values().sum::<u64>() as f64 / 1e9
    }

    /// The shares of `count` things in microseconds, largest first.
    pub fn shares(&self, count: f64) -> String {
        let mut shares: Vec<_> = self.0.iter().map(|(name, ns)| (*ns as f64 / 1e3 / count, name)).collect();
        shares.sort_by(|one, other| other.0.total_cmp(&one.0));
        let shown = shares.iter().filter(|(share, _)| *share >= 0.005);
        shown
            .map(|(share, name)| format!("{} {share:.2}", name.trim_start_matches("trtllm-")))
            .collect::<Vec<_>>()
            .join(", ")
    }
}

/// Starts a process and gathers the last lines that it writes.
fn spawn(command: &mut Command) -> anyhow::Result<(Child, std::thread::JoinHandle<Vec<String>>)> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let stderr = child.stderr.take().context("stderr is a pipe")?;
    let said = std::thread::spawn(move || {
        let mut last = Vec::new();
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if !line.contains(" INFO ") {
                last.push(line);
            }
            if last.len() > 50 {
                last.remove(0);
            }
        }
        last
    });
    Ok((child, said))
}

impl Process {
    /// Starts a server, to which `--port 0 --ready-file FILE` is added, and waits until it listens.
    pub fn start(mut command: Command) -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("ready");
        command.args(["--port", "0", "--ready-file"]).arg(&file);
        let began = Instant::now();
        let (child, said) = spawn(&mut command)?;
        let mut server = Self { child, address: ([0, 0, 0, 0], 0).into(), listening: Duration::ZERO, said, _dir: dir };
        server.address = loop {
            if let Ok(address) = std::fs::read_to_string(&file) {
                break address.trim().parse()?;
            }
            if let Some(status) = server.child.try_wait()? {
                bail!("{command:?} ended with {status}: {:?}", server.said());
            }
            std::thread::sleep(Duration::from_micros(200));
        };
        server.listening = began.elapsed();
        Ok(server)
    }

    /// Starts a server that will listen there.
    pub fn at(mut command: Command, address: SocketAddr) -> anyhow::Result<Self> {
        let (child, said) = spawn(&mut command)?;
        Ok(Self { child, address, listening: Duration::ZERO, said, _dir: tempfile::tempdir()? })
    }

    fn proc(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}", self.child.id()))
    }

    fn tasks(&self) -> anyhow::Result<Vec<PathBuf>> {
        Ok(std::fs::read_dir(self.proc().join("task"))?.filter_map(|task| Some(task.ok()?.path())).collect())
    }

    /// The processor time of the threads that there are.
    pub fn cpu(&self) -> anyhow::Result<Cpu> {
        let mut cpu = BTreeMap::new();
        for task in self.tasks()? {
            let (Ok(name), Ok(stat)) =
                (std::fs::read_to_string(task.join("comm")), std::fs::read_to_string(task.join("schedstat")))
            else {
                continue;
            };
            let ns: u64 = stat.split(' ').next().unwrap_or_default().parse()?;
            *cpu.entry(name.trim().to_owned()).or_default() += ns;
        }
        Ok(Cpu(cpu))
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(self.proc().join("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
    }

    pub fn threads(&self) -> anyhow::Result<usize> {
        Ok(self.tasks()?.len())
    }

    pub fn descriptors(&self) -> anyhow::Result<usize> {
        Ok(std::fs::read_dir(self.proc().join("fd"))?.count())
    }

    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    pub fn has_ended(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("the server has not ended within {limit:?}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What it wrote beside its log of requests, once it has ended.
    pub fn said(mut self) -> Vec<String> {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let said = std::mem::replace(&mut self.said, std::thread::spawn(Vec::new));
        said.join().unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until something is so.
pub async fn until(
    what: &str,
    limit: Duration,
    mut is_so: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + limit;
    while !is_so().await? {
        if Instant::now() > deadline {
            bail!("in vain: {what}");
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

/// The sum of the metrics whose lines begin so.
pub async fn metric(address: SocketAddr, start: &str) -> anyhow::Result<f64> {
    let page = client::get(address, "/metrics").await?.text()?;
    let found: Vec<f64> = page
        .lines()
        .filter(|line| line.starts_with(start))
        .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
        .collect();
    if found.is_empty() { Err(anyhow!("/metrics has no {start}")) } else { Ok(found.iter().sum()) }
}
