//! The C ABI with a TensorRT engine. The library is found through the environment, so this runs in a process of its own.

use std::process::Command;
use std::ptr;

use trtllm::c_api::engine::{
    TRTLLM_SHUTDOWN_DRAIN, trtllm_close_engine, trtllm_describe_engine, trtllm_engine_config, trtllm_engine_info,
    trtllm_init_engine_config, trtllm_open_engine, trtllm_shutdown_engine,
};
use trtllm::c_api::request::{trtllm_init_request, trtllm_request};
use trtllm::c_api::request_queue::trtllm_enqueue;
use trtllm::c_api::response::{
    TRTLLM_WAIT_FOREVER, trtllm_await_responses, trtllm_free_responses, trtllm_response, trtllm_view_responses,
};
use trtllm::c_api::stats::{trtllm_take_kv_cache_events, trtllm_take_request_stats};
use trtllm::c_api::status::{TRTLLM_STATUS_INVALID_ARGUMENT, TRTLLM_STATUS_OK, trtllm_last_error, trtllm_status};
use trtllm::c_api::strings::{trtllm_free_string, trtllm_ids, trtllm_str, trtllm_string, trtllm_view_string};
use trtllm::c_api::version::{TRTLLM_EXECUTOR_TENSORRT_LLM, trtllm_diagnose};

use crate::stand_in::{StandInEngine, shim};

const ENGINE: &str = "TRTLLM_TEST_ENGINE";

#[test]
fn a_host_runs_a_tensorrt_engine_without_changing_a_line() {
    let engine = StandInEngine::new("parity/mistral-gqa", "");
    let mut host = Command::new(std::env::current_exe().unwrap());
    host.args(["--exact", "c_abi::host", "--ignored", "--nocapture"]).env("TRTLLM_GPU_LIB", shim());
    let output = host.env(ENGINE, engine.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

fn text(text: &str) -> trtllm_str {
    trtllm_str { data: text.as_ptr().cast(), len: text.len() }
}

fn copied(view: trtllm_str) -> String {
    if view.len == 0 {
        return String::new();
    }
    // SAFETY: the library gave the view out, and what it is of has not been freed.
    String::from_utf8(unsafe { std::slice::from_raw_parts(view.data.cast::<u8>(), view.len) }.to_vec()).unwrap()
}

#[track_caller]
fn ok(status: trtllm_status) {
    assert_eq!(status, TRTLLM_STATUS_OK, "{}", copied(trtllm_last_error()));
}

fn taken(string: *mut trtllm_string) -> String {
    let mut view = trtllm_str { data: ptr::null(), len: 0 };
    // SAFETY: the place is valid.
    ok(unsafe { trtllm_view_string(string, &mut view) });
    let text = copied(view);
    ok(trtllm_free_string(string));
    text
}

#[test]
#[ignore = "the process of another test"]
fn host() {
    let path = std::env::var(ENGINE).unwrap();
    // SAFETY: plain data, which the library fills; every pointer below is to a valid place of its type.
    unsafe {
        let mut report = ptr::null_mut();
        let mut healthy = std::mem::zeroed();
        ok(trtllm_diagnose(text(&path), &mut healthy, &mut report));
        let report = taken(report);
        assert!(report.contains("1.2.0-trtllm-stand-in") && report.contains("engine"), "{report}");

        let mut config: trtllm_engine_config = std::mem::zeroed();
        ok(trtllm_init_engine_config(&mut config, size_of_val(&config)));
        let mut engine = ptr::null_mut();
        config.tensorrt_llm = text("max_beam_widht = 2");
        assert_eq!(trtllm_open_engine(text(&path), &config, &mut engine), TRTLLM_STATUS_INVALID_ARGUMENT);
        assert!(copied(trtllm_last_error()).contains("max_beam_widht"));
        config.tensorrt_llm = text("request_stats_max_iterations = 10\n[kv_cache]\nevent_buffer_max_size = 10\n");
        ok(trtllm_open_engine(text(&path), &config, &mut engine));
        let mut info: trtllm_engine_info = std::mem::zeroed();
        info.struct_size = size_of_val(&info);
        ok(trtllm_describe_engine(engine, &mut info));
        assert_eq!((info.executor, info.max_seq_len), (TRTLLM_EXECUTOR_TENSORRT_LLM, 512));

        let ids = [3_u32, 1, 4];
        let mut request: trtllm_request = std::mem::zeroed();
        ok(trtllm_init_request(&mut request, size_of_val(&request)));
        request.token_ids = trtllm_ids { data: ids.as_ptr(), len: ids.len() };
        request.max_new_tokens = 5;
        request.retention_priority = 101;
        let mut id = 0;
        assert_eq!(trtllm_enqueue(engine, &request, &mut id), TRTLLM_STATUS_INVALID_ARGUMENT);
        request.retention_priority = 80;
        ok(trtllm_enqueue(engine, &request, &mut id));
        let (mut tokens, mut is_final) = (0, false);
        while !is_final {
            let mut responses = ptr::null_mut();
            ok(trtllm_await_responses(engine, TRTLLM_WAIT_FOREVER, &mut responses));
            let (mut array, mut count): (*const *const trtllm_response, usize) = (ptr::null(), 0);
            ok(trtllm_view_responses(responses, &mut array, &mut count));
            for &response in std::slice::from_raw_parts(array, count) {
                tokens += (*response).token_ids.len;
                is_final |= (*response).is_final == true.into();
            }
            ok(trtllm_free_responses(responses));
        }
        assert_eq!(tokens, 5);
        let mut lines = ptr::null_mut();
        ok(trtllm_take_request_stats(engine, &mut lines));
        assert!(taken(lines).contains("numGeneratedTokens"));
        ok(trtllm_take_kv_cache_events(engine, 0, &mut lines));
        assert!(taken(lines).contains("\"stored\""));
        ok(trtllm_shutdown_engine(engine, TRTLLM_SHUTDOWN_DRAIN));
        ok(trtllm_close_engine(engine));
    }
}
