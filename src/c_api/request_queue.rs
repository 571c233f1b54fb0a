//! Requests go in, and are cancelled.

use runner::executor::RequestId;

use super::engine::{ENGINES, trtllm_engine};
use super::entry::entry;
use super::options;
use super::pointers::Out;
use super::queue::outputs_of;
use super::request::trtllm_request;
use super::status::trtllm_status;
use super::submission::{refused, submission};

/// Queues a request and writes its id to `request_id`. It ends with exactly one final response. Its callback may run before
/// this function returns.
///
/// Errors, after which no response comes and no callback runs: `TRTLLM_STATUS_INVALID_ARGUMENT` for what is wrong or exceeds
/// a limit of the engine, `TRTLLM_STATUS_UNSUPPORTED`, `TRTLLM_STATUS_QUEUE_FULL`, `TRTLLM_STATUS_SHUT_DOWN`,
/// `TRTLLM_STATUS_INVALID_FILES` for an adapter, `TRTLLM_STATUS_SYSTEM` when the executor has failed. Thread-safe;
/// also in a response callback.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_enqueue(
    engine: *mut trtllm_engine,
    request: *const trtllm_request,
    request_id: *mut u64,
) -> trtllm_status {
    entry(|| {
        let open = ENGINES.get(engine)?;
        // SAFETY: as the caller promises, for the request, what it points to, and the place of the id.
        let (out, submission) = unsafe {
            let out = Out::new(request_id, "request_id")?;
            let request = options::read(request, "request")?;
            let queue = outputs_of(request.queue, engine)?;
            (out, submission(&open, &request, queue)?)
        };
        let id = open.session.submit(submission).map_err(|error| refused(&error))?;
        out.write(id.0);
        Ok(())
    })
}

/// Ends a request early. It still gets its final response, with `TRTLLM_FINISH_REASON_CANCELLED` unless it was over. An
/// unknown id is ignored. Thread-safe; also in a response callback.
#[unsafe(no_mangle)]
pub extern "C" fn trtllm_cancel(engine: *mut trtllm_engine, request_id: u64) -> trtllm_status {
    entry(|| {
        ENGINES.get(engine)?.session.cancel(RequestId(request_id));
        Ok(())
    })
}
