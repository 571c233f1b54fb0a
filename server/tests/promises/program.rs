//! The program as it is started: addresses, settings, signals, exit codes.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use crate::common::client::{complete, get, request};
use crate::common::engine::{Server, demo_engine, program};
use crate::common::until;

fn run(arguments: &[&str], variables: &[(&str, &str)]) -> (i32, String, String) {
    let output = program().args(arguments).envs(variables.iter().copied()).stdin(Stdio::null()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn it_serves_drains_on_a_signal_and_ends_with_0() {
    let server = Server::start(&["--drain-grace", "0", "--log-format", "json"]);
    let answer = complete(server.address, &json!({ "prompt": "What of the moon", "max_tokens": 3 })).ok();
    assert_eq!((&answer["model"], &answer["usage"]["completion_tokens"]), (&json!("demo"), &json!(3)));
    server.signal(Signal::TERM);
    let (status, said) = server.end();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.starts_with("listening on http://127.0.0.1:"), "{said}");
    let line = said.lines().find(|line| line.contains("\"answered\"")).unwrap();
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!((&line["fields"]["route"], &line["fields"]["status"]), (&json!("/v1/completions"), &json!(200)));
    assert!(line["fields"].get("key").is_none(), "{line}");
    for step in [
        "KV cache of 8192 tokens (up to 20.00 MiB, taken as it fills)",
        "\nready; try: curl http://127.0.0.1:",
        "\npage: http://127.0.0.1:",
    ] {
        assert!(said.contains(step), "{step}: {said}");
    }
    assert!(said.lines().last().unwrap().contains("the server has ended"), "{said}");
    assert!(!said.contains("What of the moon"), "prompts are not logged");
}

#[test]
fn a_kv_cache_in_int8_is_told_wherever_the_cache_is() {
    let option = ["--kv-cache-dtype", "int8"];
    let (code, stdout, said) = run(&[&["--print-config"], &option[..]].concat(), &[]);
    assert_eq!(code, 0, "{said}");
    let printed: toml::Table = stdout.parse().unwrap();
    assert_eq!(printed["kv_cache"]["dtype"].as_str(), Some("int8"), "{stdout}");
    let server = Server::start(&[&option[..], &["--drain-grace", "0"]].concat());
    let page = get(server.address, "/metrics").body;
    assert!(
        page.lines()
            .any(|line| line.starts_with("trtllm_model_config_info{") && line.contains("kv_cache_dtype=\"int8\""))
    );
    server.signal(Signal::TERM);
    let (_, said) = server.end();
    assert!(said.contains("bf16 weights; CPU (") && said.contains("KV cache in int8 of 8192 tokens"), "{said}");
}

#[test]
fn an_address_that_stands_for_all_is_none_to_ask_for() {
    let server = Server::start(&["--host", "0.0.0.0", "--no-auth", "--drain-grace", "0"]);
    server.signal(Signal::TERM);
    let (_, said) = server.end();
    assert!(said.contains("listening on http://0.0.0.0:") && said.contains("page: http://127.0.0.1:"), "{said}");
    assert!(said.contains("try: curl http://127.0.0.1:"), "{said}");
}

#[test]
fn a_signal_and_another_end_it_with_130() {
    let server = Server::start(&["--drain-grace", "1000"]);
    server.signal(Signal::TERM);
    until("it is not ready", || get(server.address, "/ready").status == 503);
    server.signal(Signal::INT);
    let (status, said) = server.end();
    assert_eq!(status.code(), Some(130), "{said}");
}

#[test]
fn s27_a_signal_before_the_engine_is_open_ends_it_promptly() {
    // A FIFO in the place of a file is opened for as long as nobody writes.
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(demo_engine()).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, dir.path().join(path.file_name().unwrap())).unwrap();
    }
    let held = dir.path().join("engine.json");
    std::fs::remove_file(&held).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &held, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    let server = Server::spawn(dir.path(), &[], &[]);
    assert_eq!((get(server.address, "/live").status, get(server.address, "/ready").status), (200, 503));
    let began = Instant::now();
    server.signal(Signal::TERM);
    let (status, said) = server.end();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(began.elapsed() < Duration::from_secs(5) && !said.contains("panicked"), "{said}");
}

#[test]
fn s31_other_addresses_than_loopback_need_a_key_or_a_decision() {
    let engine = demo_engine().to_str().unwrap();
    let (code, _, said) = run(&["--engine", engine, "--host", "0.0.0.0", "--port", "0"], &[]);
    assert!(code == 2 && said.contains("--api-key-file") && said.contains("--no-auth"), "{said}");
    let server = Server::start_with(&["--host", "0.0.0.0"], &[("SERVE_API_KEYS", "ann:k1,bob:k2")]);
    let port = server.address.port();
    let local = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    assert_eq!(get(local, "/v1/models").status, 401);
    assert_eq!(request(local, "GET", "/v1/models", &["Authorization: Bearer k2"], "").status, 200);
    drop(server);
    let server = Server::start(&["--host", "0.0.0.0", "--no-auth", "--drain-grace", "0"]);
    server.signal(Signal::INT);
    let (status, said) = server.end();
    assert!(status.success() && said.contains("warning: 0.0.0.0 is not loopback"), "{said}");
}

#[test]
fn it_listens_at_a_path() {
    let dir = tempfile::tempdir().unwrap();
    let (socket, ready) = (dir.path().join("socket"), dir.path().join("ready"));
    let start = || {
        let mut command = program();
        command.args(["--threads", "1", "--drain-grace", "0", "--engine"]).arg(demo_engine());
        command.arg("--unix-socket").arg(&socket).arg("--ready-file").arg(&ready);
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut child = start();
    until("it listens", || ready.exists());
    assert_eq!(std::fs::read_to_string(&ready).unwrap(), format!("unix:{}\n", socket.display()));
    let ask = |path: &str| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: any.name\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    };
    assert!(ask("/live").starts_with("HTTP/1.1 200 "));
    until("the engine is open", || ask("/ready").starts_with("HTTP/1.1 200 "));
    let other = start().wait_with_output().unwrap();
    let said = String::from_utf8(other.stderr).unwrap();
    assert!(other.status.code() == Some(2) && said.contains("another program listens there"), "{said}");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(!socket.exists());
}

#[test]
fn wrong_settings_and_engines_have_their_exit_codes() {
    let engine = demo_engine().to_str().unwrap();
    for (arguments, code, said) in [
        (&["--engine", "/nowhere"][..], 2, "/nowhere"),
        (&[], 2, "--engine"),
        (&["--engine", engine, "--port", "70000"], 2, "70000"),
        (&["--engine", engine, "--write-timeout=-1"], 2, "write_timeout"),
        (&["--engine", engine, "--host", "no such host"], 2, "no such host"),
        (&["--engine", engine, "--api-key-file", "/nowhere"], 2, "/nowhere"),
        (&["--engine", engine, "--max-batch-size", "17", "--port", "0"], 2, "above the engine's 16"),
        (&["--engine", engine, "--lora", "a=b", "--port", "0"], 2, "no LoRA adapters"),
    ] {
        let (found, _, stderr) = run(arguments, &[]);
        assert!(found == code && stderr.contains(said), "{arguments:?}: {found} {stderr}");
    }
}

#[test]
fn settings_have_one_list_of_names() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("server.toml");
    std::fs::write(&file, "[server]\nport = 1\nmax_body_bytes = 5\nany_model = true\n").unwrap();
    let arguments = ["--print-config", "--config", file.to_str().unwrap(), "--port", "3"];
    let (code, stdout, _) =
        run(&arguments, &[("SERVE_PORT", "2"), ("SERVE_MAX_BODY_BYTES", "6"), ("SERVE_API_KEYS", "a:secret")]);
    assert_eq!(code, 0);
    for line in ["[server]", "port = 3", "max_body_bytes = 6", "any_model = true", "host = \"127.0.0.1\""] {
        assert!(stdout.lines().any(|found| found == line), "{line}: {stdout}");
    }
    assert!(!stdout.contains("secret"));
    // What is printed can be read.
    std::fs::write(&file, &stdout).unwrap();
    assert_eq!(run(&["--print-config", "--config", file.to_str().unwrap()], &[]).1, stdout);
}

#[test]
fn keys_are_read_again_on_a_hangup() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    std::fs::write(&keys, "ann:old\n").unwrap();
    let server = Server::start(&["--api-key-file", keys.to_str().unwrap()]);
    let status =
        |key: &str| request(server.address, "GET", "/v1/models", &[&format!("Authorization: Bearer {key}")], "").status;
    assert_eq!((status("old"), status("new")), (200, 401));
    std::fs::write(&keys, "ann:new\n").unwrap();
    server.signal(Signal::HUP);
    until("the new key is known", || status("new") == 200);
    assert_eq!(status("old"), 401);
}

#[test]
fn a_failed_executor_ends_the_program() {
    // Its end over a scripted executor: `drain`'s outcome, of which the program makes exit code 1.
    let script = runner::scripted_model::Script { panics_at_step: Some(0), ..Default::default() };
    let server = crate::common::scripted::start(script, 4, |_| {});
    complete(server.address, &json!({ "prompt": [5] })).error(503, "engine_failed", None);
    assert!(matches!(server.ended(), server::operations::Outcome::Failed(_)));
}

/// As in `scripts/update-reference`.
const COLUMNS: &str = "100";

#[test]
fn the_reference_is_the_help_text() {
    let output = program().arg("--help").env("COLUMNS", COLUMNS).output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/serve-engine.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (_, block) = page.split_once("<!-- help: serve-engine -->\n").unwrap();
    let (block, _) = block.split_once("<!-- end -->").unwrap();
    let expected = format!("```text\n{help}```\n");
    assert_eq!(block, expected, "docs/reference/serve-engine.md is out of date: run scripts/update-reference");
}

#[test]
fn man_page_and_completions_name_the_flags() {
    for (kind, flag) in
        [("man", r"\-\-drain\-grace"), ("complete-bash", "--drain-grace"), ("complete-zsh", "--drain-grace")]
    {
        let (code, stdout, _) = run(&["--generate", kind], &[]);
        assert!(code == 0 && stdout.contains(flag), "{kind}: {stdout}");
    }
}
