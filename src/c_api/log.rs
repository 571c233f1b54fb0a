//! What the library logs, brought to a function of the host.
//!
//! The crates log through `tracing`, which does nothing where nobody listens. The listener here is installed when a host first
//! asks for it, in the library's own copy of `tracing`: it is nobody else's, and a host that never asks has none.

use std::ffi::c_void;
use std::fmt::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber, callsite};

use super::entry::{check_not_logging, entry, logging};
use super::logits::UserData;
use super::status::{Failure, TRTLLM_STATUS_UNSUPPORTED, trtllm_status};
use super::strings::trtllm_str;

/// How grave a message of the log is. A level includes those before it.
pub type trtllm_log_level = u32;

/// Something failed.
pub const TRTLLM_LOG_ERROR: trtllm_log_level = 1;
/// Something may go wrong.
pub const TRTLLM_LOG_WARNING: trtllm_log_level = 2;
/// Something happened.
pub const TRTLLM_LOG_INFO: trtllm_log_level = 3;
/// Anything finer.
pub const TRTLLM_LOG_DEBUG: trtllm_log_level = 4;

/// A message of the log. The library fills it; later versions may make it longer.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct trtllm_log_record {
    /// Bytes of this struct.
    pub struct_size: usize,
    /// Who says it: a part of the library, for example `runner::engine`, or `tensorrt_llm`.
    pub target: trtllm_str,
    /// What: a sentence, or of TensorRT-LLM a line with its own marks.
    pub message: trtllm_str,
    /// How grave it is.
    pub level: trtllm_log_level,
}

/// Takes a message of the log, on whichever thread it comes from: one of the host's in a call of this library, or one of the
/// library's; from several at the same time. The record is valid during the call.
///
/// The library may hold locks meanwhile. So every function of this header that returns a status answers
/// `TRTLLM_STATUS_WRONG_THREAD` here, and the callback must not wait for another thread that may be in such a function. It must not
/// unwind: no C++ exception may leave it.
pub type trtllm_log_callback = Option<unsafe extern "C" fn(user_data: *mut c_void, record: *const trtllm_log_record)>;

/// Sends what the library logs, down to `level`, to `callback`, in place of the one before; NULL sends it nowhere, which is so at
/// the start, and `level` does not count then. When this function has returned, the callback before is not running and is never
/// called again.
///
/// What TensorRT-LLM logs comes too, from the first TensorRT engine on that is opened after this call. TensorRT-LLM writes to
/// `std::cout` and `std::cerr`: from then on lines that begin with its mark are taken from there, for as long as there is a callback;
/// everything else that the process writes goes where it went.
///
/// Errors: `TRTLLM_STATUS_INVALID_ARGUMENT` for another level; `TRTLLM_STATUS_UNSUPPORTED` in a Rust program that listens to `tracing`
/// itself; `TRTLLM_STATUS_WRONG_THREAD` in a log callback. Thread-safe. The setting is the process's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_set_log_callback(
    level: trtllm_log_level,
    callback: trtllm_log_callback,
    user_data: *mut c_void,
) -> trtllm_status {
    entry(|| {
        let sink = match callback {
            None => None,
            Some(callback) => {
                let level = match level {
                    TRTLLM_LOG_ERROR => LevelFilter::ERROR,
                    TRTLLM_LOG_WARNING => LevelFilter::WARN,
                    TRTLLM_LOG_INFO => LevelFilter::INFO,
                    TRTLLM_LOG_DEBUG => LevelFilter::TRACE,
                    other => return Err(Failure::argument(format!("{other} is no trtllm_log_level"))),
                };
                install()?;
                let user_data = UserData::new(user_data);
                Some(Arc::new(Sink { level, callback, user_data, running: Mutex::default(), idle: Condvar::new() }))
            }
        };
        let before = std::mem::replace(&mut *current(), sink);
        callsite::rebuild_interest_cache();
        if let Some(before) = before {
            before.wait();
        }
        Ok(())
    })
}

/// Whether somebody listens.
pub(super) fn is_set() -> bool {
    current().is_some()
}

/// The host's function.
struct Sink {
    level: LevelFilter,
    callback: unsafe extern "C" fn(*mut c_void, *const trtllm_log_record),
    user_data: UserData,
    /// Calls that have not returned.
    running: Mutex<usize>,
    idle: Condvar,
}

static CURRENT: Mutex<Option<Arc<Sink>>> = Mutex::new(None);

/// Held for moves only: never while a callback runs, which may be waited for.
fn current() -> MutexGuard<'static, Option<Arc<Sink>>> {
    CURRENT.lock().unwrap_or_else(PoisonError::into_inner)
}

fn install() -> Result<(), Failure> {
    static INSTALLED: OnceLock<bool> = OnceLock::new();
    match INSTALLED.get_or_init(|| tracing::subscriber::set_global_default(Listener).is_ok()) {
        true => Ok(()),
        false => {
            let message = "this program listens to `tracing` itself: what the library logs goes there";
            Err(Failure::new(TRTLLM_STATUS_UNSUPPORTED, message))
        }
    }
}

/// A call that runs, counted before anybody could think that there is none.
struct Running(Arc<Sink>);

impl Running {
    fn begin() -> Option<Self> {
        let current = current();
        let sink = current.as_ref()?.clone();
        *sink.running() += 1;
        Some(Self(sink))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        *self.0.running() -= 1;
        self.0.idle.notify_all();
    }
}

impl Sink {
    fn running(&self) -> MutexGuard<'_, usize> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Until no call runs.
    fn wait(&self) {
        let mut running = self.running();
        while *running > 0 {
            running = self.idle.wait(running).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// What `tracing` knows of: it hands every event to the host's function of the moment.
struct Listener;

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        !metadata.is_span() && current().as_ref().is_some_and(|sink| *metadata.level() <= sink.level)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(current().as_ref().map_or(LevelFilter::OFF, |sink| sink.level))
    }

    fn event(&self, event: &Event<'_>) {
        // What a callback itself leads to is not told: it would never end.
        let Some(running) = check_not_logging().ok().and_then(|()| Running::begin()) else { return };
        let metadata = event.metadata();
        if *metadata.level() > running.0.level {
            return;
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        let record = trtllm_log_record {
            struct_size: size_of::<trtllm_log_record>(),
            target: trtllm_str::of(metadata.target()),
            message: trtllm_str::of(&message.0),
            level: level_of(metadata.level()),
        };
        // SAFETY: the host promises a function of this type that does not unwind; the record is valid during the call.
        logging(|| unsafe { (running.0.callback)(running.0.user_data.get(), &record) });
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

fn level_of(level: &Level) -> trtllm_log_level {
    match *level {
        Level::ERROR => TRTLLM_LOG_ERROR,
        Level::WARN => TRTLLM_LOG_WARNING,
        Level::INFO => TRTLLM_LOG_INFO,
        _ => TRTLLM_LOG_DEBUG,
    }
}

/// An event as a sentence: its message, and its other fields behind it.
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String does not fail.
        let _ = match field.name() {
            "message" => write!(self.0, "{value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        };
    }
}
