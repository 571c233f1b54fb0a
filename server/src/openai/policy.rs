//! Fields that change nothing, and fields that would change the answer and cannot be honoured: refused by name, unless their value
//! says what happens anyway.

use serde_json::Value as Json;

use crate::error::ApiError;
use crate::fields::{Fields, nearest, shown, wrong};

/// Whatever they say, the answer is the same.
const HARMLESS: [&str; 10] = [
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_retention",
    "prompt_cache_options",
    "verbosity",
    "obfuscation",
    "include_reasoning",
];

/// A field that is refused, unless it asks for nothing.
pub(super) struct Refused {
    name: &'static str,
    /// What it must be, in the words of a message: [`is_a`] reads them.
    kind: &'static str,
    /// What it may say beside `false`, 0 and what is empty, as JSON.
    accepted: &'static [&'static str],
    /// Why, and what to do.
    reason: &'static str,
}

const fn refused(
    name: &'static str,
    kind: &'static str,
    accepted: &'static [&'static str],
    reason: &'static str,
) -> Refused {
    Refused { name, kind, accepted, reason }
}

const FLAG: &str = "true or false";
const NO_TOOLS: &str = "this server does not parse tool calls";
const BLANKS: &str = "a schema can say it by x-guidance";
const NO_CODE: &str = "code is not taken from requests";
const TO_CHAT: &str = "send conversations to /v1/chat/completions";

const REFUSED: [Refused; 24] = [
    refused("suffix", "a string", &[], "the model fills no gaps; put what comes after into the prompt"),
    refused("watermark", FLAG, &[], "outputs are not marked"),
    refused("tools", "a list", &[], NO_TOOLS),
    refused("functions", "a list", &[], NO_TOOLS),
    refused("tool_choice", "a string or an object", &["\"none\"", "\"auto\""], NO_TOOLS),
    refused("function_call", "a string or an object", &["\"none\"", "\"auto\""], NO_TOOLS),
    refused("parallel_tool_calls", FLAG, &["true"], NO_TOOLS),
    refused("reasoning_effort", "a string", &["\"none\""], "the model does not reason aloud"),
    refused("thinking_token_budget", "a number", &[], "the model does not reason aloud"),
    refused("modalities", "a list", &["[\"text\"]"], "the model gives text only"),
    refused("audio", "an object", &[], "the model gives text only"),
    refused("mm_processor_kwargs", "an object", &[], "the model reads text only"),
    refused("prediction", "an object", &[], "predicted outputs are not used"),
    refused("web_search_options", "an object", &[], "this server searches nothing"),
    refused("chat_template", "a string", &[], "templates are code; set variables in chat_template_kwargs"),
    refused("typical_p", "a number", &["1", "1.0"], "use top_p or min_p"),
    refused("top_n_tokens", "a number", &[], "ask for logprobs"),
    refused("spaces_between_special_tokens", FLAG, &["true"], "special tokens are written as they are"),
    refused("kv_transfer_params", "an object", &[], "requests do not move between servers"),
    refused("logits_processors", "a list", &[], NO_CODE),
    refused("vllm_xargs", "an object", &[], NO_CODE),
    refused("guided_decoding_backend", "a string", &[], "guides have one parser"),
    refused("guided_whitespace_pattern", "a string", &[], BLANKS),
    refused("prompt_embeds", "a string or a list", &[], "prompts are text or token ids"),
];

/// What chat alone has, refused by completions.
pub(super) const OF_CHAT: [Refused; 7] = [
    refused("messages", "a list", &[], TO_CHAT),
    refused("top_logprobs", "a number", &[], "completions take the number as `logprobs`"),
    refused("add_generation_prompt", FLAG, &["true"], TO_CHAT),
    refused("continue_final_message", FLAG, &[], TO_CHAT),
    refused("chat_template_kwargs", "an object", &[], TO_CHAT),
    refused("documents", "a list", &[], TO_CHAT),
    refused("allow_special_tokens_in_messages", FLAG, &[], TO_CHAT),
];

/// What completions alone have, refused by chat.
pub(super) const OF_COMPLETIONS: [Refused; 2] = [
    refused("prompt", "a string or a list", &[], "chat takes `messages`; send prompts to /v1/completions"),
    refused("echo", FLAG, &[], "end `messages` with the assistant's beginning, and set continue_final_message"),
];

/// What `structured_outputs` may not have.
pub(super) const OF_STRUCTURED_OUTPUTS: [Refused; 5] = [
    refused("disable_fallback", FLAG, &["true"], "guides have one parser"),
    refused("disable_any_whitespace", FLAG, &[], BLANKS),
    refused("disable_additional_properties", FLAG, &[], "a schema can say it by additionalProperties"),
    refused("whitespace_pattern", "a string", &[], BLANKS),
    refused("structural_tag", "a string or an object", &[], "give a grammar"),
];

/// What a message may not have.
pub(super) const OF_MESSAGES: [Refused; 4] = [
    refused("tool_calls", "a list", &[], NO_TOOLS),
    refused("function_call", "an object", &[], NO_TOOLS),
    refused("tool_call_id", "a string", &[], NO_TOOLS),
    refused("audio", "an object", &[], "messages are text"),
];

/// Whether a value is of a kind.
fn is_a(kind: &str, value: &Json) -> bool {
    kind.contains(match value {
        Json::Null => return true,
        Json::Bool(_) => FLAG,
        Json::Number(_) => "a number",
        Json::String(_) => "a string",
        Json::Array(_) => "a list",
        Json::Object(_) => "an object",
    })
}

/// Whether a value asks for nothing.
fn is_neutral(value: &Json) -> bool {
    match value {
        Json::Null => true,
        Json::Bool(value) => !value,
        Json::Number(number) => number.as_f64() == Some(0.0),
        Json::String(text) => text.is_empty(),
        Json::Array(list) => list.is_empty(),
        Json::Object(map) => map.is_empty(),
    }
}

/// Takes what asks for nothing, and refuses what cannot be honoured. What is left, nobody knows.
///
/// # Errors
/// A field that would change the answer.
pub fn settle(fields: &mut Fields) -> Result<(), ApiError> {
    for name in HARMLESS {
        fields.take(name);
    }
    refuse(fields, &REFUSED)
}

/// Refuses fields, unless they ask for nothing.
pub(super) fn refuse(fields: &mut Fields, list: &[Refused]) -> Result<(), ApiError> {
    for Refused { name, kind, accepted, reason } in list {
        let Some(value) = fields.take(name) else { continue };
        if !is_a(kind, &value) {
            return Err(wrong(&fields.path(name), kind, &value));
        }
        if !is_neutral(&value) && !accepted.contains(&value.to_string().as_str()) {
            let path = fields.path(name);
            let message = format!("`{path}` is not supported, and was {}: {reason}", shown(&value));
            return Err(ApiError::unsupported(&path, message));
        }
    }
    Ok(())
}

/// What is left, and what the chat template does not read (`unread`): to be named in `X-Ignored-Fields`, or refused.
///
/// # Errors
/// There is one, and the server was told to refuse it.
pub fn ignored(fields: &Fields, unread: Vec<String>, rejects: bool) -> Result<Option<String>, ApiError> {
    let mut left = fields.left();
    if rejects && let (None, Some(first)) = (left.first(), unread.first()) {
        return Err(ApiError::unsupported(first, format!("the model's chat template does not read `{first}`")));
    }
    left.extend(unread);
    let Some(first) = left.first() else { return Ok(None) };
    if rejects {
        let known = fields.asked();
        let advice = nearest(first, known.iter().map(String::as_str))
            .map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
        let message = format!("the field `{first}` is not known{advice}");
        return Err(ApiError::bad_request("unknown_parameter", Some(first), message));
    }
    let mut header = String::new();
    for name in &left {
        let plain: String =
            name.chars().map(|c| if c.is_ascii_graphic() && c != ',' { c } else { '?' }).take(64).collect();
        if header.len() + plain.len() > 1000 {
            header.push_str(", ...");
            break;
        }
        if !header.is_empty() {
            header.push_str(", ");
        }
        header.push_str(&plain);
    }
    Ok(Some(header))
}
