//! Content that is a list of parts, for templates that want text.

use serde_json::{Value as Json, json};

use super::{ChatError, Message, Rendered};

/// A word that no template has.
const PROBE: &str = "PARTS-PROBE";

pub(super) fn has_parts(message: &Message) -> bool {
    message.get("content").is_some_and(Json::is_array)
}

/// Whether a template takes the text out of parts: it is run on one message of one part. Where it prints the list itself, or
/// fails, it wants text.
pub(super) fn are_read(run: impl Fn(&[Message]) -> Result<Rendered, ChatError>) -> bool {
    let probe = json!({"role": "user", "content": [{"type": "text", "text": PROBE}]});
    let Json::Object(probe) = probe else { return false };
    run(&[Message(probe)]).is_ok_and(|rendered| {
        let text = rendered.as_str();
        text.contains(PROBE) && !["'text'", "\"text\""].iter().any(|key| text.contains(key))
    })
}

/// Makes a list of text parts one text, with a newline between parts, as vLLM and llama.cpp do.
pub(super) fn join_parts((index, message): (usize, &mut Message)) -> Result<(), ChatError> {
    let Some(Json::Array(parts)) = message.0.get("content") else { return Ok(()) };
    let text = |(number, part): (usize, &Json)| match (part.as_str(), part.get("text").and_then(Json::as_str)) {
        (Some(text), _) | (None, Some(text)) => Ok(text.to_owned()),
        (None, None) => {
            let kind = part.get("type").and_then(Json::as_str).unwrap_or("unknown");
            let problem = format!(
                "message {} has a part that is no text (messages[{index}].content[{number}], of type `{kind}`), and the chat \
                 template takes text only",
                index + 1
            );
            Err(ChatError::Messages { problem })
        }
    };
    let joined = parts.iter().enumerate().map(text).collect::<Result<Vec<_>, _>>()?.join("\n");
    message.0.insert("content".to_owned(), joined.into());
    Ok(())
}
