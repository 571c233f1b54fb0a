//! Fields that change nothing, and fields that would change the answer and cannot be honoured: refused by name, unless their value
//! says what happens anyway.

use serde_json::Value as Json;

use crate::error::ApiError;
use crate::fields::{Fields, nearest, shown};

/// Whatever they say, the answer is the same.
const HARMLESS: [&str; 11] = [
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "prompt_cache_options",
    "verbosity",
    "obfuscation",
    "request_id",
];

/// A field that is refused, unless it asks for nothing.
struct Refused {
    name: &'static str,
    /// What it may say beside `false`, 0 and what is empty, as JSON.
    accepted: &'static [&'static str],
    /// Why, and what to do.
    reason: &'static str,
}

const fn refused(name: &'static str, accepted: &'static [&'static str], reason: &'static str) -> Refused {
    Refused { name, accepted, reason }
}

const NO_TOOLS: &str = "this server does not parse tool calls";
const NO_CODE: &str = "code is not taken from requests";

const REFUSED: [Refused; 23] = [
    refused("suffix", &[], "the model fills no gaps; put what comes after into the prompt"),
    refused("watermark", &[], "outputs are not marked"),
    refused("tools", &[], NO_TOOLS),
    refused("functions", &[], NO_TOOLS),
    refused("tool_choice", &["\"none\"", "\"auto\""], NO_TOOLS),
    refused("function_call", &["\"none\"", "\"auto\""], NO_TOOLS),
    refused("parallel_tool_calls", &["true"], NO_TOOLS),
    refused("reasoning_effort", &["\"none\""], "the model does not reason aloud"),
    refused("thinking_token_budget", &[], "the model does not reason aloud"),
    refused("modalities", &["[\"text\"]"], "the model gives text only"),
    refused("audio", &[], "the model gives text only"),
    refused("mm_processor_kwargs", &[], "the model reads text only"),
    refused("prediction", &[], "predicted outputs are not used"),
    refused("web_search_options", &[], "this server searches nothing"),
    refused("chat_template", &[], "templates are code; set variables in chat_template_kwargs"),
    refused("typical_p", &["1", "1.0"], "use top_p or min_p"),
    refused("top_n_tokens", &[], "ask for logprobs"),
    refused("truncation_side", &["\"left\""], "prompts are cut on the left"),
    refused("spaces_between_special_tokens", &["true"], "special tokens are written as they are"),
    refused("kv_transfer_params", &[], "requests do not move between servers"),
    refused("logits_processors", &[], NO_CODE),
    refused("vllm_xargs", &[], NO_CODE),
    refused("prompt_embeds", &[], "prompts are text or token ids"),
];

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
    for Refused { name, accepted, reason } in &REFUSED {
        let Some(value) = fields.take(name).filter(|value| !is_neutral(value)) else { continue };
        if !accepted.contains(&value.to_string().as_str()) {
            let message = format!("`{name}` is not supported, and was {}: {reason}", shown(&value));
            return Err(ApiError::unsupported(name, message));
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
