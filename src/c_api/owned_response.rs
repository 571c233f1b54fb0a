//! A response of the session as C sees it: a struct of views, and what they are of.

use std::ffi::c_void;
use std::ptr;
use std::time::Duration;

use runner::executor::{FinishReason, Logits, Response, TokenLogProb, TokenResult};
use runner::session::{Output, SequenceStats, StopReason};

use super::response::{
    TRTLLM_FINISH_REASON_CANCELLED, TRTLLM_FINISH_REASON_END_ID, TRTLLM_FINISH_REASON_LENGTH,
    TRTLLM_FINISH_REASON_NONE, TRTLLM_FINISH_REASON_STOP_WORDS, TRTLLM_FINISH_REASON_TIMED_OUT,
    TRTLLM_FINISH_REASON_UNKNOWN, trtllm_finish_reason, trtllm_response, trtllm_token_log_prob,
};
use super::status::{TRTLLM_STATUS_OK, TRTLLM_STATUS_REQUEST_FAILED};
use super::strings::{CBool, trtllm_ids, trtllm_str};

/// What the pointers of a `trtllm_response` point to. Moving it moves none of that.
pub(super) struct OwnedResponse {
    output: Output,
    /// Row after row.
    top_log_probs: Vec<trtllm_token_log_prob>,
    /// The same, of the prompt, and how many rows.
    prompt_top_log_probs: (Vec<trtllm_token_log_prob>, usize),
}

impl OwnedResponse {
    pub(super) fn new(mut output: Output) -> Self {
        let flat = |rows: Vec<Vec<TokenLogProb>>| {
            let flat = |TokenLogProb { token_id, log_prob }| trtllm_token_log_prob { token_id, log_prob };
            rows.into_iter().flatten().map(flat).collect()
        };
        let (mut top_log_probs, mut prompt_top_log_probs) = (Vec::new(), (Vec::new(), 0));
        if let Response::Result(result) = &mut output.response {
            top_log_probs = flat(result.top_log_probs.take().unwrap_or_default());
            let of_prompt = result.prompt_top_log_probs.take().unwrap_or_default();
            let rows = of_prompt.len();
            prompt_top_log_probs = (flat(of_prompt), rows);
        }
        Self { output, top_log_probs, prompt_top_log_probs }
    }

    pub(super) fn view(&self) -> trtllm_response {
        let stats = self.output.stats;
        let nanoseconds = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let first = stats.and_then(|stats| stats.time_to_first_token);
        let count = |of: fn(SequenceStats) -> usize| stats.map_or(0, of);
        let response = trtllm_response {
            struct_size: size_of::<trtllm_response>(),
            request_id: self.output.response.request_id().0,
            user_data: self.output.tag as usize as *mut c_void,
            sequence_index: self.output.sequence_index,
            token_ids: trtllm_ids::EMPTY,
            text: trtllm_str::of(&self.output.text),
            log_probs: ptr::null(),
            top_log_probs: ptr::null(),
            num_top_log_probs: 0,
            prompt_log_probs: ptr::null(),
            num_prompt_log_probs: 0,
            error: trtllm_str::EMPTY,
            num_prompt_tokens: count(|stats| stats.prompt_tokens),
            num_output_tokens: count(|stats| stats.output_tokens),
            time_to_first_token_ns: first.map_or(0, nanoseconds),
            generation_time_ns: stats.map_or(0, |stats| nanoseconds(stats.generation_time)),
            status: TRTLLM_STATUS_OK,
            finish_reason: TRTLLM_FINISH_REASON_NONE,
            cum_log_prob: 0.0,
            has_cum_log_prob: CBool::FALSE,
            is_sequence_final: CBool::FALSE,
            is_final: self.output.response.is_final().into(),
            prompt_top_log_probs: ptr::null(),
            num_prompt_top_log_probs: 0,
            context_logits: ptr::null(),
            num_context_logits: 0,
            generation_logits: ptr::null(),
            vocab_size: 0,
            stop_reason: match self.output.stop_reason.as_deref() {
                Some(StopReason::Text(text)) => trtllm_str::of(text),
                _ => trtllm_str::EMPTY,
            },
            stop_reason_ids: match self.output.stop_reason.as_deref() {
                Some(StopReason::Tokens(ids)) => trtllm_ids::of(ids),
                _ => trtllm_ids::EMPTY,
            },
        };
        match &self.output.response {
            Response::Error { message, .. } => trtllm_response {
                status: TRTLLM_STATUS_REQUEST_FAILED,
                error: trtllm_str::of(message),
                is_sequence_final: CBool::TRUE,
                ..response
            },
            Response::Result(result) => self.with_result(result, response),
        }
    }

    fn with_result(&self, result: &TokenResult, response: trtllm_response) -> trtllm_response {
        let numbers = |list: &Option<Vec<f32>>| list.as_ref().map_or(ptr::null(), |list| list.as_ptr());
        let tokens = result.output_token_ids.len();
        let (prompt_top, rows) = &self.prompt_top_log_probs;
        let of_prompt = result.prompt_log_probs.as_ref().map_or(*rows, Vec::len);
        let logits = |logits: &Option<Logits>| match logits {
            Some(logits) if logits.rows() > 0 => (logits.values.as_ptr(), logits.rows(), logits.vocab_size),
            _ => (ptr::null(), 0, 0),
        };
        let (context_logits, num_context_logits, context_vocab) = logits(&result.context_logits);
        let (generation_logits, _, generation_vocab) = logits(&result.generation_logits);
        trtllm_response {
            sequence_index: result.sequence_index,
            token_ids: trtllm_ids::of(&result.output_token_ids),
            log_probs: numbers(&result.log_probs),
            top_log_probs: if self.top_log_probs.is_empty() { ptr::null() } else { self.top_log_probs.as_ptr() },
            num_top_log_probs: self.top_log_probs.len().checked_div(tokens).unwrap_or(0),
            prompt_log_probs: numbers(&result.prompt_log_probs),
            num_prompt_log_probs: of_prompt,
            prompt_top_log_probs: if prompt_top.is_empty() { ptr::null() } else { prompt_top.as_ptr() },
            num_prompt_top_log_probs: prompt_top.len().checked_div(*rows).unwrap_or(0),
            context_logits,
            num_context_logits,
            generation_logits,
            vocab_size: context_vocab.max(generation_vocab),
            finish_reason: result.finish_reason.map_or(TRTLLM_FINISH_REASON_NONE, finish_reason),
            cum_log_prob: result.cum_log_prob.unwrap_or(0.0),
            has_cum_log_prob: result.cum_log_prob.is_some().into(),
            is_sequence_final: result.is_sequence_final.into(),
            ..response
        }
    }
}

fn finish_reason(reason: FinishReason) -> trtllm_finish_reason {
    match reason {
        FinishReason::EndId => TRTLLM_FINISH_REASON_END_ID,
        FinishReason::StopWords => TRTLLM_FINISH_REASON_STOP_WORDS,
        FinishReason::Length => TRTLLM_FINISH_REASON_LENGTH,
        FinishReason::TimedOut => TRTLLM_FINISH_REASON_TIMED_OUT,
        FinishReason::Cancelled => TRTLLM_FINISH_REASON_CANCELLED,
        FinishReason::Unknown(_) => TRTLLM_FINISH_REASON_UNKNOWN,
    }
}

/// Responses, and the views of them that C sees.
pub(super) struct ResponseList {
    pub(super) pointers: Vec<*const trtllm_response>,
    /// What `pointers` point to.
    _views: Vec<trtllm_response>,
    /// What the views point to.
    _owned: Vec<OwnedResponse>,
}

// SAFETY: nothing changes after `new`; the pointers are into the list's own vectors, or the host's.
unsafe impl Send for ResponseList {}
// SAFETY: as above.
unsafe impl Sync for ResponseList {}

impl ResponseList {
    pub(super) fn new(outputs: Vec<Output>) -> Self {
        let owned: Vec<_> = outputs.into_iter().map(OwnedResponse::new).collect();
        let views: Vec<_> = owned.iter().map(OwnedResponse::view).collect();
        let pointers = views.iter().map(ptr::from_ref).collect();
        Self { pointers, _views: views, _owned: owned }
    }
}
