//! The fields that chat alone has: messages.

use runner::request_builder::Prompt;
use serde_json::{Map, Value as Json};

use crate::error::ApiError;
use crate::fields::{Fields, missing, shown, wrong};
use crate::http::routes::Call;
use crate::model::Model;

use super::policy;
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
    template(fields, &mut asked, model)?;
    policy::refuse(fields, &policy::OF_COMPLETIONS)?;
    let messages = conversation(fields, messages.unwrap_or_default(), &mut asked)?;
    let inputs = vec![Input::Prompt(Prompt::Messages(Json::Array(messages).to_string()))];
    Ok(Read { asked, inputs, is_chat: true, prompt_field: "messages", own: () })
}

/// What the template is given beside the messages.
fn template(fields: &mut Fields, asked: &mut Asked, model: &Model) -> Result<(), ApiError> {
    if asked.more.add_special_tokens == Some(true) {
        let message = "`add_special_tokens`: true would give the prompt a second BOS: the chat template writes its own";
        return Err(ApiError::unsupported("add_special_tokens", message));
    }
    let allowed = fields.boolean("allow_special_tokens_in_messages")? == Some(true);
    if allowed && !model.rules().special_tokens_in_messages {
        let message = "`allow_special_tokens_in_messages` is not allowed on this server: special tokens in messages are \
                       text, unless the server was started with allow_special_tokens_in_messages";
        return Err(ApiError::unsupported("allow_special_tokens_in_messages", message));
    }
    let options = &mut asked.options;
    options.allow_special_tokens_in_messages = allowed.then_some(true);
    options.add_generation_prompt = fields.boolean("add_generation_prompt")?;
    options.continue_final_message = fields.boolean("continue_final_message")?.filter(|&continues| continues);
    options.chat_template_kwargs = fields.object("chat_template_kwargs")?.map(Fields::into_map);
    options.documents = fields.list("documents")?.filter(|documents| !documents.is_empty());
    Ok(())
}

const ROLES: &str = "system, developer, user or assistant";

/// Messages as templates read them.
fn conversation(fields: &Fields, messages: Vec<Json>, asked: &mut Asked) -> Result<Vec<Json>, ApiError> {
    if messages.is_empty() {
        let message = "`messages` must have at least one message";
        return Err(ApiError::bad_request("missing_field", Some("messages"), message));
    }
    let numbered = messages.into_iter().enumerate();
    numbered
        .map(|(index, message)| {
            let path = format!("messages[{index}]");
            one(fields.within(&path, message)?, &path, &mut asked.more.message_fields)
        })
        .collect()
}

fn one(mut fields: Fields, path: &str, further: &mut Vec<(String, String)>) -> Result<Json, ApiError> {
    let role_path = fields.path("role");
    let role = fields.needed("role")?;
    let role = match role.as_str() {
        Some("system" | "developer") => "system",
        Some("user") => "user",
        Some("assistant") => "assistant",
        Some("tool" | "function") => {
            let message = format!("`{role_path}`: this server does not parse tool calls, so it has no results of them");
            return Err(ApiError::unsupported(&role_path, message));
        }
        _ => return Err(wrong(&role_path, ROLES, &role)),
    };
    policy::refuse(&mut fields, &policy::OF_MESSAGES)?;
    // A refusal is what the assistant said.
    let refusal = fields.text("refusal")?.map(Json::from);
    let content = fields.take("content").or(refusal).ok_or_else(|| missing(&fields.path("content")))?;
    let text = text(&fields, content)?;
    let mut message = Map::from_iter([("role".to_owned(), Json::from(role)), ("content".to_owned(), Json::from(text))]);
    let name = fields.text("name")?.map(|name| ("name".to_owned(), Json::from(name)));
    // Templates may know more.
    let others = name.into_iter().chain(fields.into_map()).filter(|(_, value)| !value.is_null());
    for (name, value) in others {
        further.push((format!("{path}.{name}"), name.clone()));
        message.insert(name, value);
    }
    Ok(Json::Object(message))
}

/// A content's text: itself, or that of its parts.
fn text(fields: &Fields, content: Json) -> Result<String, ApiError> {
    let path = fields.path("content");
    let parts = match content {
        Json::String(text) => return Ok(text),
        Json::Array(parts) => parts,
        other => return Err(wrong(&path, "a string or a list of parts", &other)),
    };
    let mut text = String::new();
    for (index, part) in parts.into_iter().enumerate() {
        let mut part = fields.within(&format!("{path}[{index}]"), part)?;
        let kind = part.text("type")?.ok_or_else(|| missing(&part.path("type")))?;
        let field = match kind.as_str() {
            "text" => "text",
            "refusal" => "refusal",
            _ => {
                let (path, kind) = (part.path("type"), shown(&Json::from(kind)));
                let message = format!("`{path}` {kind} is not supported: the model reads text only");
                return Err(ApiError::bad_request("unsupported_content", Some(&path), message));
            }
        };
        text.push_str(&part.text(field)?.ok_or_else(|| missing(&part.path(field)))?);
    }
    Ok(text)
}
