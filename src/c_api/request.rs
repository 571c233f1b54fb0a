//! Requests: what a host asks for.

use std::ffi::c_void;
use std::ptr;

use runner::executor::{RequestSpec, SamplingConfig};
use runner::request_builder::DEFAULT_MAX_NEW_TOKENS;

use super::entry::entry_in_forks;
use super::logits::trtllm_logits_post_processor;
use super::options::{self, Options};
use super::queue::trtllm_queue;
use super::response::trtllm_response_callback;
use super::status::trtllm_status;
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
/// Text of the EBNF grammar in `guide`.
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
    /// The prompt as text, which is encoded with the tokenizer's special tokens. Default: none.
    pub prompt: trtllm_str,
    /// A conversation: a JSON list of messages, each an object with `role` and `content`, or a text, which is the user's
    /// message. It goes through the model's chat template. Default: none.
    pub messages: trtllm_str,
    /// The prompt as token ids. Default: none.
    pub token_ids: trtllm_ids,
    /// Tokens to generate at most. Fewer where the engine's `max_seq_len` leaves no room. With 0 every sequence ends
    /// with `TRTLLM_FINISH_REASON_LENGTH` and no tokens; `return_prompt_log_probs` is answered. Default: 128.
    pub max_new_tokens: usize,
    /// Any of these ends a sequence, and is its last token, with `ignore_eos` too; none for the model's own. Default: none.
    pub end_ids: trtllm_ids,
    /// Texts that end a sequence, with `streaming` or without; they are not part of its text, unless
    /// `include_stop_str_in_output` is set. Special tokens that a text names (`[/INST]`) are found by their ids. They need
    /// `return_text`. A beam search runs to its end, and its texts are cut. Default: none.
    pub stop: *const trtllm_str,
    /// How many. Default: 0.
    pub num_stop: usize,
    /// Token sequences that end a sequence; they stay part of its output. Default: none.
    pub stop_words: *const trtllm_ids,
    /// How many. Default: 0.
    pub num_stop_words: usize,
    /// Texts that are not generated: each as the tokenizer encodes it alone, and after a blank. Default: none.
    pub bad_words: *const trtllm_str,
    /// How many. Default: 0.
    pub num_bad_words: usize,
    /// Token sequences that are not generated. Default: none.
    pub bad_token_words: *const trtllm_ids,
    /// How many. Default: 0.
    pub num_bad_token_words: usize,
    /// Numbers that are added to logits. Default: none.
    pub embedding_bias: *const trtllm_token_bias,
    /// How many. Default: 0.
    pub num_embedding_bias: usize,
    /// The schema, pattern or grammar of `guide_kind`. Default: none.
    pub guide: trtllm_str,
    /// Seed of the draws; sequence i of a request uses `seed + i`. The same request with the same seed gives the same tokens,
    /// whatever runs beside it. Default: 0.
    pub seed: u64,
    /// Ends the request with `TRTLLM_FINISH_REASON_TIMED_OUT` this many milliseconds after it was queued; 0 for never. Default:
    /// 0.
    pub allotted_time_ms: u64,
    /// Requests share cached prefixes with those of the same salt only; counts where `has_cache_salt_id` is set. Default: 0.
    pub cache_salt_id: u64,
    /// The `top_k` most probable tokens are kept; 0 for all. Default: 0.
    pub top_k: usize,
    /// The end ids are not generated before this many tokens. Default: 0.
    pub min_tokens: usize,
    /// No n-gram of this many tokens occurs twice; 0 for no such rule. Default: 0.
    pub no_repeat_ngram_size: usize,
    /// How many tokens from the start of the prompt presence and frequency penalty do not count. Default: 0.
    pub prompt_ignore_length: usize,
    /// Sequences to return; 0 for one, or for all beams. Default: 0.
    pub num_return_sequences: usize,
    /// Beams of a beam search; 1 for none. Default: 1.
    pub beam_width: usize,
    /// How many of the most probable tokens to return at each position, with their log-probabilities. Default: 0.
    pub top_log_probs: usize,
    /// Takes the request's responses; NULL to take them with `trtllm_await_responses`, or from `queue`. Default: none.
    pub on_response: trtllm_response_callback,
    /// Sees and edits the logits; NULL for none. Default: none.
    pub logits_post_processor: trtllm_logits_post_processor,
    /// Given to both callbacks, and back in each response. It has to stay valid until the request's final response has been
    /// delivered. Default: none.
    pub user_data: *mut c_void,
    /// 0 takes the most probable token. Below 0: 1 where `top_k`, `top_p` or `min_p` is set, else 0. Default: -1.
    pub temperature: f32,
    /// The smallest set of most probable tokens whose probabilities reach this much is kept, and at least one; from 0 to 1.
    /// Default: 1.
    pub top_p: f32,
    /// Tokens less probable than this share of the most probable one are dropped; from 0 to 1. Default: 0.
    pub min_p: f32,
    /// Above 1 makes tokens that occurred less likely; 1 for none. Default: 1.
    pub repetition_penalty: f32,
    /// Subtracted from the logits of tokens that occurred. Default: 0.
    pub presence_penalty: f32,
    /// Subtracted from the logits of tokens for each time that they occurred. Default: 0.
    pub frequency_penalty: f32,
    /// Beams are ranked by the sum of their log-probabilities over their length to this power. Default: 0.
    pub length_penalty: f32,
    /// From 0 to 1; requests of higher priority are started first. Default: 0.5.
    pub priority: f32,
    /// `TRTLLM_GUIDE_NONE`, or what `guide` is. Default: `TRTLLM_GUIDE_NONE`.
    pub guide_kind: trtllm_guide_kind,
    /// When a beam search ends. Default: `TRTLLM_EARLY_STOPPING_YES`.
    pub early_stopping: trtllm_early_stopping,
    /// Whether `cache_salt_id` counts. Default: false.
    pub has_cache_salt_id: CBool,
    /// Whether sequences go on beyond the model's end ids. Default: false.
    pub ignore_eos: CBool,
    /// Whether responses come as tokens are generated, rather than one at the end of each sequence. Beams come at the end.
    /// Default: true.
    pub streaming: CBool,
    /// Whether responses carry text; without a tokenizer they do not. Default: true.
    pub return_text: CBool,
    /// Whether responses carry the log-probability of each generated token. Default: false.
    pub return_log_probs: CBool,
    /// Whether the first response carries the log-probability of each prompt token after the first. Default: false.
    pub return_prompt_log_probs: CBool,
    /// The folder of a LoRA adapter that PEFT wrote (docs/lora.md), which is applied to the model; empty for none. Read from
    /// disk at its first use. TensorRT-LLM's executor only. Default: none.
    pub lora: trtllm_str,
    /// How long the KV-cache blocks of prompt and output are kept for reuse: from 0, to go first, to 100; below 0
    /// as the executor chooses. TensorRT-LLM's executor only. Default: -1.
    pub retention_priority: i32,
    /// Where the responses go, to be taken with `trtllm_await_queue`; NULL to take them with `trtllm_await_responses`. A queue of
    /// the same engine; excludes `on_response`. Default: none.
    pub queue: *mut trtllm_queue,
    /// The model's chat template of this name; empty for the model's choice: `tool_use` where there are tools and it has one,
    /// else `default`. This field and the four below it are for `messages`. Default: none.
    pub chat_template: trtllm_str,
    /// Further variables of the template, a JSON object; empty for none. Default: none.
    pub chat_template_kwargs: trtllm_str,
    /// Functions that the model may call, a JSON list of objects; empty for none. Default: none.
    pub tools: trtllm_str,
    /// Texts that the model may use, a JSON list of objects; empty for none. Default: none.
    pub documents: trtllm_str,
    /// A system message, for conversations that do not begin with one; empty for none. Default: none.
    pub system: trtllm_str,
    /// The only tokens that are generated; none for all. A guide and bad words choose among them. An end id has to be one of them
    /// to be generated; a guided output whose end ids are not ends where nothing but an end could follow. Default: none.
    pub allowed_token_ids: trtllm_ids,
    /// How many of the most probable tokens to return at the position of each prompt token after the first, with their
    /// log-probabilities. Default: 0.
    pub prompt_top_log_probs: usize,
    /// Whether the first response carries the raw logits of what follows each prompt token: prompt x vocabulary x 4 bytes.
    /// Logits that may not fit into memory are refused with `TRTLLM_STATUS_SYSTEM`. Default: false.
    pub return_context_logits: CBool,
    /// Whether responses carry the raw logits that each token was chosen from, as the model gave them: before
    /// `logits_post_processor`, masks, penalties and temperature. Tokens x vocabulary x 4 bytes for each sequence, as many as may be
    /// generated counted before the request is taken. Not with a beam search. Default: false.
    pub return_generation_logits: CBool,
    /// Whether the model goes on with the last message, rather than answer it. Default: false.
    pub continue_final_message: CBool,
    /// Whether the stop text that ends a sequence is part of its text. Default: false.
    pub include_stop_str_in_output: CBool,
    /// Whether texts leave special tokens out. Default: true.
    pub skip_special_tokens: CBool,
    /// Whether special tokens that stand in `messages`, `tools`, `documents`, `system` and `chat_template_kwargs` are tokens, rather
    /// than text. Default: false.
    pub allow_special_tokens_in_messages: CBool,
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
            queue: ptr::null_mut(),
            chat_template: trtllm_str::EMPTY,
            chat_template_kwargs: trtllm_str::EMPTY,
            tools: trtllm_str::EMPTY,
            documents: trtllm_str::EMPTY,
            system: trtllm_str::EMPTY,
            allowed_token_ids: trtllm_ids::EMPTY,
            prompt_top_log_probs: 0,
            return_context_logits: CBool::FALSE,
            return_generation_logits: CBool::FALSE,
            continue_final_message: CBool::FALSE,
            include_stop_str_in_output: CBool::FALSE,
            skip_special_tokens: CBool::TRUE,
            allow_special_tokens_in_messages: CBool::FALSE,
        }
    }
}

/// Writes a greedy request of default settings, without a prompt, to `request`, a struct of `struct_size` bytes:
/// `sizeof(trtllm_request)`. Thread-safe.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn trtllm_init_request(request: *mut trtllm_request, struct_size: usize) -> trtllm_status {
    // SAFETY: as the caller promises.
    entry_in_forks(|| unsafe { options::write(request, struct_size, &trtllm_request::defaults(), "request") })
}
