//! How a callback says why it fails.

use super::entry::{entry, fail};
use super::pointers::text;
use super::status::trtllm_status;
use super::strings::trtllm_str;

/// In a response callback or a logits post-processor: says why it fails. The message becomes the error of the request, which ends
/// with it (`TRTLLM_STATUS_REQUEST_FAILED`), whatever the callback returns. The last message counts. A response callback is
/// called once more, with that error; in the call for a final response a message changes nothing.
///
/// Errors: `TRTLLM_STATUS_WRONG_THREAD` outside of those, `TRTLLM_STATUS_INVALID_ARGUMENT`. Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_fail(message: trtllm_str) -> trtllm_status {
    entry(|| {
        // SAFETY: as the caller promises.
        fail(unsafe { text(message, "message") }?)
    })
}
