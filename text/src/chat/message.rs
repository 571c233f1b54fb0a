//! Messages, and how people type them.

use jinja::Variable;
use serde_json::{Map, Value as Json};

use super::ChatError;

/// One turn of a conversation: an object with at least a `role`; templates may know further fields.
#[derive(Debug, Clone, PartialEq)]
pub struct Message(pub(super) Map<String, Json>);

impl Message {
    /// A message of one text.
    pub fn new(role: &str, content: &str) -> Self {
        let field = |name: &str, text: &str| (name.to_owned(), Json::String(text.to_owned()));
        Self(Map::from_iter([field("role", role), field("content", content)]))
    }

    /// Who speaks: `system`, `user`, `assistant`, `tool` or whatever the template knows.
    pub fn role(&self) -> &str {
        self.0.get("role").and_then(Json::as_str).unwrap_or_default()
    }

    /// A field by its name, such as `content`.
    pub fn get(&self, field: &str) -> Option<&Json> {
        self.0.get(field)
    }

    /// Its fields, as JSON has them.
    pub fn into_fields(self) -> Map<String, Json> {
        self.0
    }

    /// The message as templates read it. Reasoning has several names in the wild, and is there under those that templates use,
    /// as in Transformers. A role that is a plain name is the template's word: some make control tokens of it.
    pub(super) fn for_templates(&self) -> Result<Variable, jinja::Error> {
        let names = ["reasoning_content", "thinking", "reasoning"];
        let reasoning = names.into_iter().find_map(|name| self.0.get(name).filter(|value| !value.is_null()));
        let mut fields = Map::new();
        if let Some(reasoning) = reasoning {
            fields.insert("thinking".to_owned(), reasoning.clone());
        }
        fields.extend(self.0.clone());
        if let Some(reasoning) = reasoning {
            fields.insert("reasoning_content".to_owned(), reasoning.clone());
        }
        let is_plain = |role: &str| role.chars().all(|c| c.is_ascii_alphanumeric() || "_-".contains(c));
        let fields = fields.iter().map(|(name, value)| {
            let value = match value {
                Json::String(role) if name == "role" && is_plain(role) => Variable::own(role),
                value => Variable::input(value)?,
            };
            Ok((name.as_str(), value))
        });
        Variable::dict(fields.collect::<Result<Vec<_>, jinja::Error>>()?)
    }

    /// A message as JSON has it, fields that are null included.
    ///
    /// # Errors
    /// It has no `role`, or neither `content` nor `tool_calls`, or they are of the wrong kind.
    pub fn from_json(value: Json) -> Result<Self, ChatError> {
        Self::checked(value).map_err(|problem| ChatError::Messages { problem: format!("the message {problem}") })
    }

    fn checked(value: Json) -> Result<Self, &'static str> {
        let Json::Object(fields) = value else {
            return Err("is not an object");
        };
        match fields.get("role") {
            Some(Json::String(role)) if !role.is_empty() => {}
            None | Some(Json::Null) => return Err("has no role"),
            Some(_) => return Err("has a role that is no text"),
        }
        match fields.get("content") {
            Some(Json::String(_) | Json::Array(_)) => {}
            None | Some(Json::Null) if fields.contains_key("tool_calls") => {}
            None | Some(Json::Null) => return Err("has no content"),
            Some(_) => return Err("has a content that is neither text nor a list of parts"),
        }
        Ok(Self(fields))
    }
}

/// Reads a conversation as people type it: a JSON list of messages, or else a plain text, which becomes one user message.
/// A text that begins as a list of objects does, `[{`, has to be one.
///
/// # Errors
/// The text is a JSON list, but not one of messages, or it begins as one and is not JSON.
pub fn parse_messages(text: &str) -> Result<Vec<Message>, ChatError> {
    match serde_json::from_str(text) {
        Ok(Json::Array(list)) => messages_from_json(list),
        Err(error) if begins_a_list_of_objects(text) => {
            Err(ChatError::Messages { problem: format!("the list of messages is not valid JSON: {error}") })
        }
        _ => Ok(vec![Message::new("user", text)]),
    }
}

fn begins_a_list_of_objects(text: &str) -> bool {
    text.trim_start().strip_prefix('[').is_some_and(|rest| rest.trim_start().starts_with('{'))
}

/// A conversation of a JSON list. Fields of a message that are null count as absent, as they do in Transformers'
/// `apply_chat_template`.
///
/// # Errors
/// The list is empty, or one of its values is no message.
pub fn messages_from_json(list: Vec<Json>) -> Result<Vec<Message>, ChatError> {
    if list.is_empty() {
        let problem = "the list of messages is empty".to_owned();
        return Err(ChatError::Messages { problem });
    }
    let numbered = list.into_iter().zip(1..);
    let messages = numbered.map(|(value, number): (Json, usize)| {
        let mut message = Message::checked(value)
            .map_err(|problem| ChatError::Messages { problem: format!("message {number} {problem}") })?;
        message.0.retain(|_, value| !value.is_null());
        Ok(message)
    });
    messages.collect()
}
