//! `/apply-template` and `/chat_tokenize`: the prompt that a conversation is.

use http::Response;
use runner::request_builder::Prompt;
use serde_json::json;
use text::chat::Rendered;

use crate::error::ApiError;
use crate::http::reply::Body;
use crate::openai::messages;
use crate::openai::start::{Input, Read};

use super::Asked;
use super::tokenize::placed;

/// A body of chat, by the model's template, and the fields of it that have no effect.
pub(super) fn rendered(asked: &mut Asked<'_>) -> Result<(Rendered, Option<String>), ApiError> {
    let Read { asked: wanted, inputs, .. } = messages::read(&mut asked.fields, asked.model, asked.call)?;
    let ignored = asked.ignored(asked.model.unread(&wanted.options, &wanted.more.message_fields))?;
    let Some(Input::Prompt(Prompt::Messages(messages))) = inputs.first() else {
        return Err(ApiError::internal("a conversation was read as no conversation"));
    };
    let rendered = asked.model.builder().render(messages, &wanted.options);
    Ok((rendered.map_err(|error| ApiError::of_build(error, "messages", ""))?, ignored))
}

/// The prompt as text and as tokens.
///
/// # Errors
/// The first field that is wrong, or what the template says.
pub fn apply(asked: &mut Asked<'_>) -> Result<Response<Body>, ApiError> {
    let (rendered, ignored) = rendered(asked)?;
    let tokens = asked.model.tokenizer("messages")?.encode_rendered(&rendered);
    let tokens = tokens.map_err(|error| ApiError::invalid("messages", error.to_string()))?;
    Ok(super::json(&json!({ "prompt": rendered.as_str(), "tokens": tokens }), ignored.as_deref()))
}

/// The same, as TGI answers.
///
/// # Errors
/// As [`apply`].
pub fn chat_tokenize(asked: &mut Asked<'_>) -> Result<Response<Body>, ApiError> {
    let (rendered, ignored) = rendered(asked)?;
    let tokens = asked.model.tokenizer("messages")?.encode_rendered_with_places(&rendered);
    let tokens = tokens.map_err(|error| ApiError::invalid("messages", error.to_string()))?;
    let text = rendered.as_str();
    let answer = json!({ "tokenize_response": placed(text, &tokens), "templated_text": text });
    Ok(super::json(&answer, ignored.as_deref()))
}
