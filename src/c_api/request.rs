//! Requests: what a host asks for, checked and queued.

use std::ffi::c_void;
use std::ptr;
use std::time::Duration;

use runner::executor::{
    EarlyStopping, EnqueueError, GuidedDecodingParams, KvCacheRetentionConfig, OutputConfig, Request, RequestId,
    RequestSpec, SamplingConfig, TokenRangeRetention,
};
use runner::session::Submission;
use text::chat::parse_messages;
use text::stop_strings::StopStrings;

use super::engine::{ENGINES, OpenEngine, trtllm_engine};
use super::entry::entry;
use super::logits::{UserData, post_processor, trtllm_logits_post_processor};
use super::options::{self, Options};
use super::pointers::{Out, elements, optional_text, texts};
use super::response::{output_callback, trtllm_response_callback};
use super::status::{
    Failure, TRTLLM_STATUS_INVALID_ARGUMENT, TRTLLM_STATUS_QUEUE_FULL, TRTLLM_STATUS_SHUT_DOWN, TRTLLM_STATUS_SYSTEM,
    TRTLLM_STATUS_UNSUPPORTED, trtllm_status,
};
use super::strings::{CBool, trtllm_ids, trtllm_str};

/// A number that is added to the logit of a token.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct trtllm_token_bias {
    /// The token.
    pub token_id: u32,
    /// What is added; finite.
    pub bias: f32,
}

/// What the output must look like.
pub type trtllm_guide_kind = u32;

/// Nothing is asked of it.
pub const TRTLLM_GUIDE_NONE: trtllm_guide_kind = 0;
/// Any JSON value; `guide` is empty.
pub const TRTLLM_GUIDE_JSON: trtllm_guide_kind = 1;
/// JSON that the JSON schema in `guide` admits.
pub const TRTLLM_GUIDE_JSON_SCHEMA: trtllm_guide_kind = 2;
/// Text that the regular expression in `guide` matches as a whole.
pub const TRTLLM_GUIDE_REGEX: trtllm_guide_kind = 3;
/// Text of the EBNF grammar in `guide`; TensorRT-LLM's executor only.
pub const TRTLLM_GUIDE_EBNF_GRAMMAR: trtllm_guide_kind = 4;
/// Text of the Lark grammar in `guide`; the CPU executor only.
pub const TRTLLM_GUIDE_LARK_GRAMMAR: trtllm_guide_kind = 5;

/// When a beam search ends.
pub type trtllm_early_stopping = u32;

/// When the best running beam is not expected to better the finished ones.
pub const TRTLLM_EARLY_STOPPING_NO: trtllm_early_stopping = 0;
/// As soon as `beam_width` beams have finished.
pub const TRTLLM_EARLY_STOPPING_YES: trtllm_early_stopping = 1;
/// When no running beam can better the finished ones.
pub const TRTLLM_EARLY_STOPPING_NEVER: trtllm_early_stopping = 2;

/// What to generate, and how. Fill it with `trtllm_init_request` and change what you need; one of `prompt`, `messages` and
/// `token_ids` has to be given. Everything that it points to is read during `trtllm_enqueue` only, but for `user_data`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct trtllm_request {
    /// `sizeof(trtllm_request)`.
    pub struct_size: usize,
    /// The prompt as text, which is encoded with the tokenizer's special tokens.
    pub prompt: trtllm_str,
    /// A conversation: a JSON list of messages, each an object with `role` and `content`, or a text, which is the user's
    /// message. It goes through the model's chat template.
    pub messages: trtllm_str,
    /// The prompt as token ids.
    pub token_ids: trtllm_ids,
    /// Tokens to generate at most; 128 by default. Fewer where the engine's `max_seq_len` leaves no room.
    pub max_new_tokens: usize,
    /// Any of these ends a sequence, and is its last token; none for the model's own.
    pub end_ids: trtllm_ids,
    /// Texts that end a sequence; they are not part of its text. They need `return_text`.
    pub stop: *const trtllm_str,
    /// How many.
    pub num_stop: usize,
    /// Token sequences that end a sequence; they stay part of its output.
    pub stop_words: *const trtllm_ids,
    /// How many.
    pub num_stop_words: usize,
    /// Texts that are not generated: each as the tokenizer encodes it alone, and after a blank.
    pub bad_words: *const trtllm_str,
    /// How many.
    pub num_bad_words: usize,
    /// Token sequences that are not generated.
    pub bad_token_words: *const trtllm_ids,
    /// How many.
    pub num_bad_token_words: usize,
    /// Numbers that are added to logits.
    pub embedding_bias: *const trtllm_token_bias,
    /// How many.
    pub num_embedding_bias: usize,
    /// The schema, pattern or grammar of `guide_kind`.
    pub guide: trtllm_str,
    /// Seed of the draws; sequence i of a request uses `seed + i`. The same request with the same seed gives the same tokens,
    /// whatever runs beside it.
    pub seed: u64,
    /// Ends the request with `TRTLLM_FINISH_REASON_TIMED_OUT` this many milliseconds after it was queued; 0 for never.
    pub allotted_time_ms: u64,
    /// Requests share cached prefixes with those of the same salt only; counts where `has_cache_salt_id` is set.
    pub cache_salt_id: u64,
    /// The `top_k` most probable tokens are kept; 0 for all.
    pub top_k: usize,
    /// The end ids are not generated before this many tokens.
    pub min_tokens: usize,
    /// No n-gram of this many tokens occurs twice; 0 for no such rule.
    pub no_repeat_ngram_size: usize,
    /// How many tokens from the start of the prompt presence and frequency penalty do not count.
    pub prompt_ignore_length: usize,
    /// Sequences to return; 0 for one, or for all beams.
    pub num_return_sequences: usize,
    /// Beams of a beam search; 1 for none.
    pub beam_width: usize,
    /// How many of the most probable tokens to return at each position, with their log-probabilities.
    pub top_log_probs: usize,
    /// Takes the request's responses; NULL to take them with `trtllm_await_responses`.
    pub on_response: trtllm_response_callback,
    /// Sees and edits the logits; NULL for none.
    pub logits_post_processor: trtllm_logits_post_processor,
    /// Given to both callbacks, and back in each response. It has to stay valid until the request's final response has been
    /// delivered.
    pub user_data: *mut c_void,
    /// 0 takes the most probable token. Below 0 (the default): 1 where `top_k`, `top_p` or `min_p` is set, else 0.
    pub temperature: f32,
    /// The smallest set of most probable tokens whose probabilities reach this much is kept, and at least one; from 0 to 1.
    pub top_p: f32,
    /// Tokens less probable than this share of the most probable one are dropped; from 0 to 1.
    pub min_p: f32,
    /// Above 1 makes tokens that occurred less likely; 1 for none.
    pub repetition_penalty: f32,
    /// Subtracted from the logits of tokens that occurred.
    pub presence_penalty: f32,
    /// Subtracted from the logits of tokens for each time that they occurred.
    pub frequency_penalty: f32,
    /// Beams are ranked by the sum of their log-probabilities over their length to this power.
    pub length_penalty: f32,
    /// From 0 to 1; requests of higher priority are started first.
    pub priority: f32,
    /// `TRTLLM_GUIDE_NONE`, or what `guide` is.
    pub guide_kind: trtllm_guide_kind,
    /// When a beam search ends; `TRTLLM_EARLY_STOPPING_YES` by default.
    pub early_stopping: trtllm_early_stopping,
    /// Whether `cache_salt_id` counts.
    pub has_cache_salt_id: CBool,
    /// Whether sequences go on beyond the model's end ids.
    pub ignore_eos: CBool,
    /// Whether responses come as tokens are generated, rather than one at the end of each sequence. Beams come at the end.
    pub streaming: CBool,
    /// Whether responses carry text; without a tokenizer they do not.
    pub return_text: CBool,
    /// Whether responses carry the log-probability of each generated token.
    pub return_log_probs: CBool,
    /// Whether the first response carries the log-probability of each prompt token after the first.
    pub return_prompt_log_probs: CBool,
    /// The folder of a LoRA adapter that PEFT wrote (docs/lora.md), which is applied to the model; empty for none. Read from
    /// disk at its first use. TensorRT-LLM's executor only.
    pub lora: trtllm_str,
    /// How long the KV-cache blocks of prompt and output are kept for reuse: from 0, to go first, to 100; below 0 (the default)
    /// as the executor chooses. TensorRT-LLM's executor only.
    pub retention_priority: i32,
}

// SAFETY: `repr(C)`, begins with its size, and holds numbers, bytes, raw pointers and nullable functions only.
unsafe impl Options for trtllm_request {
    const FIRST_SIZE: usize = 352;

    fn defaults() -> Self {
        let (spec, sampling) = (RequestSpec::new(Vec::new(), 0), SamplingConfig::default());
        Self {
            struct_size: size_of::<Self>(),
            prompt: trtllm_str::EMPTY,
            messages: trtllm_str::EMPTY,
            token_ids: trtllm_ids::EMPTY,
            max_new_tokens: DEFAULT_MAX_NEW_TOKENS,
            end_ids: trtllm_ids::EMPTY,
            stop: ptr::null(),
            num_stop: 0,
            stop_words: ptr::null(),
            num_stop_words: 0,
            bad_words: ptr::null(),
            num_bad_words: 0,
            bad_token_words: ptr::null(),
            num_bad_token_words: 0,
            embedding_bias: ptr::null(),
            num_embedding_bias: 0,
            guide: trtllm_str::EMPTY,
            seed: sampling.seed,
            allotted_time_ms: 0,
            cache_salt_id: 0,
            top_k: sampling.top_k,
            min_tokens: sampling.min_tokens,
            no_repeat_ngram_size: sampling.no_repeat_ngram_size,
            prompt_ignore_length: sampling.prompt_ignore_length,
            num_return_sequences: 0,
            beam_width: sampling.beam_width,
            top_log_probs: 0,
            on_response: None,
            logits_post_processor: None,
            user_data: ptr::null_mut(),
            temperature: -1.0,
            top_p: sampling.top_p,
            min_p: sampling.min_p,
            repetition_penalty: sampling.repetition_penalty,
            presence_penalty: sampling.presence_penalty,
            frequency_penalty: sampling.frequency_penalty,
            length_penalty: sampling.length_penalty,
            priority: spec.priority,
            guide_kind: TRTLLM_GUIDE_NONE,
            early_stopping: TRTLLM_EARLY_STOPPING_YES,
            has_cache_salt_id: CBool::FALSE,
            ignore_eos: CBool::FALSE,
            streaming: CBool::TRUE,
            return_text: CBool::TRUE,
            return_log_probs: CBool::FALSE,
            return_prompt_log_probs: CBool::FALSE,
            lora: trtllm_str::EMPTY,
            retention_priority: -1,
        }
    }
}

const DEFAULT_MAX_NEW_TOKENS: usize = 128;

/// Each sequence has a place in memory from the start.
const MAX_SEQUENCES: usize = 65_536;

/// Writes a greedy request of default settings, without a prompt, to `request`, a struct of `struct_size` bytes:
/// `sizeof(trtllm_request)`. Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_init_request(request: *mut trtllm_request, struct_size: usize) -> trtllm_status {
    // SAFETY: as the caller promises.
    entry(|| unsafe { options::write(request, struct_size, &trtllm_request::defaults(), "request") })
}

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
            (out, submission(&open, &options::read(request, "request")?)?)
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

fn refused(error: &EnqueueError) -> Failure {
    let status = match error {
        EnqueueError::QueueFull { .. } => TRTLLM_STATUS_QUEUE_FULL,
        EnqueueError::ShutDown => TRTLLM_STATUS_SHUT_DOWN,
        EnqueueError::Failed { .. } => TRTLLM_STATUS_SYSTEM,
        EnqueueError::Unsupported { .. } => TRTLLM_STATUS_UNSUPPORTED,
        _ => TRTLLM_STATUS_INVALID_ARGUMENT,
    };
    Failure::from_error(status, error)
}

/// A request of C as a submission.
///
/// # Safety
/// Everything that the request points to can be read, as the header has it.
unsafe fn submission(open: &OpenEngine, request: &trtllm_request) -> Result<Submission, Failure> {
    let invalid =
        |error: &(dyn std::error::Error + 'static)| Failure::from_error(TRTLLM_STATUS_INVALID_ARGUMENT, error);
    // SAFETY: as the caller promises, here and in `spec`.
    let stop = unsafe { texts(request.stop, request.num_stop, "stop") }?;
    let has_text = request.return_text.get() && open.session.tokenizer().is_some();
    if !stop.is_empty() && !has_text {
        return Err(Failure::argument("stop needs text: set return_text, and use an engine with a tokenizer"));
    }
    // SAFETY: as above.
    let spec = unsafe { spec(open, request) }?;
    let executor = open.session.executor();
    Ok(Submission {
        request: Request::new(spec, executor.limits(), executor.vocab_size()).map_err(|error| invalid(&error))?,
        stop_strings: StopStrings::new(stop).map_err(|error| invalid(&error))?,
        text: has_text,
        on_output: output_callback(request.on_response, UserData::new(request.user_data)),
        tag: request.user_data as usize as u64,
    })
}

/// # Safety
/// As [`submission`].
unsafe fn spec(open: &OpenEngine, request: &trtllm_request) -> Result<RequestSpec, Failure> {
    // SAFETY: as the caller promises.
    unsafe {
        let end_ids = match (request.ignore_eos.get(), request.end_ids.len) {
            (true, _) => Vec::new(),
            (false, 0) => open.end_ids().to_vec(),
            (false, _) => ids(request.end_ids, "end_ids")?,
        };
        let mut bad_words = id_lists(request.bad_token_words, request.num_bad_token_words, "bad_token_words")?;
        for word in texts(request.bad_words, request.num_bad_words, "bad_words")? {
            if word.is_empty() {
                return Err(Failure::argument("a text of bad_words is empty"));
            }
            let forms = open.tokenizer()?.encode_word(&word);
            bad_words.extend(forms.map_err(|error| Failure::from_error(TRTLLM_STATUS_INVALID_ARGUMENT, &error))?);
        }
        let bias = elements(request.embedding_bias, request.num_embedding_bias, "embedding_bias")?;
        Ok(RequestSpec {
            end_ids,
            stop_words: id_lists(request.stop_words, request.num_stop_words, "stop_words")?,
            bad_words,
            embedding_bias: bias.iter().map(|bias| (bias.token_id, bias.bias)).collect(),
            guided_decoding: guide(request)?,
            logits_post_processor: post_processor(request.logits_post_processor, UserData::new(request.user_data)),
            sampling: sampling(request)?,
            output: OutputConfig {
                return_log_probs: request.return_log_probs.get(),
                top_log_probs: request.top_log_probs,
                return_prompt_log_probs: request.return_prompt_log_probs.get(),
                return_perf_metrics: false,
            },
            streaming: request.streaming.get(),
            priority: request.priority,
            allotted_time: (request.allotted_time_ms > 0).then(|| Duration::from_millis(request.allotted_time_ms)),
            cache_salt_id: request.has_cache_salt_id.get().then_some(request.cache_salt_id),
            lora: optional_text(request.lora, "lora")?
                .filter(|path| !path.is_empty())
                .map(|path| open.lora(path))
                .transpose()?,
            kv_cache_retention: retention(request.retention_priority)?,
            ..RequestSpec::new(prompt(open, request)?, request.max_new_tokens)
        })
    }
}

fn retention(priority: i32) -> Result<Option<KvCacheRetentionConfig>, Failure> {
    if priority < 0 {
        return Ok(None);
    }
    let priority = u8::try_from(priority).ok().filter(|&priority| priority <= 100);
    let priority = priority.ok_or_else(|| Failure::argument("retention_priority must be at most 100"))?;
    let ranges = vec![TokenRangeRetention { tokens: (0, None), priority, duration: None }];
    Ok(Some(KvCacheRetentionConfig { ranges, decode_priority: priority, decode_duration: None }))
}

/// # Safety
/// As [`submission`].
unsafe fn prompt(open: &OpenEngine, request: &trtllm_request) -> Result<Vec<u32>, Failure> {
    let invalid =
        |error: &(dyn std::error::Error + 'static)| Failure::from_error(TRTLLM_STATUS_INVALID_ARGUMENT, error);
    // SAFETY: as the caller promises.
    let (prompt, messages, ids) = unsafe {
        let ids = elements(request.token_ids.data, request.token_ids.len, "token_ids")?;
        (optional_text(request.prompt, "prompt")?, optional_text(request.messages, "messages")?, ids)
    };
    match (prompt, messages, ids) {
        (Some(""), None, []) => Err(Failure::argument("the prompt is empty")),
        (Some(text), None, []) => open.tokenizer()?.encode(text, true).map_err(|error| invalid(&error)),
        (None, Some(messages), []) => {
            let messages = parse_messages(messages).map_err(|error| invalid(&error))?;
            let text = open.chat()?.render(&messages, true).map_err(|error| invalid(&error))?;
            open.tokenizer()?.encode(&text, false).map_err(|error| invalid(&error))
        }
        (None, None, []) => Err(Failure::argument("the request has no prompt: set prompt, messages or token_ids")),
        (None, None, ids) => Ok(ids.to_vec()),
        _ => Err(Failure::argument("the request has several prompts: set one of prompt, messages and token_ids")),
    }
}

/// # Safety
/// As [`submission`].
unsafe fn guide(request: &trtllm_request) -> Result<Option<GuidedDecodingParams>, Failure> {
    // SAFETY: as the caller promises.
    let text = unsafe { optional_text(request.guide, "guide") }?.unwrap_or_default().to_owned();
    Ok(Some(match request.guide_kind {
        TRTLLM_GUIDE_NONE if text.is_empty() => return Ok(None),
        TRTLLM_GUIDE_JSON if text.is_empty() => GuidedDecodingParams::Json,
        TRTLLM_GUIDE_NONE | TRTLLM_GUIDE_JSON => {
            return Err(Failure::argument("guide is given, but its guide_kind takes none"));
        }
        TRTLLM_GUIDE_JSON_SCHEMA => GuidedDecodingParams::JsonSchema(text),
        TRTLLM_GUIDE_REGEX => GuidedDecodingParams::Regex(text),
        TRTLLM_GUIDE_EBNF_GRAMMAR => GuidedDecodingParams::EbnfGrammar(text),
        TRTLLM_GUIDE_LARK_GRAMMAR => GuidedDecodingParams::LarkGrammar(text),
        other => return Err(Failure::argument(format!("{other} is no trtllm_guide_kind"))),
    }))
}

fn sampling(request: &trtllm_request) -> Result<SamplingConfig, Failure> {
    let num_return_sequences = match request.num_return_sequences {
        0 => request.beam_width.max(1),
        asked => asked,
    };
    if num_return_sequences > MAX_SEQUENCES {
        return Err(Failure::argument(format!(
            "num_return_sequences must be at most {MAX_SEQUENCES}, not {num_return_sequences}"
        )));
    }
    let draws = request.top_k > 0 || request.top_p < 1.0 || request.min_p > 0.0;
    Ok(SamplingConfig {
        beam_width: request.beam_width,
        temperature: match request.temperature {
            temperature if temperature < 0.0 => f32::from(u8::from(draws)),
            temperature => temperature,
        },
        top_k: request.top_k,
        top_p: request.top_p,
        min_p: request.min_p,
        seed: request.seed,
        min_tokens: request.min_tokens,
        repetition_penalty: request.repetition_penalty,
        presence_penalty: request.presence_penalty,
        frequency_penalty: request.frequency_penalty,
        prompt_ignore_length: request.prompt_ignore_length,
        no_repeat_ngram_size: request.no_repeat_ngram_size,
        num_return_sequences,
        length_penalty: request.length_penalty,
        early_stopping: match request.early_stopping {
            TRTLLM_EARLY_STOPPING_NO => EarlyStopping::No,
            TRTLLM_EARLY_STOPPING_YES => EarlyStopping::Yes,
            TRTLLM_EARLY_STOPPING_NEVER => EarlyStopping::Never,
            other => return Err(Failure::argument(format!("{other} is no trtllm_early_stopping"))),
        },
    })
}

/// # Safety
/// As [`elements`].
unsafe fn ids(ids: trtllm_ids, name: &str) -> Result<Vec<u32>, Failure> {
    // SAFETY: as the caller promises.
    unsafe { elements(ids.data, ids.len, name) }.map(<[u32]>::to_vec)
}

/// # Safety
/// As [`elements`], for the list and each of its lists.
unsafe fn id_lists(lists: *const trtllm_ids, len: usize, name: &str) -> Result<Vec<Vec<u32>>, Failure> {
    // SAFETY: as the caller promises.
    let lists = unsafe { elements(lists, len, name) }?;
    // SAFETY: as the caller promises.
    lists.iter().map(|&list| unsafe { ids(list, name) }).collect()
}
