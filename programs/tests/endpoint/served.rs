//! `serve-engine`'s server over the bundled model: what is counted is what was asked for.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::OnceLock;

use engine_builder::compile::cpu::{CpuEngineRequest, build_cpu_engine};
use engine_builder::progress::{Interrupt, Quiet};
use engine_builder::source::Source;
use engine_format::EngineDir;
use engine_format::manifest::Limits;
use runner::engine::Engine;
use runner::executor::{ExecutorConfig, KvCacheConfig};
use serde_json::{Value, json};
use server::config::Settings;
use server::http::accept::{self, Http};
use server::http::listener::{Address, Listener};
use server::keys::Keys;
use server::model::Parts;
use server::state::State;

use crate::{demo_model, measured, number};

fn engine() -> &'static PathBuf {
    static ENGINE: OnceLock<(tempfile::TempDir, PathBuf)> = OnceLock::new();
    let (_, path) = ENGINE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("demo");
        let request = CpuEngineRequest {
            output: path.clone(),
            force: false,
            allow_non_finite: false,
            limits: Limits { max_seq_len: 1024, max_batch_size: 8, max_num_tokens: 256 },
            weights: engine_format::WeightType::Bf16,
            model: "demo".to_owned(),
        };
        build_cpu_engine(&Source::open(demo_model().as_ref()).unwrap(), &request, &Quiet, &Interrupt::new()).unwrap();
        (dir, path)
    });
    path
}

/// A server that runs as long as the test.
fn serve(settings: Settings) -> (SocketAddr, Http) {
    let kv_cache = KvCacheConfig { max_tokens: Some(8192), ..KvCacheConfig::default() };
    let config = ExecutorConfig { threads: Some(2), kv_cache, ..ExecutorConfig::default() };
    let engine = Engine::start_with_text(EngineDir::open(engine()).unwrap(), &config).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let keys = Keys::open(&settings.api_key_file, None, &settings.keys).unwrap();
    let state = State::new(settings, keys, Address::Tcp(address)).unwrap();
    let http = accept::start(&state, Listener::Tcp(listener)).unwrap();
    state.open(Parts::of_engine(engine, &config).unwrap()).unwrap();
    (address, http)
}

#[test]
fn the_tokens_of_an_engine_are_those_of_its_server() {
    let (address, _server) = serve(Settings::default());
    let engine = engine().to_str().unwrap();
    let workload =
        ["--requests", "12", "--input-len", "40:70", "--output-len", "3:9", "--shared-prefix-len", "32", "--seed", "3"];
    let report = measured(address, &[&workload[..], &["--tokenizer", engine, "--concurrency", "3,6"]].concat());
    let mut inside = std::process::Command::new(env!("CARGO_BIN_EXE_bench-engine"));
    inside.args(["--engine", engine, "--format", "json", "--quiet"]).args(workload);
    let inside: Value = serde_json::from_slice(&inside.output().unwrap().stdout).unwrap();
    for count in ["/workload/requests", "/workload/prompt_tokens", "/workload/output_tokens"] {
        assert_eq!(number(&report, count), number(&inside, count), "{count}");
    }
    assert_eq!(
        (&report["endpoint"]["prompts"], &report["endpoint"]["model"], &report["endpoint"]["token_counts"]),
        (&json!("token ids"), &json!("demo"), &json!("usage of each chunk"))
    );
    for run in report["runs"].as_array().unwrap() {
        assert_eq!((number(run, "/answered"), number(run, "/ended_early")), (12.0, 0.0), "{run}");
        assert_eq!(number(run, "/output_tokens"), number(&report, "/workload/output_tokens"));
        assert_eq!(number(run, "/inter_token_latency/count"), number(run, "/output_tokens") - 12.0);
        // The prefix is shared within a load, and nothing between loads.
        let cached = number(run, "/cached_prompt_tokens");
        assert!(cached > 0.0 && cached <= 11.0 * 32.0, "{cached}");
    }
}

#[test]
fn text_and_chat_are_measured_too() {
    let (address, _server) = serve(Settings::default());
    let words = measured(address, &["--requests", "4", "--input-len", "20", "--output-len", "5"]);
    assert_eq!((number(&words, "/runs/0/output_tokens"), &words["endpoint"]["prompts"]), (20.0, &json!("text")));
    assert!(number(&words, "/workload/prompt_tokens") >= 4.0 * 20.0);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("prompts");
    std::fs::write(&path, "How many moons does Mars have?\nWhat of the moon?\n").unwrap();
    let file = ["--prompts", path.to_str().unwrap(), "--output-len", "6"];
    let (plain, chat) = (measured(address, &file), measured(address, &[&file[..], &["--chat"]].concat()));
    assert_eq!(chat["endpoint"]["routes"], json!(["/chat/completions"]));
    for report in [&plain, &chat] {
        assert_eq!((number(report, "/runs/0/answered"), number(report, "/runs/0/output_tokens")), (2.0, 12.0));
    }
    assert!(number(&chat, "/workload/prompt_tokens") > number(&plain, "/workload/prompt_tokens"));
}

#[test]
fn a_queue_that_is_full_is_counted() {
    let (address, _server) = serve(Settings { max_queued_requests: 1, ..Settings::default() });
    let report = measured(address, &["--requests", "60", "--input-len", "30", "--output-len", "200"]);
    let run = &report["runs"][0];
    let (answered, refused) = (number(run, "/answered"), number(run, "/refused"));
    assert!(answered > 0.0 && refused > 0.0 && answered + refused == 60.0, "{run}");
    assert_eq!((number(run, "/output_tokens"), number(run, "/failed")), (200.0 * answered, 0.0));
    assert!(number(run, "/retry_after/min") >= 1.0 && run["problems"][0]["status"] == 503, "{run}");
}
