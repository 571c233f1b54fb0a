//! Responses: waited for, or brought to a callback.

use std::ffi::c_void;
use std::time::Duration;

use runner::session::{Awaited, OutputCallback, OutputQueue};

use super::engine::{ENGINES, trtllm_engine};
use super::entry::{callback, check_may_wait, entry};
use super::handles::{Kind, Table};
use super::logits::UserData;
use super::owned_response::{OwnedResponse, ResponseList};
use super::pointers::Out;
use super::status::{Failure, TRTLLM_STATUS_SHUT_DOWN, TRTLLM_STATUS_TIMED_OUT, trtllm_status};
use super::strings::{CBool, trtllm_ids, trtllm_str};

/// Why a sequence ended.
pub type trtllm_finish_reason = u32;

/// It has not.
pub const TRTLLM_FINISH_REASON_NONE: trtllm_finish_reason = 0;
/// An end id was generated; it is the last token.
pub const TRTLLM_FINISH_REASON_END_ID: trtllm_finish_reason = 1;
/// A stop word or a stop text was generated.
pub const TRTLLM_FINISH_REASON_STOP_WORDS: trtllm_finish_reason = 2;
/// `max_new_tokens`, or the engine's `max_seq_len`, was reached.
pub const TRTLLM_FINISH_REASON_LENGTH: trtllm_finish_reason = 3;
/// The request's `allotted_time_ms` was over.
pub const TRTLLM_FINISH_REASON_TIMED_OUT: trtllm_finish_reason = 4;
/// The request was cancelled, or the engine was shut down.
pub const TRTLLM_FINISH_REASON_CANCELLED: trtllm_finish_reason = 5;
/// TensorRT-LLM gave a reason that this library does not know.
pub const TRTLLM_FINISH_REASON_UNKNOWN: trtllm_finish_reason = 6;

/// A token and its natural log-probability.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct trtllm_token_log_prob {
    /// The token.
    pub token_id: u32,
    /// Its log-probability under the raw logits.
    pub log_prob: f32,
}

/// News of one sequence of a request. The library fills it, and what it points to belongs to the library. Later versions may
/// make it longer; it is only ever seen through a pointer.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct trtllm_response {
    /// Bytes of this struct.
    pub struct_size: usize,
    /// The request, as `trtllm_enqueue` named it.
    pub request_id: u64,
    /// The request's `user_data`.
    pub user_data: *mut c_void,
    /// Number of the sequence, from 0. Beams come best first. Where `status` is not `TRTLLM_STATUS_OK`: the first that had not
    /// ended.
    pub sequence_index: usize,
    /// The sequence's tokens since its last response; may be none in a final one. An end id is among them.
    pub token_ids: trtllm_ids,
    /// The text that is new and certain: whole characters, without special tokens and without a stop text, unless the request asks
    /// for them. Empty without `return_text`.
    pub text: trtllm_str,
    /// With `return_log_probs`: one for each of `token_ids`, else NULL.
    pub log_probs: *const f32,
    /// With `top_log_probs`: for each of `token_ids` the `num_top_log_probs` most probable tokens, best first; else NULL.
    pub top_log_probs: *const trtllm_token_log_prob,
    /// How many there are for each token.
    pub num_top_log_probs: usize,
    /// With `return_prompt_log_probs`, in the first response: one for each prompt token after the first; else NULL.
    pub prompt_log_probs: *const f32,
    /// How many; also how many rows `prompt_top_log_probs` has.
    pub num_prompt_log_probs: usize,
    /// Where `status` is not `TRTLLM_STATUS_OK`: why, as a sentence.
    pub error: trtllm_str,
    /// When `is_sequence_final`: tokens of the prompt.
    pub num_prompt_tokens: usize,
    /// When `is_sequence_final`: tokens generated.
    pub num_output_tokens: usize,
    /// When `is_sequence_final`: nanoseconds from `trtllm_enqueue` to the first token; 0 where there was none.
    pub time_to_first_token_ns: u64,
    /// When `is_sequence_final`: nanoseconds from the first token to the last.
    pub generation_time_ns: u64,
    /// `TRTLLM_STATUS_OK`, or `TRTLLM_STATUS_REQUEST_FAILED`: the request ended with an error, for all its sequences.
    pub status: trtllm_status,
    /// Why the sequence ended, when `is_sequence_final`.
    pub finish_reason: trtllm_finish_reason,
    /// With `return_log_probs`, when `is_sequence_final`: the sum over the sequence's tokens as they were delivered, up to a stop
    /// text if one ended it; counts where `has_cum_log_prob` is set.
    pub cum_log_prob: f32,
    /// Whether `cum_log_prob` is known.
    pub has_cum_log_prob: CBool,
    /// Whether this is the last response of the sequence. An error is the last of every sequence that had not ended.
    pub is_sequence_final: CBool,
    /// Whether this is the last response of the request.
    pub is_final: CBool,
    /// With `prompt_top_log_probs`, in the first response: `num_prompt_top_log_probs` for each prompt token after the first, best first,
    /// row after row; else NULL.
    pub prompt_top_log_probs: *const trtllm_token_log_prob,
    /// How many there are for each prompt token.
    pub num_prompt_top_log_probs: usize,
    /// With `return_context_logits`, once, in the request's first response: `num_context_logits` rows of `vocab_size` numbers, one for
    /// each prompt token, of what follows it; else NULL.
    pub context_logits: *const f32,
    /// Rows of `context_logits`.
    pub num_context_logits: usize,
    /// With `return_generation_logits`: a row of `vocab_size` numbers for each of `token_ids`, which it was chosen from; else NULL.
    pub generation_logits: *const f32,
    /// Numbers of a row of logits, where there are some.
    pub vocab_size: usize,
    /// When `is_sequence_final`: the stop text that ended the sequence; empty where none did.
    pub stop_reason: trtllm_str,
    /// When `is_sequence_final`: the end id, or the stop word, that ended the sequence; none where neither did.
    pub stop_reason_ids: trtllm_ids,
}

/// Takes the responses of one request, on the engine's response thread, one after the other; all other responses of the
/// engine wait until it returns. The response is valid during the call. After the one with `is_final` there is no further
/// call with this `user_data`.
///
/// It may call every function but those that wait for the engine (`trtllm_await_responses`, `trtllm_await_queue`,
/// `trtllm_shutdown_engine`, `trtllm_close_engine`), which answer `TRTLLM_STATUS_WRONG_THREAD`. With `trtllm_fail` it ends its
/// request: it is called once more, with that error. It must not unwind: no C++ exception may leave it.
pub type trtllm_response_callback =
    Option<unsafe extern "C" fn(user_data: *mut c_void, response: *const trtllm_response)>;

/// Responses that the library made and the host frees, with `trtllm_free_responses`.
pub struct trtllm_responses(());

static RESPONSES: Table<ResponseList, trtllm_responses> = Table::new(Kind::Responses);

/// No limit, for `trtllm_await_responses`.
pub const TRTLLM_WAIT_FOREVER: u64 = 18_446_744_073_709_551_615;

/// Waits until there are responses of requests without a callback and a queue, and writes all that there are to `responses`, as a new list
/// with at least one: those of a sequence in order, a request's final one last. Several threads may wait; each response goes to
/// one of them. Responses that nobody takes are kept; when thousands wait, further ones are merged, those of a sequence into one,
/// so that they need no more memory than their tokens and text.
///
/// Errors: `TRTLLM_STATUS_TIMED_OUT` when none came within `timeout_ms` milliseconds (0 looks and does not wait,
/// `TRTLLM_WAIT_FOREVER` has no limit); `TRTLLM_STATUS_SHUT_DOWN` when the engine was shut down and all have been taken.
/// Thread-safe; not to be called from a callback (`TRTLLM_STATUS_WRONG_THREAD`).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_await_responses(
    engine: *mut trtllm_engine,
    timeout_ms: u64,
    responses: *mut *mut trtllm_responses,
) -> trtllm_status {
    entry(|| {
        let open = ENGINES.get(engine)?;
        // SAFETY: as the caller promises.
        unsafe { await_outputs(open.session.queue(), timeout_ms, responses) }
    })
}

/// Waits for outputs of a queue and writes them to `responses`.
///
/// # Safety
/// As [`Out::new`].
pub(super) unsafe fn await_outputs(
    queue: &OutputQueue,
    timeout_ms: u64,
    responses: *mut *mut trtllm_responses,
) -> Result<(), Failure> {
    // SAFETY: as the caller promises.
    let out = unsafe { Out::new(responses, "responses") }?;
    check_may_wait()?;
    let timeout = (timeout_ms != TRTLLM_WAIT_FOREVER).then(|| Duration::from_millis(timeout_ms));
    match queue.take(timeout) {
        Awaited::Outputs(outputs) => {
            out.write(RESPONSES.insert(ResponseList::new(outputs))?);
            Ok(())
        }
        Awaited::TimedOut => Err(Failure::new(TRTLLM_STATUS_TIMED_OUT, "no response came in time")),
        Awaited::Closed => Err(Failure::new(TRTLLM_STATUS_SHUT_DOWN, "the engine has been shut down")),
    }
}

/// Looks into a list of responses: writes to `array` where pointers to them are, and to `count` how many. All of it is valid
/// until the list is freed. Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_view_responses(
    responses: *const trtllm_responses,
    array: *mut *const *const trtllm_response,
    count: *mut usize,
) -> trtllm_status {
    entry(|| {
        let list = RESPONSES.get(responses)?;
        // SAFETY: as the caller promises, for both.
        let (array, count) = unsafe { (Out::new(array, "array")?, Out::new(count, "count")?) };
        array.write(list.pointers.as_ptr());
        count.write(list.pointers.len());
        Ok(())
    })
}

/// Frees a list of responses. Views of it are no longer valid. Thread-safe.
#[unsafe(no_mangle)]
pub extern "C" fn trtllm_free_responses(responses: *mut trtllm_responses) -> trtllm_status {
    entry(|| RESPONSES.remove(responses).map(drop))
}

/// A callback of C as the session takes it.
pub(crate) fn output_callback(on_response: trtllm_response_callback, user_data: UserData) -> Option<OutputCallback> {
    let on_response = on_response?;
    Some(Box::new(move |output| {
        let owned = OwnedResponse::new(output);
        let response = owned.view();
        // SAFETY: the host promises a function of this type that does not unwind; the response is valid during the call.
        let ((), failure) = callback(|| unsafe { on_response(user_data.get(), &response) });
        failure.map_or(Ok(()), Err)
    }))
}
