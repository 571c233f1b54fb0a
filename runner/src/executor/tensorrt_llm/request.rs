//! A request in TensorRT-LLM's terms, or what it does not know.

use std::time::Duration;

use engine_format::error::counted;
use trtllm_sys::gpu::{GpuLora, GpuRequest, GpuRetention, GpuRetentionRange};

use crate::executor::{EarlyStopping, EnqueueError, GuidedDecodingParams, RequestSpec, TokenId};

use super::capabilities::Capabilities;
use super::{DecodingMode, NAME};

/// `TOP_K_MAX` of TensorRT-LLM's `samplingTopKKernels.h`: a larger k is not sampled by top-k at all.
const MAX_TOP_K: usize = 1024;

/// What a [`GpuRequest`] points to beside the specification.
pub(super) struct Prepared {
    guide: Option<GuidedDecodingParams>,
    stop_words: Vec<Vec<TokenId>>,
    embedding_bias: Vec<f32>,
    lora_config: Vec<i32>,
    retention: Vec<GpuRetentionRange>,
}

/// Checks that TensorRT-LLM does what is asked, and prepares it.
pub(super) fn prepare(spec: &RequestSpec, able: &Capabilities) -> Result<Prepared, EnqueueError> {
    if let Some((field, feature)) = unknown(spec, able) {
        return Err(EnqueueError::Unsupported { executor: NAME, field: Some(field), feature });
    }
    let prompt = spec.input_token_ids.len();
    if !able.enable_chunked_context && prompt > able.max_num_tokens {
        return Err(EnqueueError::PromptTooLong { prompt, max_num_tokens: able.max_num_tokens });
    }
    // It generates one token at least, also where none is asked for. The `max_input_len` of the engine is nobody's limit: TensorRT-LLM's
    // runtime (trtGptModel.h) does not look at it.
    if prompt >= able.max_seq_len {
        let problem = format!(
            "the prompt has {}, but with max_seq_len {} it takes {} at most",
            counted(prompt, "token"),
            able.max_seq_len,
            able.max_seq_len.saturating_sub(1)
        );
        return Err(EnqueueError::Refused { executor: NAME, problem });
    }
    // The executor has one end id; the others are stop words of one token.
    let further_ends = spec.end_ids.iter().skip(1).map(|&id| vec![id]);
    let mut embedding_bias = Vec::new();
    if !spec.embedding_bias.is_empty() || spec.allowed_token_ids.is_some() {
        embedding_bias = vec![0.0; able.vocab_size];
        // It has no list of allowed tokens: the others get the logit that a bad word gets.
        if let Some(allowed) = &spec.allowed_token_ids {
            embedding_bias.fill(f32::NEG_INFINITY);
            allowed.iter().for_each(|&token| embedding_bias[token as usize] = 0.0);
        }
        for &(token, bias) in &spec.embedding_bias {
            embedding_bias[token as usize] += bias;
        }
    }
    let lora = spec.lora.iter().filter_map(|lora| lora.adapter.as_ref());
    let ranges = spec.kv_cache_retention.iter().flat_map(|keep| &keep.ranges);
    Ok(Prepared {
        guide: None,
        stop_words: spec.stop_words.iter().cloned().chain(further_ends).collect(),
        embedding_bias,
        lora_config: lora.flat_map(|adapter| adapter.config.iter().flatten().copied()).collect(),
        retention: ranges
            .map(|range| GpuRetentionRange {
                token_start: range.tokens.0,
                token_end: range.tokens.1,
                priority: range.priority,
                duration_ms: range.duration.map_or(0, milliseconds),
            })
            .collect(),
    })
}

impl Prepared {
    /// With the guide as TensorRT-LLM takes it.
    pub(super) fn guided(self, guide: Option<GuidedDecodingParams>) -> Self {
        Self { guide, ..self }
    }
}

/// The request; `cache_salt_id` overrules the specification's.
pub(super) fn to_gpu<'a>(spec: &'a RequestSpec, prepared: &'a Prepared, cache_salt_id: Option<u64>) -> GpuRequest<'a> {
    let sampling = &spec.sampling;
    let is_greedy = sampling.is_greedy();
    GpuRequest {
        input_token_ids: &spec.input_token_ids,
        // It generates one at least, which `Route` drops where none was asked for.
        max_tokens: spec.max_tokens.max(1),
        // Beams come whole.
        streaming: spec.streaming && sampling.beam_width == 1,
        end_id: spec.end_ids.first().copied(),
        stop_words: &prepared.stop_words,
        bad_words: &spec.bad_words,
        embedding_bias: &prepared.embedding_bias,
        priority: spec.priority,
        allotted_time_ms: spec.allotted_time.map(milliseconds),
        cache_salt_id: cache_salt_id.or(spec.cache_salt_id),
        guide: prepared.guide.as_ref().map(guide),
        lora: spec.lora.as_ref().map(|lora| {
            let adapter = lora.adapter.as_deref();
            GpuLora {
                task_id: lora.task_id,
                weights: adapter.map_or(&[], |adapter| &adapter.weights),
                config: &prepared.lora_config,
                rows: adapter.map_or(0, |adapter| adapter.rows),
                columns: adapter.map_or(0, |adapter| adapter.columns),
                config_columns: adapter.and_then(|adapter| adapter.config.first()).map_or(0, |row| row.len()),
            }
        }),
        retention: spec.kv_cache_retention.as_ref().map(|keep| GpuRetention {
            ranges: &prepared.retention,
            decode_priority: keep.decode_priority,
            decode_duration_ms: keep.decode_duration.map_or(0, milliseconds),
        }),
        beam_width: sampling.beam_width,
        num_return_sequences: sampling.num_return_sequences,
        // Neither a temperature of 0 nor a top-p of 0 is one of TensorRT-LLM's: both mean the best token.
        top_k: if is_greedy { 1 } else { sampling.top_k },
        top_p: if is_greedy { 1.0 } else { sampling.top_p },
        min_p: if is_greedy { 0.0 } else { sampling.min_p },
        temperature: if sampling.temperature == 0.0 { 1.0 } else { sampling.temperature },
        seed: sampling.seed,
        min_tokens: sampling.min_tokens,
        repetition_penalty: sampling.repetition_penalty,
        presence_penalty: sampling.presence_penalty,
        frequency_penalty: sampling.frequency_penalty,
        prompt_ignore_length: sampling.prompt_ignore_length,
        length_penalty: sampling.length_penalty,
        early_stopping: match sampling.early_stopping {
            EarlyStopping::Yes => 1,
            EarlyStopping::No => 0,
            EarlyStopping::Never => 2,
        },
        no_repeat_ngram_size: sampling.no_repeat_ngram_size,
        // With the most probable tokens, they are made of the same logits.
        return_log_probs: spec.output.return_log_probs && spec.output.top_log_probs == 0,
        return_context_logits: spec.output.needs_context_logits(),
        return_perf_metrics: spec.output.return_perf_metrics,
        return_generation_logits: spec.output.needs_generation_logits(),
    }
}

/// `GuideType` and the guide's text.
fn guide(params: &GuidedDecodingParams) -> (i32, Option<&str>) {
    match params {
        GuidedDecodingParams::Json => (0, None),
        GuidedDecodingParams::JsonSchema(text) => (1, Some(text)),
        GuidedDecodingParams::Regex(text) => (2, Some(text)),
        GuidedDecodingParams::EbnfGrammar(text) | GuidedDecodingParams::LarkGrammar(text) => (3, Some(text)),
    }
}

/// At least 1, since 0 is no limit there.
fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX).max(1)
}

/// The first thing that is asked for and would not be done: its field, and what it is.
fn unknown(spec: &RequestSpec, able: &Capabilities) -> Option<(&'static str, String)> {
    let (sampling, output) = (&spec.sampling, &spec.output);
    if spec.logits_post_processor.is_some() {
        return Some(("logits_post_processor", "logits post-processors".into()));
    }
    let without = |field, what, needed| Some((field, format!("{what} with an engine that was built without {needed}")));
    if output.needs_context_logits() && !able.gather_context_logits {
        let (field, what) = match (output.return_context_logits, output.prompt_top_log_probs) {
            (true, _) => ("return_context_logits", "context logits"),
            (false, 1..) => ("prompt_top_log_probs", "prompt_top_log_probs"),
            (false, 0) => ("return_prompt_log_probs", "prompt_log_probs"),
        };
        return without(field, what, "gather_context_logits");
    }
    if output.needs_generation_logits() && !able.gather_generation_logits {
        let (field, what) = match output.top_log_probs {
            0 => ("return_generation_logits", "generation logits"),
            _ => ("top_log_probs", "top_log_probs"),
        };
        return without(field, what, "gather_generation_logits");
    }
    if let (Some(guide), Some(reason)) = (&spec.guided_decoding, &able.guides_off) {
        return Some(("guided_decoding", format!("the {}: {reason}", guide.kind())));
    }
    if spec.lora.is_some() && !able.lora {
        return without("lora", "LoRA adapters", "lora_plugin");
    }
    if sampling.beam_width > able.max_beam_width {
        let (asked, limit) = (sampling.beam_width, able.max_beam_width);
        let what = format!("a beam_width of {asked}: the engine or the configuration allows {limit} (max_beam_width)");
        return Some(("beam_width", what));
    }
    if sampling.top_k > MAX_TOP_K && !sampling.is_greedy() {
        return Some(("top_k", format!("a top_k of {}: at most {MAX_TOP_K}", sampling.top_k)));
    }
    if sampling.min_tokens > 0 && spec.end_ids.len() > 1 {
        return Some(("min_tokens", "min_tokens with more than one end id".into()));
    }
    let (field, what) = ignored(spec, able.mode)?;
    Some((field, format!("{what} in its decoding mode, which would ignore it")))
}

/// What a decoding mode does not look at. Source: TensorRT-LLM's `decodingMode.h`, the flags of each mode.
fn ignored(spec: &RequestSpec, mode: DecodingMode) -> Option<(&'static str, &'static str)> {
    use DecodingMode::{Auto, BeamSearch, ExternalDraftTokens, Lookahead, Medusa, TopK, TopKTopP, TopP};
    let sampling = &spec.sampling;
    let penalties = matches!(mode, Auto | TopK | TopP | TopKTopP | BeamSearch | ExternalDraftTokens);
    let min_tokens = penalties || matches!(mode, Medusa | Lookahead);
    let one_sequence = !matches!(mode, Auto | TopK | TopP | TopKTopP | BeamSearch);
    let checks = [
        ("repetition_penalty", sampling.repetition_penalty != 1.0, penalties),
        ("presence_penalty", sampling.presence_penalty != 0.0, penalties),
        ("frequency_penalty", sampling.frequency_penalty != 0.0, penalties),
        ("bad_words", !spec.bad_words.is_empty(), penalties),
        ("allowed_token_ids", spec.allowed_token_ids.is_some(), penalties),
        ("embedding_bias", !spec.embedding_bias.is_empty(), penalties),
        ("no_repeat_ngram_size", sampling.no_repeat_ngram_size > 0, penalties),
        ("min_tokens", sampling.min_tokens > 0, min_tokens),
        ("min_p", sampling.min_p > 0.0 && !sampling.is_greedy(), penalties && mode != BeamSearch),
        ("beam_width", sampling.beam_width > 1, matches!(mode, Auto | BeamSearch)),
        ("num_return_sequences", sampling.num_return_sequences > 1, !one_sequence),
        ("guided_decoding", spec.guided_decoding.is_some(), !one_sequence),
    ];
    let (field, ..) = checks.into_iter().find(|&(_, asked, done)| asked && !done)?;
    Some((field, if field == "guided_decoding" { "guided decoding" } else { field }))
}
