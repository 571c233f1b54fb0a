//! Requests, as the table takes them.

use std::ffi::CString;

use super::bindings::{
    trtllm_gpu_ids, trtllm_gpu_lora, trtllm_gpu_request, trtllm_gpu_retention, trtllm_gpu_retention_range,
};
use super::settings::to_c;
use super::{GpuError, bindings};

/// A request in TensorRT-LLM's terms and ranges: `tensorrt_llm::executor::Request`, `SamplingConfig` and `OutputConfig`.
/// Token ids are below 2^31.
#[derive(Debug, Clone, PartialEq)]
pub struct GpuRequest<'a> {
    /// The prompt.
    pub input_token_ids: &'a [u32],
    /// Tokens to generate at most.
    pub max_tokens: usize,
    /// Whether tokens come as they are generated.
    pub streaming: bool,
    /// The one end id.
    pub end_id: Option<u32>,
    /// Token sequences that end the output.
    pub stop_words: &'a [Vec<u32>],
    /// Token sequences that are not generated.
    pub bad_words: &'a [Vec<u32>],
    /// Added to the logits: nothing, or a number for each token of the vocabulary.
    pub embedding_bias: &'a [f32],
    /// From 0 to 1.
    pub priority: f32,
    /// In milliseconds.
    pub allotted_time_ms: Option<u64>,
    /// Cached prefixes are shared below the same salt only.
    pub cache_salt_id: Option<u64>,
    /// `GuideType` and text of a guide.
    pub guide: Option<(i32, Option<&'a str>)>,
    /// An adapter.
    pub lora: Option<GpuLora<'a>>,
    /// How long its blocks are kept.
    pub retention: Option<GpuRetention<'a>>,
    /// Beams.
    pub beam_width: usize,
    /// Sequences.
    pub num_return_sequences: usize,
    /// 0 for all.
    pub top_k: usize,
    /// Above 0.
    pub top_p: f32,
    /// From 0.
    pub min_p: f32,
    /// Above 0.
    pub temperature: f32,
    /// Of the draws.
    pub seed: u64,
    /// Before which the end id is not chosen.
    pub min_tokens: usize,
    /// 1 for none.
    pub repetition_penalty: f32,
    /// 0 for none.
    pub presence_penalty: f32,
    /// 0 for none.
    pub frequency_penalty: f32,
    /// From 1.2.
    pub prompt_ignore_length: usize,
    /// Of a beam search.
    pub length_penalty: f32,
    /// Of a beam search.
    pub early_stopping: i32,
    /// 0 for none.
    pub no_repeat_ngram_size: usize,
    /// Whether log-probabilities are returned.
    pub return_log_probs: bool,
    /// Whether the prompt's logits are returned.
    pub return_context_logits: bool,
    /// Whether times and block counts are returned.
    pub return_perf_metrics: bool,
    /// Whether the logits of generated tokens are returned; with one beam only.
    pub return_generation_logits: bool,
}

/// An adapter: `tensorrt_llm::executor::LoraConfig`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GpuLora<'a> {
    /// Its number; the executor keeps it in a cache under this.
    pub task_id: u64,
    /// bf16, `[rows, columns]`; empty where the executor has it.
    pub weights: &'a [u16],
    /// `[rows, config_columns]`.
    pub config: &'a [i32],
    /// Module-layers.
    pub rows: usize,
    /// Numbers of the longest row.
    pub columns: usize,
    /// Numbers that describe a row.
    pub config_columns: usize,
}

/// `tensorrt_llm::executor::KvCacheRetentionConfig`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GpuRetention<'a> {
    /// Of the prompt.
    pub ranges: &'a [GpuRetentionRange],
    /// Of generated tokens, from 0 to 100.
    pub decode_priority: u8,
    /// How long that priority holds, in milliseconds; 0 for without limit.
    pub decode_duration_ms: u64,
}

/// How long blocks of some prompt tokens are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuRetentionRange {
    /// The first token.
    pub token_start: usize,
    /// The token after the last; `None` for the prompt's end.
    pub token_end: Option<usize>,
    /// From 0, to go first, to 100.
    pub priority: u8,
    /// How long that priority holds, in milliseconds; 0 for without limit.
    pub duration_ms: u64,
}

/// The table's request, and what it points to beside the [`GpuRequest`].
pub(super) struct RawRequest<'a> {
    raw: trtllm_gpu_request,
    stop_words: Vec<trtllm_gpu_ids>,
    bad_words: Vec<trtllm_gpu_ids>,
    guide: Option<CString>,
    lora: Option<trtllm_gpu_lora>,
    ranges: Vec<trtllm_gpu_retention_range>,
    retention: Option<trtllm_gpu_retention>,
    _request: std::marker::PhantomData<&'a ()>,
}

impl<'a> RawRequest<'a> {
    pub(super) fn new(request: &GpuRequest<'a>) -> Result<Self, GpuError> {
        let words = |words: &[Vec<u32>]| words.iter().map(|word| ids(word)).collect::<Vec<_>>();
        let guide = request.guide.and_then(|(_, text)| text).map(|text| to_c(text, "the guide")).transpose()?;
        let range = |range: &GpuRetentionRange| trtllm_gpu_retention_range {
            token_start: int(range.token_start),
            token_end: range.token_end.map_or(-1, int),
            priority: range.priority.into(),
            duration_ms: range.duration_ms,
        };
        let raw = trtllm_gpu_request {
            input_token_ids: ids(request.input_token_ids),
            max_tokens: int(request.max_tokens),
            streaming: request.streaming,
            end_id: request.end_id.map_or(-1, |id| id as i32),
            num_stop_words: request.stop_words.len(),
            num_bad_words: request.bad_words.len(),
            embedding_bias: non_empty(request.embedding_bias),
            embedding_bias_len: request.embedding_bias.len(),
            priority: request.priority,
            allotted_time_ms: request.allotted_time_ms.unwrap_or(0),
            has_cache_salt_id: request.cache_salt_id.is_some(),
            cache_salt_id: request.cache_salt_id.unwrap_or(0),
            guide_type: request.guide.map_or(-1, |(kind, _)| kind),
            beam_width: int(request.beam_width),
            num_return_sequences: int(request.num_return_sequences),
            top_k: int(request.top_k),
            top_p: request.top_p,
            min_p: request.min_p,
            temperature: request.temperature,
            seed: request.seed,
            min_tokens: int(request.min_tokens),
            repetition_penalty: request.repetition_penalty,
            presence_penalty: request.presence_penalty,
            frequency_penalty: request.frequency_penalty,
            prompt_ignore_length: int(request.prompt_ignore_length),
            length_penalty: request.length_penalty,
            early_stopping: request.early_stopping,
            no_repeat_ngram_size: int(request.no_repeat_ngram_size),
            return_log_probs: request.return_log_probs,
            return_context_logits: request.return_context_logits,
            return_perf_metrics: request.return_perf_metrics,
            return_generation_logits: request.return_generation_logits,
            ..trtllm_gpu_request::default()
        };
        Ok(Self {
            raw,
            stop_words: words(request.stop_words),
            bad_words: words(request.bad_words),
            guide,
            lora: request.lora.map(lora),
            ranges: request.retention.map_or_else(Vec::new, |keep| keep.ranges.iter().map(range).collect()),
            retention: request.retention.map(|keep| trtllm_gpu_retention {
                ranges: std::ptr::null(),
                num_ranges: keep.ranges.len(),
                decode_priority: keep.decode_priority.into(),
                decode_duration_ms: keep.decode_duration_ms,
            }),
            _request: std::marker::PhantomData,
        })
    }

    /// The table's request, valid as long as `self` is borrowed.
    pub(super) fn get(&mut self) -> &trtllm_gpu_request {
        self.raw.stop_words = self.stop_words.as_ptr();
        self.raw.bad_words = self.bad_words.as_ptr();
        self.raw.guide = self.guide.as_ref().map_or(std::ptr::null(), |guide| guide.as_ptr());
        self.raw.lora = self.lora.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        if let Some(retention) = &mut self.retention {
            retention.ranges = self.ranges.as_ptr();
        }
        self.raw.retention = self.retention.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        &self.raw
    }
}

fn lora(lora: GpuLora<'_>) -> trtllm_gpu_lora {
    // C++ reads `rows` times the columns: what the slices do not hold is not offered.
    let is_whole = Some(lora.weights.len()) == lora.rows.checked_mul(lora.columns)
        && Some(lora.config.len()) == lora.rows.checked_mul(lora.config_columns)
        && !lora.weights.is_empty();
    bindings::trtllm_gpu_lora {
        task_id: lora.task_id,
        weights: if is_whole { lora.weights.as_ptr() } else { std::ptr::null() },
        columns: lora.columns,
        config: lora.config.as_ptr(),
        config_columns: lora.config_columns,
        rows: lora.rows,
    }
}

/// Token ids as C++ has them: the same bits.
fn ids(ids: &[u32]) -> trtllm_gpu_ids {
    trtllm_gpu_ids { data: ids.as_ptr().cast(), len: ids.len() }
}

fn int(value: usize) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}

fn non_empty<T>(slice: &[T]) -> *const T {
    if slice.is_empty() { std::ptr::null() } else { slice.as_ptr() }
}
