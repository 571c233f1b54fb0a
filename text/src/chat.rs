//! Chat templates: from a list of messages to the one text that the model was trained to continue.
//!
//! A template is a Jinja program that comes with the model. It runs here as it does in Transformers' `apply_chat_template`:
//! same white space rules, same functions, Python's spelling of what is printed. It can read what it is given and
//! nothing else.

mod python;
mod strftime;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use minijinja::value::{Kwargs, Value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind};
use serde_json::{Map, Value as Json};

use crate::tokenizer::{SpecialTokens, TokenizerError, read_json_object};

/// Why messages could not become a prompt.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The model has no chat template.
    #[error(
        "{} has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json): it may be a base model; \
         give the prompt as plain text, or put the template into chat_template.jinja there",
        dir.display()
    )]
    Missing {
        /// The directory that was looked at.
        dir: PathBuf,
    },
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The tokenizer's configuration cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// `chat_template` has a value that is no template.
    #[error("{}: chat_template: {problem}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// What is wrong with it and what to do.
        problem: String,
    },
    /// The template is not valid, or it failed on these messages.
    #[error("chat template of {}: {detail}; correct the template, or the messages if it expects others", path.display())]
    Template {
        /// The file that the template came from.
        path: PathBuf,
        /// What went wrong, with the line.
        detail: String,
    },
    /// The template itself refused the messages, with `raise_exception`.
    #[error("the chat template refuses these messages: {message}")]
    Refused {
        /// The template's own words.
        message: String,
    },
    /// The input is a JSON list, and not one of messages.
    #[error(
        "{problem}; expected a list like [{{\"role\": \"user\", \"content\": \"Hello\"}}], or plain text for one user message"
    )]
    Messages {
        /// What is wrong, and in which message.
        problem: String,
    },
}

/// One turn of a conversation: an object with at least a `role`; templates may know further fields.
#[derive(Debug, Clone, PartialEq)]
pub struct Message(Map<String, Json>);

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

/// Reads what `--chat` was given: a JSON list of messages, or else a plain text, which becomes one user message.
/// Fields of a message that are null count as absent, as they do in Transformers' `apply_chat_template`.
///
/// # Errors
/// The text is a JSON list, but not one of messages.
pub fn parse_messages(text: &str) -> Result<Vec<Message>, ChatError> {
    let list = match serde_json::from_str(text) {
        Ok(Json::Array(list)) => list,
        _ => return Ok(vec![Message::new("user", text)]),
    };
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

/// A model's chat template, compiled.
#[derive(Debug)]
pub struct ChatTemplate {
    environment: Environment<'static>,
    special_tokens: SpecialTokens,
    path: PathBuf,
}

/// The name that the template goes by in error messages, before the line number.
const NAME: &str = "template";

impl ChatTemplate {
    /// Opens the template of a model or engine directory: `chat_template.jinja`, or `chat_template` of
    /// `tokenizer_config.json` (a template, or a list of named ones with a `default`), or of `chat_template.json`.
    ///
    /// # Errors
    /// There is none, a file is unreadable or malformed, or the template is not valid.
    pub fn open(dir: &Path) -> Result<Self, ChatError> {
        let (path, source) = find(dir)?;
        let special_tokens = SpecialTokens::read(dir)?;
        let mut environment = environment();
        environment
            .add_template_owned(NAME, without_generation_marks(&source))
            .map_err(|error| failure(&path, &error))?;
        Ok(Self { environment, special_tokens, path })
    }

    /// Renders a conversation; with `add_generation_prompt` the text ends where the assistant's next turn begins.
    /// The result has its own BOS where the template writes one: encode it without special tokens.
    ///
    /// # Errors
    /// The template refuses the messages or fails on them.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, ChatError> {
        self.render_at(messages, add_generation_prompt, SystemTime::now())
    }

    /// [`render`](Self::render) at a given time, which some templates print as today's date (in UTC).
    ///
    /// # Errors
    /// As for `render`.
    pub fn render_at(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        now: SystemTime,
    ) -> Result<String, ChatError> {
        let mut context: BTreeMap<&str, Value> =
            self.special_tokens.iter().map(|(name, text)| (name, Value::from(text))).collect();
        let messages = messages.iter().map(|message| Value::from_serialize(&message.0));
        context.insert("messages", messages.collect());
        context.insert("add_generation_prompt", Value::from(add_generation_prompt));
        context.insert("tools", Value::from(()));
        context.insert("documents", Value::from(()));
        let strftime_now = move |format: &str| {
            strftime::strftime(now, format).map_err(|problem| Error::new(ErrorKind::InvalidOperation, problem))
        };
        context.insert("strftime_now", Value::from_function(strftime_now));
        self.environment
            .get_template(NAME)
            .and_then(|template| template.render(&context))
            .map_err(|error| failure(&self.path, &error))
    }
}

/// The template of a directory and the file that it is in.
fn find(dir: &Path) -> Result<(PathBuf, String), ChatError> {
    let path = dir.join("chat_template.jinja");
    match std::fs::read_to_string(&path) {
        Ok(source) => return Ok((path, source)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(source) => return Err(ChatError::Read { path, source }),
    }
    for name in ["tokenizer_config.json", "chat_template.json"] {
        let path = dir.join(name);
        let mut fields = read_json_object(&path)?.unwrap_or_default();
        let source = match fields.remove("chat_template") {
            None | Some(Json::Null) => continue,
            Some(Json::String(source)) => source,
            Some(Json::Array(named)) => default_of(&named).ok_or_else(|| ChatError::Field {
                path: path.clone(),
                problem: "none of the listed templates is named default with its text in `template`; name one so"
                    .to_owned(),
            })?,
            Some(_) => {
                let problem = "must be the template's text or a list of {name, template}".to_owned();
                return Err(ChatError::Field { path, problem });
            }
        };
        return Ok((path, source));
    }
    Err(ChatError::Missing { dir: dir.to_path_buf() })
}

fn default_of(named: &[Json]) -> Option<String> {
    let default = named.iter().find(|entry| entry.get("name").and_then(Json::as_str) == Some("default"))?;
    default.get("template").and_then(Json::as_str).map(str::to_owned)
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_unknown_method_callback(python::call_method);
    environment.set_formatter(|out, _, value| Ok(out.write_str(&python::str(value))?));
    environment.add_filter("string", |value: &Value| python::str(value));
    environment.add_filter("tojson", |value: &Value, options: Kwargs| python::tojson(value, &options));
    environment.add_function("raise_exception", |message: &Value| -> Result<Value, Error> {
        let message = python::str(message);
        Err(Error::new(ErrorKind::InvalidOperation, message.clone()).with_source(Raised(message)))
    });
    environment
}

/// What a template says with `raise_exception`, so that it is told from other failures.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

fn failure(path: &Path, error: &Error) -> ChatError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(Raised(message)) = error.downcast_ref() {
            return ChatError::Refused { message: message.clone() };
        }
        cause = error.source();
    }
    ChatError::Template { path: path.to_path_buf(), detail: error.to_string() }
}

/// Templates may mark what the assistant wrote with `{% generation %}`, for training; here the marks mean nothing.
fn without_generation_marks(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find("{%") {
        let (before, tag) = rest.split_at(at + 2);
        out.push_str(before);
        rest = tag;
        let end = tag.find("%}").unwrap_or(0);
        let inside = &tag[..end];
        // A condition that always holds has the same white space rules as the mark it stands for.
        let replacement = match inside.trim_matches(|c: char| c.is_whitespace() || "+-".contains(c)) {
            "generation" => inside.replace("generation", "if true"),
            "endgeneration" => inside.replace("endgeneration", "endif"),
            _ => continue,
        };
        out.push_str(&replacement);
        rest = &tag[end..];
    }
    out.push_str(rest);
    out
}
