//! What a template can be given besides messages.

use serde_json::{Map, Value as Json};

use super::ChatError;

/// How a conversation becomes a prompt.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ChatOptions {
    /// The template by its name; `None` for the model's choice: `tool_use` where there are tools and it has one, else `default`.
    pub chat_template: Option<String>,
    /// Descriptions of functions that the model may call, as objects; `tools` in the template.
    pub tools: Option<Vec<Json>>,
    /// Texts that the model may use, as objects; `documents` in the template.
    pub documents: Option<Vec<Json>>,
    /// Further variables of the template.
    pub chat_template_kwargs: Map<String, Json>,
    /// A system message, for a conversation that does not begin with one.
    pub system: Option<String>,
    /// Whether the template writes the beginning of an answer; it does, unless this is `false`.
    pub add_generation_prompt: Option<bool>,
    /// Whether the prompt ends within the last message, for the model to go on with, rather than where an answer begins.
    pub continue_final_message: bool,
}

/// Variables that are not the caller's to set.
const TAKEN: [&str; 4] = ["messages", "tools", "documents", "add_generation_prompt"];

impl ChatOptions {
    /// Checks what does not depend on a template.
    pub(super) fn check(&self) -> Result<(), ChatError> {
        if self.continue_final_message && self.add_generation_prompt == Some(true) {
            let problem = "add_generation_prompt and continue_final_message exclude each other".to_owned();
            return Err(ChatError::Option { field: "continue_final_message", problem });
        }
        objects("tools", "a tool's description", self.tools.as_deref())?;
        objects("documents", "a document", self.documents.as_deref())?;
        match TAKEN.into_iter().find(|name| self.chat_template_kwargs.contains_key(*name)) {
            None => Ok(()),
            Some(name) => {
                let problem = format!("chat_template_kwargs cannot set `{name}`, which has its own place");
                Err(ChatError::Option { field: "chat_template_kwargs", problem })
            }
        }
    }
}

fn objects(field: &'static str, what: &str, list: Option<&[Json]>) -> Result<(), ChatError> {
    match list.unwrap_or_default().iter().position(|value| !value.is_object()) {
        None => Ok(()),
        Some(index) => {
            let problem = format!("{field}: number {} is not an object, which {what} has to be", index + 1);
            Err(ChatError::Option { field, problem })
        }
    }
}
