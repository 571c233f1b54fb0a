//! The demo model on the CPU: the program as a user starts it, and the server in this process.

use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;

use engine_builder::compile::cpu::{CpuEngineRequest, build_cpu_engine};
use engine_builder::progress::{Interrupt, Quiet};
use engine_builder::source::Source;
use engine_format::EngineDir;
use engine_format::manifest::Limits;
use runner::engine::Engine;
use runner::executor::{ExecutorConfig, KvCacheConfig};
use rustix::process::{Pid, Signal, kill_process};
use server::config::Settings;
use server::model::Parts;
use tempfile::TempDir;

use super::in_process::InProcess;
use super::until;

pub fn demo_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/demo-model")
}

/// An engine of the demo model, built once.
pub fn demo_engine() -> &'static Path {
    static ENGINE: OnceLock<TempDir> = OnceLock::new();
    let dir = ENGINE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let source = Source::open(&demo_model()).unwrap();
        let request = CpuEngineRequest {
            output: dir.path().join("demo"),
            force: false,
            allow_non_finite: false,
            limits: Limits { max_seq_len: 1024, max_batch_size: 16, max_num_tokens: 256 },
            weights: engine_format::WeightType::Bf16,
            model: "demo".to_owned(),
        };
        build_cpu_engine(&source, &request, &Quiet, &Interrupt::new()).unwrap();
        dir
    });
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| dir.path().join("demo"))
}

/// The program, on a machine without a GPU as far as it can see.
pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_serve-engine"));
    command.env("TRTLLM_GPU_LIB", "/nonexistent/no-shim.so").stdin(Stdio::null());
    command
}

/// A server that runs until it is dropped.
pub struct Server {
    pub child: Child,
    pub address: SocketAddr,
    _dir: TempDir,
}

impl Server {
    /// Over the demo engine, with further arguments; ready.
    pub fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[])
    }

    pub fn start_with(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let server = Self::spawn(demo_engine(), arguments, variables);
        until("the engine is open", || super::client::get(server.address, "/ready").status == 200);
        server
    }

    /// Listening.
    pub fn spawn(engine: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ready_file = dir.path().join("ready");
        let mut command = program();
        command.args(["--port", "0", "--threads", "2", "--kv-cache-tokens", "8192", "--engine"]).arg(engine);
        command.arg("--ready-file").arg(&ready_file).args(arguments).envs(variables.iter().copied());
        let child = command.stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        until("the server listens", || ready_file.exists());
        let address = std::fs::read_to_string(ready_file).unwrap();
        assert!(address.ends_with('\n') && address.lines().count() == 1, "{address:?}");
        Self { child, address: address.trim().parse().unwrap(), _dir: dir }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end, and gives what it said.
    pub fn end(mut self) -> (ExitStatus, String) {
        let mut said = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        (self.child.wait().unwrap(), said)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One server in this process for all tests that change nothing in it.
pub fn shared() -> &'static InProcess {
    static SERVER: OnceLock<InProcess> = OnceLock::new();
    SERVER.get_or_init(|| {
        serve(|settings| (settings.max_queued_requests, settings.max_queued_tokens) = (100_000, 100_000_000))
    })
}

/// A server in this process over the demo engine.
pub fn serve(change: impl FnOnce(&mut Settings)) -> InProcess {
    let (engine, config) = open();
    InProcess::start(Parts::of_engine(engine, &config).unwrap(), change)
}

/// The demo engine, open, and how.
pub fn open() -> (Engine, ExecutorConfig) {
    let kv_cache = KvCacheConfig { max_tokens: Some(16_384), ..KvCacheConfig::default() };
    let config = ExecutorConfig { threads: Some(2), kv_cache, ..ExecutorConfig::default() };
    (Engine::start_with_text(EngineDir::open(demo_engine()).unwrap(), &config).unwrap(), config)
}
