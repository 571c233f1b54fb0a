//! Probes and metrics.

use std::time::Duration;

use runner::executor::ExecutorConfig;
use serde_json::json;

use crate::common::client::{Client, complete, get, metric};
use crate::common::in_process::InProcess;
use crate::common::{scripted, until};

#[test]
fn before_the_engine_is_open_only_the_process_is_alive() {
    let server = InProcess::loading(|_| {});
    for (path, status) in
        [("/live", 200), ("/livez", 200), ("/ready", 503), ("/health", 503), ("/startup", 503), ("/", 503)]
    {
        assert_eq!(get(server.address, path).status, status, "{path}");
    }
    assert!(get(server.address, "/ready").body.contains("the engine is being opened"));
    let reply = complete(server.address, &json!({ "prompt": "a" }));
    reply.error(503, "loading", None);
    assert!(reply.headers.contains_key("retry-after"));
    assert_eq!(get(server.address, "/metrics").status, 200);
}

#[test]
fn s30_an_executor_that_stands_still_is_not_ready_but_alive() {
    let server =
        scripted::start(scripted::slow(Duration::from_millis(1500)), 4, |settings| settings.stall_timeout = 0.3);
    assert_eq!(get(server.address, "/ready").status, 200);
    let mut client = Client::new(server.address);
    client.send("POST", "/v1/completions", &[], &json!({ "prompt": [5], "max_tokens": 1 }).to_string());
    until("it is not ready", || get(server.address, "/ready").status == 503);
    assert!(get(server.address, "/health").body.contains("stall_timeout"));
    assert_eq!((get(server.address, "/live").status, get(server.address, "/startup").status), (200, 200));
    assert_eq!(client.receive(true).unwrap().status, 200);
    until("it is ready again", || get(server.address, "/ready").status == 200);
}

#[test]
fn an_executor_that_gives_tokens_and_no_statistics_does_not_stand_still() {
    let config = ExecutorConfig { iter_stats_max_iterations: 0, ..ExecutorConfig::default() };
    let script = scripted::slow(Duration::from_millis(20));
    let server = scripted::start_with(script, 4, &config, |settings| settings.stall_timeout = 1.5);
    let mut client = Client::new(server.address);
    client.send("POST", "/v1/completions", &[], &json!({ "prompt": [5], "max_tokens": 150 }).to_string());
    until("it runs", || metric(server.address, "trtllm_num_requests_running") == 1.0);
    // It is busy for at least 3 s without a pause.
    until("it has ended", || {
        assert_eq!(get(server.address, "/ready").status, 200);
        metric(server.address, "trtllm_num_requests_running") == 0.0
    });
    assert_eq!(client.receive(true).unwrap().status, 200);
}

#[test]
fn the_process_is_alive_while_no_thread_answers() {
    let server = scripted::start(scripted::slow(Duration::ZERO), 4, |settings| settings.http_threads = 1);
    let (release, held) = std::sync::mpsc::channel::<()>();
    let (begin, begun) = std::sync::mpsc::channel();
    // A handler that never comes back, on the only thread that there is for them.
    let stuck = server.http.runtime().spawn(async move {
        begin.send(()).unwrap();
        let _ = held.recv();
    });
    begun.recv().unwrap();
    let mut waiting = Client::new(server.address);
    waiting.send("GET", "/health", &[], "");
    for path in ["/live", "/livez", "/v1/health/live?now"] {
        assert_eq!(get(server.address, path).status, 200, "{path}");
    }
    // What else comes on such a connection goes to the threads for it.
    let mut alive = Client::new(server.address);
    for _ in 0..2 {
        assert_eq!(alive.request("GET", "/live", &[], "").status, 200);
    }
    alive.send("GET", "/health", &[], "");
    drop(release);
    for client in [&mut waiting, &mut alive] {
        assert_eq!(client.receive(true).unwrap().status, 200);
    }
    assert!(stuck.is_finished());
}

#[test]
fn one_token_goes_through_all_that_a_request_goes_through() {
    let server = scripted::start(scripted::slow(Duration::ZERO), 4, |_| {});
    assert_eq!(get(server.address, "/health_generate").ok(), json!({ "status": "healthy" }));
    assert_eq!(metric(server.address, "trtllm_generation_tokens_total{"), 1.0);
    let loading = InProcess::loading(|_| {});
    get(loading.address, "/health_generate").error(503, "loading", None);
    let script = runner::scripted_model::Script { panics_at_step: Some(0), ..Default::default() };
    let failing = scripted::start(script, 4, |settings| settings.fail_grace = 1000.0);
    get(failing.address, "/health_generate").error(503, "engine_failed", None);
    assert_eq!((get(failing.address, "/health").status, get(failing.address, "/live").status), (503, 200));
    // Nobody who ends it waits for the rest of the grace.
    failing.signals.send(server::operations::Signal::Terminate).unwrap();
    assert!(matches!(failing.ended(), server::operations::Outcome::Failed(_)));
}

#[test]
fn s32_every_family_is_there_from_the_start_and_right_when_idle() {
    let server = scripted::start(scripted::slow(Duration::ZERO), 4, |_| {});
    let names = |page: &str| -> Vec<String> {
        page.lines()
            .filter_map(|line| line.strip_prefix("# TYPE "))
            .map(|line| line.split(' ').next().unwrap().to_owned())
            .collect()
    };
    let reply = get(server.address, "/metrics");
    assert_eq!(reply.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let first = reply.body;
    for name in [
        "num_requests_waiting",
        "num_requests_running",
        "kv_cache_utilization",
        "kv_cache_hit_rate",
        "kv_cache_max_blocks",
        "kv_cache_free_blocks",
        "kv_cache_used_blocks",
        "kv_cache_tokens_per_block",
        "kv_cache_reused_blocks_total",
        "kv_cache_missed_blocks_total",
        "request_success_total",
        "request_error_total",
        "prompt_tokens_total",
        "generation_tokens_total",
        "prompt_cached_tokens_total",
        "e2e_request_latency_seconds",
        "time_to_first_token_seconds",
        "time_per_output_token_seconds",
        "request_queue_time_seconds",
        "request_prefill_time_seconds",
        "request_decode_time_seconds",
        "request_inference_time_seconds",
        "request_prompt_tokens",
        "request_generation_tokens",
        "num_context_requests",
        "num_generation_requests",
        "num_paused_requests",
        "num_scheduled_requests",
        "iteration_latency_seconds",
        "model_config_info",
    ] {
        assert!(names(&first).contains(&format!("trtllm_{name}")), "{name}");
    }
    assert_eq!(metric(server.address, "trtllm_kv_cache_tokens_per_block{"), 16.0);
    let body = json!({ "prompt": [5, 6, 7], "max_tokens": 4, "n": 2, "stream": true });
    assert!(!complete(server.address, &body).events().is_empty());
    until("nothing runs", || metric(server.address, "trtllm_num_requests_running{") == 0.0);
    let value = |line: &str| metric(server.address, line);
    assert_eq!((value("trtllm_prompt_tokens_total{"), value("trtllm_generation_tokens_total{")), (3.0, 8.0));
    assert_eq!(value("trtllm_request_success_total{model_name=\"scripted\",finished_reason=\"length\"}"), 2.0);
    for name in ["e2e_request_latency", "time_to_first_token", "request_queue_time"] {
        assert_eq!(value(&format!("trtllm_{name}_seconds_count{{")), 1.0, "{name}");
    }
    assert_eq!((value("trtllm_num_requests_waiting{"), value("trtllm_kv_cache_used_blocks{")), (0.0, 0.0));
    assert!(value("trtllm_iteration_latency_seconds_count{") >= 4.0);
    // The last iteration had two.
    for name in ["scheduled", "generation", "context", "paused"] {
        assert_eq!(value(&format!("trtllm_num_{name}_requests{{")), 0.0, "{name}");
    }
    assert_eq!(
        value(
            "serve_http_requests_total{model_name=\"scripted\",route=\"/v1/completions\",method=\"POST\",status=\"200\"}"
        ),
        1.0
    );
    // The page is the same set of families, each with a help, and cumulative buckets.
    let page = get(server.address, "/metrics").body;
    assert_eq!(names(&page), names(&first));
    assert_eq!(page.matches("# HELP ").count(), names(&page).len());
    let buckets: Vec<u64> = page
        .lines()
        .filter(|line| line.starts_with("trtllm_request_generation_tokens_bucket"))
        .map(|line| line.rsplit(' ').next().unwrap().parse().unwrap())
        .collect();
    assert!(buckets.is_sorted() && buckets.last() == Some(&2), "{buckets:?}");
    assert!(page.lines().all(|line| !line.contains("[5")));
}

#[test]
fn the_gauges_of_iterations_are_of_what_runs() {
    let server = scripted::start(scripted::slow(Duration::from_millis(5)), 4, |_| {});
    let value = |name: &str| metric(server.address, &format!("trtllm_num_{name}_requests{{"));
    let mut client = Client::new(server.address);
    let body = json!({ "prompt": [5], "max_tokens": 10_000, "stream": true });
    client.send("POST", "/v1/completions", &[], &body.to_string());
    until("one runs", || (value("scheduled"), value("generation")) == (1.0, 1.0));
    drop(client);
    until("none runs", || (value("scheduled"), value("generation")) == (0.0, 0.0));
}
