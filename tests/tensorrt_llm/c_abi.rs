//! The C ABI with a TensorRT engine. The library is found through the environment, so this runs in a process of its own.

use std::ffi::c_void;
use std::process::Command;
use std::ptr;
use std::sync::Mutex;

use trtllm::c_api::engine::{
    TRTLLM_SHUTDOWN_DRAIN, trtllm_close_engine, trtllm_describe_engine, trtllm_engine_config, trtllm_engine_info,
    trtllm_init_engine_config, trtllm_open_engine, trtllm_shutdown_engine,
};
use trtllm::c_api::log::{TRTLLM_LOG_INFO, trtllm_log_record, trtllm_set_log_callback};
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

#[test]
fn a_hosts_log_has_what_tensorrt_llm_writes_as_long_as_it_is_wanted() {
    let engine = StandInEngine::new("parity/mistral-gqa", "");
    let mut host = Command::new(std::env::current_exe().unwrap());
    host.args(["--exact", "c_abi::logging_host", "--ignored", "--nocapture"]).env("TRTLLM_GPU_LIB", shim());
    let output = host.env(ENGINE, engine.path()).output().unwrap();
    let screen = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{screen}{}", String::from_utf8_lossy(&output.stderr));
    // One engine was opened before there was a callback, one while there was one, and one after.
    assert_eq!(screen.matches("[TensorRT-LLM][INFO] stand-in: engine").count(), 2, "{screen}");
    assert_eq!(screen.matches("[TensorRT-LLM][INFO] stand-in: closed").count(), 2, "{screen}");
}

unsafe extern "C" fn keep(lines: *mut c_void, record: *const trtllm_log_record) {
    // SAFETY: the host keeps the lines until the callback is cleared; the record is valid during the call.
    let (lines, record) = unsafe { (&*lines.cast::<Mutex<Vec<(u32, String, String)>>>(), &*record) };
    lines.lock().unwrap().push((record.level, copied(record.target), copied(record.message)));
}

#[test]
#[ignore = "the process of another test"]
fn logging_host() {
    let path = std::env::var(ENGINE).unwrap();
    let open_and_close = || {
        let mut engine = ptr::null_mut();
        // SAFETY: the path and the place are valid; there is no configuration.
        ok(unsafe { trtllm_open_engine(text(&path), ptr::null(), &mut engine) });
        ok(trtllm_close_engine(engine));
    };
    let lines: Mutex<Vec<(u32, String, String)>> = Mutex::default();
    open_and_close();
    // SAFETY: the lines outlive the callback, which is cleared below.
    ok(unsafe { trtllm_set_log_callback(TRTLLM_LOG_INFO, Some(keep), ptr::from_ref(&lines).cast_mut().cast()) });
    open_and_close();
    // SAFETY: there is no callback.
    ok(unsafe { trtllm_set_log_callback(0, None, ptr::null_mut()) });
    open_and_close();
    let lines = lines.into_inner().unwrap();
    let of = |name: &str| lines.iter().filter(|(_, target, _)| target == name).cloned().collect::<Vec<_>>();
    let [(level, _, opened), (_, _, closed)] = &of("tensorrt_llm")[..] else { panic!("{lines:?}") };
    assert_eq!(*level, TRTLLM_LOG_INFO);
    assert!(opened.starts_with("[TensorRT-LLM][INFO] stand-in: engine") && closed.ends_with("closed"), "{lines:?}");
    assert!(of("runner::engine")[0].2.contains("TensorRT-LLM 1.2.0-trtllm-stand-in"), "{lines:?}");
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
