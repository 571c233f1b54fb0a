//! Response queues: those who share an engine do not take each other's responses.

use std::io;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::sync::Arc;

use runner::session::OutputQueue;

use super::engine::{ENGINES, trtllm_engine};
use super::entry::entry;
use super::handles::{Kind, Table};
use super::pointers::Out;
use super::response::{await_outputs, trtllm_responses};
use super::status::{Failure, TRTLLM_STATUS_SYSTEM, trtllm_status};

/// A queue for the responses of some of an engine's requests. Made by `trtllm_new_queue`, ended by `trtllm_free_queue`.
pub struct trtllm_queue(());

static QUEUES: Table<Queue, trtllm_queue> = Table::new(Kind::Queue);

struct Queue {
    /// The handle of its engine, to compare; handles never come back.
    engine: usize,
    outputs: Arc<OutputQueue>,
}

/// The outputs of a request's queue; `None` where the request names none.
pub(super) fn outputs_of(
    queue: *mut trtllm_queue,
    engine: *const trtllm_engine,
) -> Result<Option<Arc<OutputQueue>>, Failure> {
    if queue.is_null() {
        return Ok(None);
    }
    let queue = QUEUES.get(queue)?;
    if queue.engine != engine.addr() {
        return Err(Failure::argument("queue is one of another engine"));
    }
    Ok(Some(queue.outputs.clone()))
}

/// Makes a queue and writes it to `queue`. The responses of requests whose `queue` it is go there, and to nobody else. It lives
/// until it is freed: also when its engine is closed, after which it gives the responses that it still has. Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_new_queue(engine: *mut trtllm_engine, queue: *mut *mut trtllm_queue) -> trtllm_status {
    entry(|| {
        let open = ENGINES.get(engine)?;
        // SAFETY: as the caller promises.
        let out = unsafe { Out::new(queue, "queue") }?;
        out.write(QUEUES.insert(Queue { engine: engine.addr(), outputs: open.session.new_queue() })?);
        Ok(())
    })
}

/// Waits for responses of requests whose `queue` this is; otherwise as `trtllm_await_responses`, which never gets them.
/// `TRTLLM_STATUS_SHUT_DOWN` also when the queue is freed meanwhile. Thread-safe; not to be called from a callback
/// (`TRTLLM_STATUS_WRONG_THREAD`).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_await_queue(
    queue: *mut trtllm_queue,
    timeout_ms: u64,
    responses: *mut *mut trtllm_responses,
) -> trtllm_status {
    entry(|| {
        let queue = QUEUES.get(queue)?;
        // SAFETY: as the caller promises.
        unsafe { await_outputs(&queue.outputs, timeout_ms, responses) }
    })
}

/// Frees a queue. Its responses are lost, threads that wait for some get `TRTLLM_STATUS_SHUT_DOWN`, and its requests that have not
/// ended are cancelled when their next response comes: `trtllm_cancel` ends them sooner. Thread-safe; also in a callback.
#[unsafe(no_mangle)]
pub extern "C" fn trtllm_free_queue(queue: *mut trtllm_queue) -> trtllm_status {
    entry(|| {
        QUEUES.remove(queue)?.outputs.abandon();
        Ok(())
    })
}

/// Writes a file descriptor to `fd` that is readable while responses wait that `trtllm_await_responses` would give, for hosts that
/// wait with `poll` or `epoll`. When it is, await with a `timeout_ms` of 0, which takes all that there are.
///
/// When the engine was shut down or closed it is readable for good: await then gives the last responses, and then
/// `TRTLLM_STATUS_SHUT_DOWN` (of an engine that was closed `TRTLLM_STATUS_INVALID_HANDLE`), and the host is done with it.
///
/// The descriptor is the host's, to be closed with `close` at any time, before or after the engine. It must not be read or
/// written. Each call makes another one, which tells the same. It is closed by `exec`.
///
/// Errors: `TRTLLM_STATUS_SYSTEM` when the process has too many descriptors. Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_response_fd(engine: *mut trtllm_engine, fd: *mut i32) -> trtllm_status {
    entry(|| {
        let open = ENGINES.get(engine)?;
        // SAFETY: as the caller promises.
        let out = unsafe { Out::new(fd, "fd") }?;
        out.write(given(open.session.queue().event_fd())?);
        Ok(())
    })
}

/// As `trtllm_response_fd`, for the responses of a queue. It is readable for good also when the queue is freed. Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_queue_fd(queue: *mut trtllm_queue, fd: *mut i32) -> trtllm_status {
    entry(|| {
        let queue = QUEUES.get(queue)?;
        // SAFETY: as the caller promises.
        let out = unsafe { Out::new(fd, "fd") }?;
        out.write(given(queue.outputs.event_fd())?);
        Ok(())
    })
}

/// A descriptor that is the host's from now on.
fn given(descriptor: io::Result<OwnedFd>) -> Result<i32, Failure> {
    let refused = |error: io::Error| Failure::new(TRTLLM_STATUS_SYSTEM, format!("cannot make a descriptor: {error}"));
    descriptor.map(IntoRawFd::into_raw_fd).map_err(refused)
}
