//! A prompt that ends within the last message, found as Transformers finds it: by a mark at the message's end.

use serde_json::Value as Json;

use super::{ChatError, Message, Rendered};

/// What is put behind the last message's text. The blank shows whether the template strips messages.
const MARK: &str = "CONTINUE_FINAL_MESSAGE_TAG ";

fn refused(problem: &str) -> ChatError {
    ChatError::Option { field: "continue_final_message", problem: format!("continue_final_message: {problem}") }
}

/// Puts the mark behind the last message's text, which is returned.
pub(super) fn mark(messages: &mut [Message]) -> Result<String, ChatError> {
    let last = messages.last_mut().ok_or_else(|| refused("the conversation is empty"))?;
    let text = match last.0.get_mut("content") {
        Some(Json::String(text)) => Some(text),
        Some(Json::Array(parts)) => parts.iter_mut().rev().find_map(|part| match part.get_mut("text") {
            Some(Json::String(text)) => Some(text),
            _ => None,
        }),
        _ => None,
    };
    let text = text.ok_or_else(|| refused("the last message has no text to go on with"))?;
    let original = text.clone();
    text.push_str(MARK);
    Ok(original)
}

/// The prompt up to the mark.
pub(super) fn cut(mut prompt: Rendered, text: &str) -> Result<Rendered, ChatError> {
    let whole = prompt.as_str();
    let at = whole.rfind(MARK.trim_end()).filter(|_| whole.contains(text.trim()));
    let at = at.ok_or_else(|| refused("the chat template does not print the last message as it is"))?;
    let stripped = !whole[at..].starts_with(MARK);
    let length = if stripped { whole[..at].trim_end().len() } else { at };
    prompt.truncate(length);
    Ok(prompt)
}
