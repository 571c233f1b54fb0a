//! What TensorRT-LLM does to the process that it is in, through the C ABI. Each host here is a process of its own.

use std::ffi::c_void;
use std::path::Path;
use std::process::Command;
use std::ptr;
use std::sync::Mutex;

use trtllm::c_api::build::{trtllm_build_engine, trtllm_build_options, trtllm_init_build_options, trtllm_progress};
use trtllm::c_api::engine::{
    trtllm_close_engine, trtllm_engine, trtllm_engine_config, trtllm_init_engine_config, trtllm_open_engine,
};
use trtllm::c_api::request::{trtllm_init_request, trtllm_request};
use trtllm::c_api::request_queue::trtllm_enqueue;
use trtllm::c_api::response::{
    TRTLLM_WAIT_FOREVER, trtllm_await_responses, trtllm_free_responses, trtllm_response, trtllm_view_responses,
};
use trtllm::c_api::status::{
    TRTLLM_STATUS_BUSY, TRTLLM_STATUS_OK, TRTLLM_STATUS_UNAVAILABLE, trtllm_last_error, trtllm_status,
};
use trtllm::c_api::strings::{trtllm_ids, trtllm_str};
use trtllm::engine_format::Mapping;
use trtllm::trtllm_sys::gpu::{GpuError, GpuLibrary};

use crate::stand_in::{StandInEngine, prefix, shim};

const MODEL: &str = "parity/mistral-gqa";
const ENGINE: &str = "TRTLLM_TEST_ENGINE";
const FOLDER: &str = "TRTLLM_TEST_FOLDER";

/// Runs the host `name` of this file with `engine` on a machine with an A100; it has to succeed.
fn run_host(name: &str, engine: &StandInEngine) {
    let folder = tempfile::tempdir().unwrap();
    let mut host = Command::new(std::env::current_exe().unwrap());
    host.args(["--exact", &format!("process::{name}"), "--ignored", "--nocapture"]);
    host.env("TRTLLM_GPU_LIB", shim()).env("LD_LIBRARY_PATH", prefix().join("lib/cuda"));
    let output = host.env(ENGINE, engine.path()).env(FOLDER, folder.path()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{:?}: {text}", output.status);
}

#[test]
fn a_process_builds_engines_or_runs_them() {
    run_host("host_that_builds_and_runs", &StandInEngine::new(MODEL, ""));
}

#[test]
fn a_hosts_signal_handlers_stay_as_they_are() {
    run_host("host_with_handlers", &StandInEngine::new(MODEL, ""));
    run_host("host_with_handlers", &StandInEngine::new(MODEL, "throw_in construct\n"));
}

#[test]
fn a_hosts_signal_handlers_stay_where_workers_never_come() {
    let settings = "workers 2\nworker hang\n";
    run_host("host_with_handlers", &StandInEngine::with_ranks(MODEL, settings, Mapping { tp_size: 2, pp_size: 1 }));
}

fn text(text: &str) -> trtllm_str {
    trtllm_str { data: text.as_ptr().cast(), len: text.len() }
}

fn last_error() -> String {
    let view = trtllm_last_error();
    // SAFETY: the view is valid until this thread's next failure.
    String::from_utf8(unsafe { std::slice::from_raw_parts(view.data.cast::<u8>(), view.len) }.to_vec()).unwrap()
}

#[track_caller]
fn ok(status: trtllm_status) {
    assert_eq!(status, TRTLLM_STATUS_OK, "{}", last_error());
}

fn open(path: &Path, tensorrt_llm: &str) -> Result<*mut trtllm_engine, trtllm_status> {
    let mut engine = ptr::null_mut();
    // SAFETY: plain data, which the library fills; the path, the settings and the places are valid.
    let status = unsafe {
        let mut config: trtllm_engine_config = std::mem::zeroed();
        ok(trtllm_init_engine_config(&mut config, size_of_val(&config)));
        config.tensorrt_llm = text(tensorrt_llm);
        trtllm_open_engine(text(path.to_str().unwrap()), &config, &mut engine)
    };
    if status == TRTLLM_STATUS_OK { Ok(engine) } else { Err(status) }
}

/// The tokens that follow a prompt.
fn generate(engine: *mut trtllm_engine) -> Vec<u32> {
    let ids = [3_u32, 1, 4];
    let (mut tokens, mut is_final, mut id) = (Vec::new(), false, 0);
    // SAFETY: plain data, which the library fills; every pointer is to a valid place of its type, and views are copied.
    unsafe {
        let mut request: trtllm_request = std::mem::zeroed();
        ok(trtllm_init_request(&mut request, size_of_val(&request)));
        request.token_ids = trtllm_ids { data: ids.as_ptr(), len: ids.len() };
        request.max_new_tokens = 6;
        ok(trtllm_enqueue(engine, &request, &mut id));
        while !is_final {
            let (mut responses, mut count) = (ptr::null_mut(), 0);
            let mut array: *const *const trtllm_response = ptr::null();
            ok(trtllm_await_responses(engine, TRTLLM_WAIT_FOREVER, &mut responses));
            ok(trtllm_view_responses(responses, &mut array, &mut count));
            for &response in std::slice::from_raw_parts(array, count) {
                let ids = (*response).token_ids;
                tokens.extend_from_slice(std::slice::from_raw_parts(ids.data, ids.len));
                is_final |= (*response).is_final == true.into();
            }
            ok(trtllm_free_responses(responses));
        }
    }
    tokens
}

/// A host that opens an engine whenever a build tells it something.
#[derive(Default)]
struct Opening {
    statuses: Mutex<Vec<Result<(), (trtllm_status, String)>>>,
}

unsafe extern "C" fn open_meanwhile(user_data: *mut c_void, _: *const trtllm_progress) -> i32 {
    // SAFETY: the host keeps it until the build has returned.
    let opening = unsafe { &*user_data.cast::<Opening>() };
    let try_it = || {
        let path = std::env::var(ENGINE).unwrap();
        let opened = open(Path::new(&path), "").map_err(|status| (status, last_error()));
        opened.map(|engine| ok(trtllm_close_engine(engine)))
    };
    // On another thread, for one that builds may not wait for an engine.
    let status = std::thread::scope(|scope| scope.spawn(try_it).join().unwrap());
    opening.statuses.lock().unwrap().push(status);
    0
}

/// Builds an engine for the GPU into `output`.
fn build(output: &Path, opening: &Opening) -> trtllm_status {
    let model = crate::common::fixture(MODEL);
    // SAFETY: plain data, which the library fills; texts and the user's data live through the call.
    unsafe {
        let mut options: trtllm_build_options = std::mem::zeroed();
        ok(trtllm_init_build_options(&mut options, size_of_val(&options)));
        options.model = text(model.to_str().unwrap());
        options.gpu = text("a100");
        options.output = text(output.to_str().unwrap());
        options.on_progress = Some(open_meanwhile);
        options.user_data = ptr::from_ref(opening).cast_mut().cast();
        trtllm_build_engine(&options)
    }
}

#[test]
#[ignore = "the process of another test"]
fn host_that_builds_and_runs() {
    let (path, folder) = (std::env::var(ENGINE).unwrap(), std::env::var(FOLDER).unwrap());
    let (path, output) = (Path::new(&path), Path::new(&folder).join("engine"));
    // A build is refused while an engine is open, before anything is written, and the engine does not notice.
    let engine = open(path, "").unwrap();
    let tokens = generate(engine);
    assert_eq!(build(&output, &Opening::default()), TRTLLM_STATUS_BUSY);
    assert!(last_error().contains("has a TensorRT-LLM engine open") && last_error().contains("build-engine"));
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
    assert_eq!(generate(engine), tokens);
    // There is one guard, however often the library is in the process.
    let again = GpuLibrary::open(&shim()).unwrap();
    assert!(matches!(again.begin_build(), Err(GpuError::Busy { .. })));
    ok(trtllm_close_engine(engine));

    // An engine is refused while one is built, from the first thing that is told to the last, and the build does not notice.
    let opening = Opening::default();
    ok(build(&output, &opening));
    let statuses = opening.statuses.into_inner().unwrap();
    let (last, meanwhile) = statuses.split_last().unwrap();
    assert!(meanwhile.len() > 3, "{statuses:?}");
    for status in meanwhile.iter().chain([last]) {
        let Err((status, message)) = status else { panic!("opened") };
        assert!(*status == TRTLLM_STATUS_BUSY && message.contains("building a TensorRT engine"), "{message}");
    }
    let two = (again.begin_build().unwrap(), again.begin_build().unwrap());
    assert_eq!(open(path, ""), Err(TRTLLM_STATUS_BUSY));
    drop(two.0);
    assert_eq!(open(path, ""), Err(TRTLLM_STATUS_BUSY));
    drop(two.1);

    // Then both can be had again, and what was refused has left nothing behind.
    for path in [path, &output] {
        let engine = open(path, "").unwrap();
        assert!(!generate(engine).is_empty());
        ok(trtllm_close_engine(engine));
    }
    let engine = open(path, "").unwrap();
    assert_eq!(generate(engine), tokens);
    ok(trtllm_close_engine(engine));
    // SAFETY: nothing else runs in this process.
    unsafe { std::env::set_var("IS_BUILDING", "1") };
    assert_eq!(open(path, ""), Err(TRTLLM_STATUS_BUSY));
    assert!(last_error().contains("IS_BUILDING=1"), "{}", last_error());
}

extern "C" fn on_fault(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut c_void) {}

/// What every signal does: its number, handler, flags (without the C library's own) and mask.
fn dispositions() -> Vec<(libc::c_int, usize, libc::c_int, Vec<libc::c_int>)> {
    let of = |signal| {
        // SAFETY: plain data; nothing is set, and what is read was written.
        unsafe {
            let mut now: libc::sigaction = std::mem::zeroed();
            let mask = |now: &libc::sigaction| (1..=64).filter(|&s| libc::sigismember(&now.sa_mask, s) == 1).collect();
            (libc::sigaction(signal, ptr::null(), &mut now) == 0)
                .then(|| (signal, now.sa_sigaction, now.sa_flags & !0x0400_0000, mask(&now)))
        }
    };
    (1..=64).filter_map(of).collect()
}

#[test]
#[ignore = "the process of another test"]
fn host_with_handlers() {
    // As a runtime that makes exceptions of faults has them.
    for (signal, flags) in [
        (libc::SIGSEGV, libc::SA_SIGINFO | libc::SA_ONSTACK | libc::SA_NODEFER),
        (libc::SIGABRT, libc::SA_SIGINFO),
        (libc::SIGFPE, libc::SA_SIGINFO | libc::SA_RESTART),
        (libc::SIGHUP, libc::SA_SIGINFO | libc::SA_RESETHAND),
    ] {
        // SAFETY: plain data; the handler does nothing.
        unsafe {
            let mut action: libc::sigaction = std::mem::zeroed();
            action.sa_sigaction = on_fault as *const () as usize;
            action.sa_flags = flags;
            libc::sigaddset(&mut action.sa_mask, libc::SIGUSR2);
            assert_eq!(libc::sigaction(signal, &action, ptr::null_mut()), 0);
        }
    }
    // SAFETY: a signal that is ignored is no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    let before = dispositions();
    let path = std::env::var(ENGINE).unwrap();
    let open_it = || {
        let opened = open(Path::new(&path), "start_up_timeout = 1");
        assert_eq!(dispositions(), before);
        opened
    };
    // Several at once, so that one opens while another is through.
    let engines: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| open_it().map(|engine| engine as usize))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for engine in engines {
        match engine {
            Ok(engine) => ok(trtllm_close_engine(engine as *mut trtllm_engine)),
            Err(status) => assert_eq!(status, TRTLLM_STATUS_UNAVAILABLE),
        }
    }
    assert_eq!(dispositions(), before);
}
