//! Responses, as the table gives them.

use super::bindings::{
    TRTLLM_GPU_LOGITS_BF16, TRTLLM_GPU_LOGITS_F16, trtllm_gpu_ids, trtllm_gpu_logits, trtllm_gpu_output,
    trtllm_gpu_response, trtllm_gpu_responses,
};
use super::library::{Table, to_text};

/// A batch of responses, and what they point to.
#[derive(Debug)]
pub struct Responses {
    table: Table,
    raw: *mut trtllm_gpu_responses,
}

// SAFETY: the batch belongs to nobody else, and its functions may be called on any thread.
unsafe impl Send for Responses {}
// SAFETY: as for `Send`; a batch is only read until it is dropped.
unsafe impl Sync for Responses {}

/// One response.
#[derive(Debug, Clone, PartialEq)]
pub struct GpuResponse<'a> {
    /// The request.
    pub request_id: u64,
    /// What came, or why the request failed.
    pub result: Result<GpuResult<'a>, GpuFailure>,
}

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuFailure {
    /// As TensorRT-LLM says it, or why a response of it could not be taken over.
    pub message: String,
    /// Whether TensorRT-LLM is done with the request.
    pub is_final: bool,
}

/// Rows of logits in TensorRT-LLM's own memory, one after the other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GpuLogits<'a> {
    /// `[rows, columns]`.
    pub values: LogitValues<'a>,
    /// Numbers of a row, above 0.
    pub columns: usize,
}

/// Logits as they are written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LogitValues<'a> {
    /// As fp32.
    F32(&'a [f32]),
    /// As the bits of fp16.
    F16(&'a [u16]),
    /// As the bits of bf16.
    Bf16(&'a [u16]),
}

/// New tokens of one sequence, or of all beams.
#[derive(Debug, Clone, PartialEq)]
pub struct GpuResult<'a> {
    /// Which of the request's sequences.
    pub sequence_index: usize,
    /// Whether the sequence has ended.
    pub is_sequence_final: bool,
    /// Whether the request has ended.
    pub is_final: bool,
    /// One, or one for each beam.
    pub outputs: Vec<GpuOutput<'a>>,
    /// Of what follows each token of the prompt that was computed.
    pub context_logits: Option<GpuLogits<'a>>,
    /// With the last response, where asked for.
    pub perf_metrics: Option<GpuPerfMetrics>,
}

/// The output of one sequence or beam.
#[derive(Debug, Clone, PartialEq)]
pub struct GpuOutput<'a> {
    /// New tokens; beams may be filled up with -1.
    pub token_ids: &'a [i32],
    /// Of every token of the sequence so far.
    pub log_probs: Option<&'a [f32]>,
    /// Their sum.
    pub cum_log_prob: Option<f32>,
    /// As `tensorrt_llm::executor::FinishReason`, or a number that it does not have.
    pub finish_reason: i32,
    /// First those of `token_ids`.
    pub generation_logits: Option<GpuLogits<'a>>,
}

/// When things happened to a request, in nanoseconds since its arrival, and what its KV cache took.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GpuPerfMetrics {
    /// First scheduled.
    pub first_scheduled_ns: u64,
    /// First token.
    pub first_token_ns: u64,
    /// Last token.
    pub last_token_ns: u64,
    /// First iteration.
    pub first_iter: u64,
    /// Last iteration.
    pub last_iter: u64,
    /// Blocks in all.
    pub total_blocks: u64,
    /// Blocks that were computed.
    pub new_blocks: u64,
    /// Blocks that were there already.
    pub reused_blocks: u64,
    /// Blocks that were looked for and not found.
    pub missed_blocks: u64,
    /// Tokens that speculative decoding drafted.
    pub draft_tokens: u64,
    /// Of those, accepted.
    pub accepted_draft_tokens: u64,
}

impl Responses {
    /// Takes a batch over; `raw` is of `table`'s `await`, not null, and nobody else's.
    pub(super) fn new(table: Table, raw: *mut trtllm_gpu_responses) -> Self {
        Self { table, raw }
    }

    /// The responses, in the order of their coming.
    pub fn iter(&self) -> impl Iterator<Item = GpuResponse<'_>> {
        self.all().iter().map(response)
    }

    /// The response at a place in that order.
    pub fn get(&self, place: usize) -> Option<GpuResponse<'_>> {
        self.all().get(place).map(response)
    }

    fn all(&self) -> &[trtllm_gpu_response] {
        let mut count = 0;
        let data = match self.table.get().responses_data {
            // SAFETY: the batch is valid until it is dropped; the function writes one number.
            Some(data) => unsafe { data(self.raw, &raw mut count) },
            None => std::ptr::null(),
        };
        // SAFETY: the table gives an array of `count` responses that lives as long as the batch.
        unsafe { slice(data, count) }
    }
}

impl Drop for Responses {
    fn drop(&mut self) {
        if let Some(free) = self.table.get().free_responses {
            // SAFETY: the batch is this one's, and is used no more.
            unsafe { free(self.raw) };
        }
    }
}

fn response(raw: &trtllm_gpu_response) -> GpuResponse<'_> {
    let request_id = raw.request_id;
    if let Some(message) = to_text(raw.error) {
        return GpuResponse { request_id, result: Err(GpuFailure { message, is_final: raw.is_final }) };
    }
    // SAFETY: `trtllm_gpu.h`: an array of this length, alive as long as the batch, which `raw` borrows.
    let outputs = unsafe { slice(raw.outputs, raw.num_outputs) };
    // SAFETY: as above: null, or one struct that lives as long as the batch.
    let metrics = unsafe { raw.perf_metrics.as_ref() };
    let count = |value: i32| u64::try_from(value).unwrap_or(0);
    let result = GpuResult {
        sequence_index: usize::try_from(raw.sequence_index).unwrap_or(0),
        is_sequence_final: raw.is_sequence_final,
        is_final: raw.is_final,
        outputs: outputs.iter().map(output).collect(),
        context_logits: logits(&raw.context_logits),
        perf_metrics: metrics.map(|raw| GpuPerfMetrics {
            first_scheduled_ns: raw.first_scheduled_ns,
            first_token_ns: raw.first_token_ns,
            last_token_ns: raw.last_token_ns,
            first_iter: raw.first_iter,
            last_iter: raw.last_iter,
            total_blocks: count(raw.num_total_allocated_blocks),
            new_blocks: count(raw.num_new_allocated_blocks),
            reused_blocks: count(raw.num_reused_blocks),
            missed_blocks: count(raw.num_missed_blocks),
            draft_tokens: count(raw.num_draft_tokens),
            accepted_draft_tokens: count(raw.num_accepted_draft_tokens),
        }),
    };
    GpuResponse { request_id, result: Ok(result) }
}

fn output(raw: &trtllm_gpu_output) -> GpuOutput<'_> {
    let trtllm_gpu_ids { data, len } = raw.token_ids;
    // SAFETY: `trtllm_gpu.h`: arrays of these lengths, alive as long as the batch, which `raw` borrows.
    let (token_ids, log_probs) = unsafe { (slice(data, len), slice(raw.log_probs, raw.num_log_probs)) };
    GpuOutput {
        token_ids,
        log_probs: (!raw.log_probs.is_null()).then_some(log_probs),
        cum_log_prob: raw.has_cum_log_prob.then_some(raw.cum_log_prob),
        finish_reason: raw.finish_reason,
        generation_logits: logits(&raw.generation_logits),
    }
}

fn logits(raw: &trtllm_gpu_logits) -> Option<GpuLogits<'_>> {
    if raw.data.is_null() || raw.columns == 0 {
        return None;
    }
    let len = raw.rows.saturating_mul(raw.columns);
    // SAFETY: `trtllm_gpu.h`: an array of this length and type, alive as long as the batch, which `raw` borrows.
    let values = unsafe {
        match u32::try_from(raw.dtype) {
            Ok(TRTLLM_GPU_LOGITS_F16) => LogitValues::F16(slice(raw.data.cast(), len)),
            Ok(TRTLLM_GPU_LOGITS_BF16) => LogitValues::Bf16(slice(raw.data.cast(), len)),
            _ => LogitValues::F32(slice(raw.data.cast(), len)),
        }
    };
    Some(GpuLogits { values, columns: raw.columns })
}

/// An array of C++'s; empty where there is none.
///
/// # Safety
/// `data` is null, or has `len` elements that outlive `'a`.
unsafe fn slice<'a, T>(data: *const T, len: usize) -> &'a [T] {
    if data.is_null() || len == 0 {
        return &[];
    }
    // SAFETY: as the caller promises.
    unsafe { std::slice::from_raw_parts(data, len) }
}
