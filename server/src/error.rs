//! What a request is refused with, before any API gives it its shape.

use http::StatusCode;
use runner::executor::{EnqueueError, RequestError};
use runner::request_builder::BuildRequestError;

/// Every code that a request may be refused with.
pub const CODES: [&str; 27] = [
    "invalid_json",
    "invalid_value",
    "missing_field",
    "unsupported_parameter",
    "unsupported_content",
    "unknown_parameter",
    "context_length_exceeded",
    "invalid_schema",
    "template_refused",
    "invalid_api_key",
    "forbidden",
    "not_found",
    "model_not_found",
    "method_not_allowed",
    "header_timeout",
    "body_timeout",
    "request_too_large",
    "unsupported_media_type",
    "rate_limited",
    "too_many_requests",
    "internal",
    "not_implemented",
    "loading",
    "queue_full",
    "shutting_down",
    "engine_failed",
    "deadline_exceeded",
];

/// Why a request has no answer, or why an answer ends early.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    /// The status.
    pub status: StatusCode,
    /// The kind of error, by OpenAI's names.
    pub kind: &'static str,
    /// What exactly.
    pub code: &'static str,
    /// The field that is wrong, as a path.
    pub param: Option<String>,
    /// A sentence for the caller.
    pub message: String,
    /// Seconds after which it may be tried again.
    pub retry_after: Option<u64>,
}

impl ApiError {
    /// An error of the caller's.
    pub fn bad_request(code: &'static str, param: Option<&str>, message: impl Into<String>) -> Self {
        let param = param.map(str::to_owned);
        Self { param, ..Self::of(StatusCode::BAD_REQUEST, "invalid_request_error", code, message) }
    }

    /// A field with a value that it cannot have.
    pub fn invalid(param: &str, message: impl Into<String>) -> Self {
        Self::bad_request("invalid_value", Some(param), message)
    }

    /// A field that would change the answer, and cannot be honoured.
    pub fn unsupported(param: &str, message: impl Into<String>) -> Self {
        Self::bad_request("unsupported_parameter", Some(param), message)
    }

    /// An error of another status.
    pub fn of(status: StatusCode, kind: &'static str, code: &'static str, message: impl Into<String>) -> Self {
        debug_assert!(CODES.contains(&code), "the code {code} is not listed");
        Self { status, kind, code, param: None, message: message.into(), retry_after: None }
    }

    /// The server takes no more: try again in `retry_after` seconds.
    pub fn overloaded(code: &'static str, message: impl Into<String>, retry_after: u64) -> Self {
        let retry_after = Some(retry_after);
        Self { retry_after, ..Self::of(StatusCode::SERVICE_UNAVAILABLE, "overloaded_error", code, message) }
    }

    /// The server is going away.
    pub fn shutting_down() -> Self {
        Self::overloaded("shutting_down", "the server is shutting down: send the request to another", 1)
    }

    /// The executor has failed.
    pub fn engine_failed(problem: impl std::fmt::Display) -> Self {
        Self::overloaded("engine_failed", format!("the engine has failed: {problem}"), 10)
    }

    /// A fault of the server's.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::of(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "internal", message)
    }

    /// The time that the request had is over.
    pub fn deadline_exceeded() -> Self {
        let message = "the request's time was over before its first token";
        Self::of(StatusCode::GATEWAY_TIMEOUT, "timeout_error", "deadline_exceeded", message)
    }

    /// The prompt alone is too long.
    pub fn context_length(param: &str, prompt: usize, max_seq_len: usize) -> Self {
        // Each API has its own words, which clients look for, and its own field.
        let (words, truncate) = match param {
            "inputs" => (format!("`inputs` must have less than {max_seq_len} tokens. Given: {prompt}. "), "truncate"),
            _ => (String::new(), "truncate_prompt_tokens"),
        };
        let message = format!(
            "{words}This model's maximum context length is {max_seq_len} tokens, but the prompt has {prompt}, and one is kept for an \
             output: shorten the prompt, or ask for {truncate}"
        );
        Self::bad_request("context_length_exceeded", Some(param), message)
    }

    /// Why a prompt and its options make no request; `prompt` and `guide` are the fields that the prompt and the guide came in.
    pub fn of_build(error: BuildRequestError, prompt: &str, guide: &str) -> Self {
        let asked_as = |field| asked_as(field, guide);
        let message = error.to_string();
        match error {
            BuildRequestError::Request(error) => Self::of_request(error, prompt, guide),
            BuildRequestError::Option { field, .. } => Self::invalid(asked_as(field), message),
            BuildRequestError::StopString(_) => Self::invalid("stop", message),
            BuildRequestError::Messages(_) => Self::bad_request("template_refused", Some(prompt), message),
            BuildRequestError::ChatTemplate(_) => Self::unsupported(prompt, message),
            BuildRequestError::NoTokenizer { field } => Self::unsupported(asked_as(field), message),
            BuildRequestError::Lora(_) => Self::internal(message),
            BuildRequestError::TextTooLong { bytes, max_seq_len } => {
                let message = format!(
                    "This model's maximum context length is {max_seq_len} tokens, but the prompt's {bytes} bytes have more \
                     than twice as many: shorten it"
                );
                Self::bad_request("context_length_exceeded", Some(prompt), message)
            }
            _ => Self::bad_request("invalid_value", Some(prompt), message),
        }
    }

    fn of_request(error: RequestError, prompt: &str, guide: &str) -> Self {
        let message = error.to_string();
        match error {
            RequestError::PromptTooLong { prompt: tokens, max_seq_len } => {
                Self::context_length(prompt, tokens, max_seq_len)
            }
            RequestError::EmptyPrompt => Self::invalid(prompt, message),
            RequestError::NoAllowedTokens => Self::invalid("allowed_token_ids", message),
            RequestError::UnknownToken { what, .. } => {
                let param = match what {
                    "prompt id" => prompt,
                    "end id" => "stop_token_ids",
                    "allowed token" => "allowed_token_ids",
                    "biased token" => "logit_bias",
                    _ => "bad_words_token_ids",
                };
                Self::invalid(param, message)
            }
            RequestError::Bias { .. } => Self::invalid("logit_bias", message),
            RequestError::Sampling { field, .. } => Self::invalid(asked_as(field, guide), message),
            RequestError::Sequences { .. } | RequestError::BeamWidth { .. } => Self::invalid("n", message),
            _ => Self::bad_request("invalid_value", None, message),
        }
    }

    /// Why the executor does not take a request, whose prompt and guide came in these fields.
    pub fn of_enqueue(error: EnqueueError, prompt: &str, guide: &str) -> Self {
        let message = error.to_string();
        match error {
            EnqueueError::QueueFull { .. } => Self::overloaded("queue_full", message, 1),
            EnqueueError::Guide { .. } => Self::bad_request("invalid_schema", Some(guide), message),
            EnqueueError::Unsupported { field, .. } => {
                let param = field.map(|field| match (field, prompt) {
                    ("top_log_probs", "prompt") => "logprobs",
                    (field, _) => asked_as(field, guide),
                });
                Self::bad_request("unsupported_parameter", param, message)
            }
            EnqueueError::PromptTooLong { .. } => Self::bad_request("context_length_exceeded", Some(prompt), message),
            EnqueueError::KvCacheTooSmall { .. } | EnqueueError::Logits { .. } | EnqueueError::Refused { .. } => {
                Self::bad_request("invalid_value", None, message)
            }
            EnqueueError::Failed { .. } => Self::engine_failed(message),
            EnqueueError::Stalled { .. } => Self::overloaded("engine_failed", message, 10),
            EnqueueError::ShutDown => Self::shutting_down(),
            _ => Self::internal(message),
        }
    }
}

/// An option as requests call it.
fn asked_as<'a>(field: &'static str, guide: &'a str) -> &'a str {
    match field {
        "num_return_sequences" | "beam_width" => "n",
        "lora" => "model",
        "json" | "json_schema" | "regex" | "grammar" | "guided_decoding" => guide,
        "top_log_probs" => "top_logprobs",
        "return_prompt_log_probs" | "prompt_top_log_probs" => "prompt_logprobs",
        "cache_salt_id" => "cache_salt",
        "end_id" => "stop_token_ids",
        other => other,
    }
}
