//! The library's threads and memory, in a process that is the host's.

#[cfg(target_arch = "x86_64")]
use std::arch::asm;
use std::path::Path;
use std::process::Command;
use std::ptr;

use trtllm::c_api::build::{trtllm_build_engine, trtllm_build_options, trtllm_init_build_options};
use trtllm::c_api::engine::{
    trtllm_close_engine, trtllm_describe_engine, trtllm_engine, trtllm_engine_config, trtllm_engine_info,
    trtllm_init_engine_config, trtllm_open_engine,
};
use trtllm::c_api::status::TRTLLM_STATUS_INVALID_ARGUMENT;
use trtllm::c_api::strings::trtllm_ids;

use crate::common;
use crate::support::{Host, last_error, ok, open, request, text_of};

/// Whether this process runs the test `name` of this file and nothing else; where it does not, it starts one that does.
fn is_alone(name: &str, variables: &[(&str, &str)]) -> bool {
    const ALONE: &str = "TRTLLM_TEST_IS_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let mut test = Command::new(std::env::current_exe().unwrap());
    test.args(["--exact", &format!("threads::{name}"), "--nocapture"]).env(ALONE, "1");
    let output = test.envs(variables.iter().copied()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    false
}

struct Thread {
    name: String,
    blocked: u64,
}

/// The threads of this process, by name.
fn threads() -> Vec<Thread> {
    let mut threads: Vec<_> = std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter_map(|task| {
            let status = std::fs::read_to_string(task.ok()?.path().join("status")).ok()?;
            let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
            let blocked = u64::from_str_radix(field("SigBlk:")?, 16).ok()?;
            Some(Thread { name: field("Name:")?.to_owned(), blocked })
        })
        .collect();
    threads.sort_by(|a, b| a.name.cmp(&b.name));
    threads
}

/// Waits until there are this many threads: one that has ended can be seen for a moment longer.
#[track_caller]
fn expect_threads(count: usize) {
    let began = std::time::Instant::now();
    while threads().len() != count {
        let names: Vec<_> = threads().into_iter().map(|thread| thread.name).collect();
        assert!(began.elapsed().as_secs() < 5, "{count} threads were expected, not {names:?}");
        std::thread::yield_now();
    }
}

fn ours() -> Vec<Thread> {
    threads().into_iter().filter(|thread| thread.name.starts_with("trtllm-")).collect()
}

fn config(threads: usize) -> trtllm_engine_config {
    let mut config = std::mem::MaybeUninit::uninit();
    // SAFETY: the place has that size; a success initialises it.
    unsafe {
        ok(trtllm_init_engine_config(config.as_mut_ptr(), size_of::<trtllm_engine_config>()));
        let mut config: trtllm_engine_config = config.assume_init();
        config.threads = threads;
        config
    }
}

#[test]
fn an_engines_threads_say_whose_they_are_take_no_signals_and_are_gone_when_it_is_closed() {
    if !is_alone("an_engines_threads_say_whose_they_are_take_no_signals_and_are_gone_when_it_is_closed", &[]) {
        return;
    }
    let built = common::build(&common::fixture("parity/mistral-gqa"), 64);
    let before = threads().len();
    for _ in 0..50 {
        let engine = open(&built.path, &config(3));
        // Each names itself, at its first step.
        let began = std::time::Instant::now();
        while ours().len() < 5 && began.elapsed().as_secs() < 10 {
            std::thread::yield_now();
        }
        let ours = ours();
        let names: Vec<_> = ours.iter().map(|thread| thread.name.as_str()).collect();
        assert_eq!(names, ["trtllm-cpu-0", "trtllm-cpu-1", "trtllm-cpu-2", "trtllm-executor", "trtllm-session"]);
        assert_eq!(threads().len(), before + names.len(), "a thread without our name");
        for Thread { name, blocked } in ours {
            for signal in [libc_signals::TERM, libc_signals::ALRM, libc_signals::CHLD, libc_signals::INT] {
                assert!(blocked >> (signal - 1) & 1 == 1, "{name} takes signal {signal}");
            }
        }
        ok(trtllm_close_engine(engine));
        expect_threads(before);
    }
}

/// Numbers of Linux.
mod libc_signals {
    pub(super) const INT: u32 = 2;
    pub(super) const ALRM: u32 = 14;
    pub(super) const TERM: u32 = 15;
    pub(super) const CHLD: u32 = 17;
}

#[test]
fn the_environment_of_rayon_starts_no_threads() {
    let name = "the_environment_of_rayon_starts_no_threads";
    if !is_alone(name, &[("RAYON_NUM_THREADS", "700"), ("RAYON_RS_NUM_CPUS", "700")]) {
        return;
    }
    let (dir, model) = (tempfile::tempdir().unwrap(), common::fixture("parity/mistral-gqa"));
    let output = dir.path().join("engine");
    let before = threads().len();
    let mut options = std::mem::MaybeUninit::uninit();
    // SAFETY: the place has that size, a success initialises it, and the texts live through the calls.
    unsafe {
        ok(trtllm_init_build_options(options.as_mut_ptr(), size_of::<trtllm_build_options>()));
        let mut options: trtllm_build_options = options.assume_init();
        options.model = text_of(model.to_str().unwrap());
        options.output = text_of(output.to_str().unwrap());
        options.gpu = text_of("none");
        ok(trtllm_build_engine(&options));
    }
    expect_threads(before);
    let engine = open(&output, &config(2));
    expect_threads(before + 4);
    ok(trtllm_close_engine(engine));
    expect_threads(before);
}

#[test]
fn more_threads_than_are_worth_it_are_refused() {
    let built = common::build(&common::fixture("parity/mistral-gqa"), 64);
    for threads in [1025, usize::MAX] {
        let mut engine = ptr::null_mut();
        let path = text_of(built.path.to_str().unwrap());
        // SAFETY: path and configuration live through the call.
        let status = unsafe { trtllm_open_engine(path, &config(threads), &mut engine) };
        assert_eq!(status, TRTLLM_STATUS_INVALID_ARGUMENT);
        assert_eq!(last_error(), format!("threads must be from 1 to 1024, not {threads}"));
    }
}

/// Sets the thread's control register of SSE; the value of before.
#[cfg(target_arch = "x86_64")]
fn set_floating_point_mode(mode: u32) -> u32 {
    let mut before = 0_u32;
    // SAFETY: the register exists, the places have four bytes, and no reserved bit is set.
    unsafe {
        asm!("stmxcsr [{}]", in(reg) &raw mut before, options(nostack));
        asm!("ldmxcsr [{}]", in(reg) &raw const mode, options(nostack));
    }
    before
}

#[cfg(target_arch = "x86_64")]
#[test]
fn the_bits_do_not_depend_on_the_floating_point_mode_of_the_host() {
    let log_probs = |model: &Path| {
        let host = Host::new(common::build(model, 64));
        let mut bits = Vec::new();
        for temperature in [0.0, 0.7] {
            let mut request = request();
            request.token_ids = trtllm_ids { data: [1, 2, 3].as_ptr(), len: 3 };
            request.max_new_tokens = 12;
            (request.temperature, request.top_p, request.seed) = (temperature, 0.9, 7);
            request.return_log_probs = true.into();
            request.ignore_eos = true.into();
            host.enqueue(&request);
            host.await_all(1, |response| {
                if response.token_ids.len > 0 {
                    // SAFETY: one for each token, valid while the response is.
                    let new = unsafe { std::slice::from_raw_parts(response.log_probs, response.token_ids.len) };
                    bits.extend(new.iter().map(|number| number.to_bits()));
                }
            });
        }
        bits
    };
    let model = common::fixture("parity/mistral-gqa");
    let expected = log_probs(&model);
    assert_eq!(expected.len(), 24);
    const TOWARD_ZERO_AND_FLUSHING: u32 = 0xffc0;
    for mode in [TOWARD_ZERO_AND_FLUSHING, 0x3f80, 0x9fc0] {
        let before = set_floating_point_mode(mode);
        let found = log_probs(&model);
        let after = set_floating_point_mode(before) & !0x3f;
        assert_eq!(after, mode & !0x3f, "the host's mode is the host's");
        assert!(found == expected, "{mode:x}");
    }
}

fn kv_cache_bytes(engine: *const trtllm_engine) -> u64 {
    let mut info = std::mem::MaybeUninit::<trtllm_engine_info>::zeroed();
    // SAFETY: every pattern of bytes is a value of the struct, which has the size that it says.
    let info = unsafe { info.assume_init_mut() };
    info.struct_size = size_of::<trtllm_engine_info>();
    // SAFETY: the place is valid.
    ok(unsafe { trtllm_describe_engine(engine, info) });
    info.kv_cache_bytes as u64
}

#[test]
fn engines_of_one_process_are_not_promised_the_same_memory() {
    if !is_alone("engines_of_one_process_are_not_promised_the_same_memory", &[]) {
        return;
    }
    let built = common::build(&common::fixture("parity/mistral-gqa"), 64);
    let free = system::Machine::here().touchable().unwrap().bytes;
    let mut all = config(1);
    all.kv_cache_max_tokens = usize::MAX;
    let engines: Vec<_> = (0..3).map(|_| open(&built.path, &all)).collect();
    let sizes: Vec<_> = engines.iter().map(|&engine| kv_cache_bytes(engine)).collect();
    // Other programs may take or give memory meanwhile.
    assert!(sizes.iter().sum::<u64>() < free / 20 * 21 && sizes[0] > free / 2, "{sizes:?} of {free}");
    assert!(sizes[1] < sizes[0] / 4 && sizes[2] < sizes[1], "{sizes:?} of {free}");
    engines.into_iter().for_each(|engine| ok(trtllm_close_engine(engine)));
    // What was promised ends with the engine.
    let again = open(&built.path, &all);
    assert!(kv_cache_bytes(again) > free / 2);
    ok(trtllm_close_engine(again));

    let mut some = config(1);
    some.kv_cache_max_bytes = 100_000;
    let engine = open(&built.path, &some);
    assert!((50_000..=100_000).contains(&kv_cache_bytes(engine)), "{}", kv_cache_bytes(engine));
    ok(trtllm_close_engine(engine));
    some.kv_cache_max_bytes = 1;
    let (mut engine, path) = (ptr::null_mut(), text_of(built.path.to_str().unwrap()));
    // SAFETY: path and configuration live through the call.
    assert_eq!(unsafe { trtllm_open_engine(path, &some, &mut engine) }, TRTLLM_STATUS_INVALID_ARGUMENT);
    assert!(last_error().contains("max_bytes"), "{}", last_error());
}
