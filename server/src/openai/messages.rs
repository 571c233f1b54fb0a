//! The fields that chat alone has: messages.

use runner::request_builder::Prompt;
use serde_json::{Map, Value as Json};

use crate::error::ApiError;
use crate::fields::{Fields, shown};
use crate::http::routes::Call;
use crate::model::Model;

use super::request::{self, Asked, Bounds, MOST_LOGPROBS};
use super::start::{Input, Read};

/// Reads a body of `/v1/chat/completions`.
///
/// # Errors
/// The first field that is wrong.
pub fn read(fields: &mut Fields, model: &Model, call: &Call) -> Result<Read, ApiError> {
    // What is left of the window.
    let bounds = Bounds { min_max_tokens: 1, default_max_tokens: usize::MAX };
    let messages = fields.list("messages")?;
    let mut asked = request::read(fields, model, bounds, call.timeout.as_deref())?;
    let logprobs = fields.boolean("logprobs")?.unwrap_or(false);
    let top = fields.count("top_logprobs", 0, MOST_LOGPROBS)?;
    if top.is_some_and(|top| top > 0) && !logprobs {
        return Err(ApiError::invalid("top_logprobs", "`top_logprobs` is for `logprobs`: true"));
    }
    asked.wanted.logprobs = logprobs.then(|| top.unwrap_or(0));
    if asked.wanted.stream && asked.wanted.prompt_logprobs.is_some() {
        return Err(ApiError::invalid("prompt_logprobs", "`prompt_logprobs` does not stream"));
    }
    if fields.boolean("echo")? == Some(true) {
        return Err(ApiError::unsupported("echo", "`echo` is for completions: the messages are at hand"));
    }
    template(fields, &mut asked)?;
    let messages = conversation(messages.unwrap_or_default())?;
    let inputs = vec![Input::Prompt(Prompt::Messages(Json::Array(messages).to_string()))];
    Ok(Read { asked, inputs, is_chat: true, prompt_field: "messages" })
}

/// What the template is given beside the messages.
fn template(fields: &mut Fields, asked: &mut Asked) -> Result<(), ApiError> {
    let continues = fields.boolean("continue_final_message")? == Some(true);
    match fields.boolean("add_generation_prompt")? {
        Some(true) if continues => {
            let message = "`add_generation_prompt` and `continue_final_message` exclude each other";
            return Err(ApiError::invalid("continue_final_message", message));
        }
        Some(false) if !continues => {
            let message = "`add_generation_prompt`: false goes with `continue_final_message`: true only";
            return Err(ApiError::unsupported("add_generation_prompt", message));
        }
        _ => {}
    }
    if asked.more.add_special_tokens == Some(true) {
        let message = "`add_special_tokens`: true would give the prompt a second BOS: the chat template writes its own";
        return Err(ApiError::unsupported("add_special_tokens", message));
    }
    asked.options.continue_final_message = continues.then_some(true);
    asked.options.chat_template_kwargs = fields.object("chat_template_kwargs")?.map(Fields::into_map);
    asked.options.documents = fields.list("documents")?.filter(|documents| !documents.is_empty());
    Ok(())
}

fn wrong(path: &str, expected: &str, value: &Json) -> ApiError {
    ApiError::invalid(path, format!("`{path}` must be {expected}, not {}", shown(value)))
}

/// Messages as templates read them.
fn conversation(messages: Vec<Json>) -> Result<Vec<Json>, ApiError> {
    if messages.is_empty() {
        return Err(ApiError::bad_request(
            "missing_field",
            Some("messages"),
            "`messages` must have at least one message",
        ));
    }
    messages.into_iter().enumerate().map(|(index, message)| one(&format!("messages[{index}]"), message)).collect()
}

fn one(path: &str, message: Json) -> Result<Json, ApiError> {
    let Json::Object(mut message) = message else { return Err(wrong(path, "an object", &message)) };
    let role_path = format!("{path}.role");
    let role = match message.get("role") {
        Some(Json::String(role)) => role.clone(),
        other => return Err(wrong(&role_path, "system, developer, user or assistant", other.unwrap_or(&Json::Null))),
    };
    let role = match role.as_str() {
        "system" | "developer" => "system",
        "user" | "assistant" => role.as_str(),
        "tool" | "function" => {
            let message = format!("`{role_path}`: this server does not parse tool calls, so it has no results of them");
            return Err(ApiError::unsupported(&role_path, message));
        }
        _ => return Err(wrong(&role_path, "system, developer, user or assistant", &Json::from(role))),
    };
    for name in ["tool_calls", "function_call", "audio"] {
        let asks = |value: &Json| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty());
        if message.shift_remove(name).is_some_and(|value| asks(&value)) {
            let path = format!("{path}.{name}");
            return Err(ApiError::unsupported(&path, format!("`{path}` is not supported: messages are text")));
        }
    }
    // A refusal is what the assistant said.
    let refusal = message.shift_remove("refusal").filter(|refusal| !refusal.is_null());
    let content = message.shift_remove("content").filter(|content| !content.is_null()).or(refusal);
    let text = text(&format!("{path}.content"), content.unwrap_or(Json::Null))?;
    let fields = [("role".to_owned(), Json::from(role)), ("content".to_owned(), Json::from(text))];
    let mut out: Map<String, Json> = fields.into_iter().collect();
    out.extend(message.into_iter().filter(|(name, value)| name != "role" && !value.is_null()));
    Ok(Json::Object(out))
}

/// A content's text: itself, or that of its parts.
fn text(path: &str, content: Json) -> Result<String, ApiError> {
    let parts = match content {
        Json::String(text) => return Ok(text),
        Json::Array(parts) => parts,
        other => return Err(wrong(path, "a string or a list of parts", &other)),
    };
    let mut text = String::new();
    for (index, part) in parts.iter().enumerate() {
        let path = format!("{path}[{index}]");
        let kind = part.get("type").and_then(Json::as_str);
        let field = match kind {
            Some(kind @ ("text" | "refusal")) => kind,
            Some(other) => {
                let message =
                    format!("`{path}.type` {} is not supported: the model reads text only", shown(&Json::from(other)));
                return Err(ApiError::bad_request("unsupported_content", Some(&format!("{path}.type")), message));
            }
            None => return Err(wrong(&path, "a part with a type", part)),
        };
        match part.get(field) {
            Some(Json::String(part)) => text.push_str(part),
            other => return Err(wrong(&format!("{path}.{field}"), "a string", other.unwrap_or(&Json::Null))),
        }
    }
    Ok(text)
}
