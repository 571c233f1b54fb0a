//! What the library logs, at the host. The setting is the process's, so one test uses it at a time.

use std::ffi::c_void;
use std::path::Path;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use trtllm::c_api::engine::trtllm_close_engine;
use trtllm::c_api::log::{
    TRTLLM_LOG_ERROR, TRTLLM_LOG_INFO, trtllm_log_callback, trtllm_log_level, trtllm_log_record,
    trtllm_set_log_callback,
};
use trtllm::c_api::status::{TRTLLM_STATUS_INVALID_ARGUMENT, TRTLLM_STATUS_WRONG_THREAD, trtllm_status};

use crate::support::{Host, copied, last_error, ok, open};

fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct Seen {
    /// What is told of anything else comes from other tests of this process.
    about: String,
    records: Mutex<Vec<(trtllm_log_level, String, String)>>,
    /// What functions of the library answer in the callback.
    inside: Mutex<Vec<trtllm_status>>,
    slow: AtomicBool,
    running: AtomicBool,
}

unsafe extern "C" fn see(user_data: *mut c_void, record: *const trtllm_log_record) {
    // SAFETY: the test keeps it until the callback was cleared; the record is valid during the call.
    let (seen, record) = unsafe { (&*user_data.cast::<Seen>(), &*record) };
    if !copied(record.message).contains(&seen.about) {
        return;
    }
    seen.running.store(true, Ordering::SeqCst);
    assert_eq!(record.struct_size, size_of::<trtllm_log_record>());
    if seen.slow.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(100));
    }
    let answers = [clear(), trtllm::c_api::strings::trtllm_free_string(ptr::null_mut())];
    seen.inside.lock().unwrap().extend(answers);
    seen.records.lock().unwrap().push((record.level, copied(record.target), copied(record.message)));
    seen.running.store(false, Ordering::SeqCst);
}

fn set(level: trtllm_log_level, callback: trtllm_log_callback, seen: &Seen) -> trtllm_status {
    // SAFETY: the caller clears the callback before `seen` goes.
    unsafe { trtllm_set_log_callback(level, callback, ptr::from_ref(seen).cast_mut().cast()) }
}

fn clear() -> trtllm_status {
    // SAFETY: there is no callback.
    unsafe { trtllm_set_log_callback(0, None, ptr::null_mut()) }
}

/// Opens an engine once more, and closes it.
fn open_again(built: &Path) {
    ok(trtllm_close_engine(open(built, ptr::null())));
}

fn of(host: &Host) -> Seen {
    Seen { about: host.built.path.display().to_string(), ..Seen::default() }
}

#[test]
fn a_host_gets_what_the_library_logs_down_to_its_level() {
    let _alone = alone();
    let host = Host::parity("mistral-gqa");
    let messages = |level| {
        let seen = of(&host);
        ok(set(level, Some(see), &seen));
        open_again(&host.built.path);
        ok(clear());
        let inside = seen.inside.into_inner().unwrap();
        assert!(inside.iter().all(|&status| status == TRTLLM_STATUS_WRONG_THREAD), "{inside:?}");
        seen.records.into_inner().unwrap()
    };
    let opened = messages(TRTLLM_LOG_INFO);
    let [(level, target, message)] = &opened[..] else { panic!("{opened:?}") };
    assert_eq!((*level, target.as_str()), (TRTLLM_LOG_INFO, "runner::engine"));
    assert!(message.starts_with("opened `") && message.contains(", a KV cache of"), "{message}");
    assert_eq!(messages(TRTLLM_LOG_ERROR), []);
    assert_eq!(messages(TRTLLM_LOG_INFO), opened);
}

#[test]
fn no_callback_runs_once_it_was_cleared() {
    let _alone = alone();
    let host = Host::parity("mistral-gqa");
    let (seen, path) = (of(&host), &host.built.path);
    seen.slow.store(true, Ordering::SeqCst);
    for round in 1..=5 {
        ok(set(TRTLLM_LOG_INFO, Some(see), &seen));
        std::thread::scope(|scope| {
            scope.spawn(|| open_again(path));
            while !seen.running.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            ok(clear());
            assert!(!seen.running.load(Ordering::SeqCst), "the callback was waited for");
            open_again(path);
            assert_eq!(seen.records.lock().unwrap().len(), round, "nothing is told any more");
        });
    }
}

#[test]
fn a_level_that_is_none_changes_nothing() {
    let _alone = alone();
    let host = Host::parity("mistral-gqa");
    let seen = of(&host);
    ok(set(TRTLLM_LOG_INFO, Some(see), &seen));
    for level in [0, 5, u32::MAX] {
        assert_eq!(set(level, Some(see), &Seen::default()), TRTLLM_STATUS_INVALID_ARGUMENT);
        assert!(last_error().contains("trtllm_log_level"), "{}", last_error());
    }
    open_again(&host.built.path);
    ok(clear());
    ok(clear());
    assert_eq!(seen.records.lock().unwrap().len(), 1);
}
