//! Chat templates: from a list of messages to the one text that the model was trained to continue.
//!
//! A template is a Jinja program that comes with the model. It runs here as it does in Transformers' `apply_chat_template`:
//! same white space rules, same functions, Python's spelling of what is printed. It can read what it is given and
//! nothing else.

mod continuation;
mod error;
mod message;
mod options;
mod python;
mod source;
mod strftime;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::tokenizer::SpecialTokens;
use minijinja::value::{Kwargs, Value};
use minijinja::{AutoEscape, Environment, Error, ErrorKind};
use source::Source;

pub use error::ChatError;
pub use message::{Message, messages_from_json, parse_messages};
pub use options::ChatOptions;

/// A model's chat templates, compiled.
#[derive(Debug)]
pub struct ChatTemplate {
    dir: PathBuf,
    environment: Environment<'static>,
    special_tokens: SpecialTokens,
    /// The file of each template, by the template's name.
    paths: BTreeMap<String, PathBuf>,
}

impl ChatTemplate {
    /// Opens the templates of a model or engine directory: `chat_template.jinja` and `additional_chat_templates/NAME.jinja`,
    /// or `chat_template` of `tokenizer_config.json` (a template, or named ones), or of `chat_template.json`.
    ///
    /// # Errors
    /// There is none, a file is unreadable or malformed, or a template is not valid.
    pub fn open(dir: &Path) -> Result<Self, ChatError> {
        let sources = source::find(dir)?;
        let special_tokens = SpecialTokens::read(dir)?;
        let mut environment = environment();
        let mut paths = BTreeMap::new();
        for (name, Source { path, text }) in sources {
            environment
                .add_template_owned(name.clone(), without_generation_marks(&text))
                .map_err(|error| failure(&path, &error))?;
            paths.insert(name, path);
        }
        Ok(Self { dir: dir.to_path_buf(), environment, special_tokens, paths })
    }

    /// The names of the templates.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.paths.keys().map(String::as_str)
    }

    /// Renders a conversation, so that the text ends where the assistant's next turn begins, or within the last message where
    /// the options ask for that. The result has its own BOS where the template writes one: encode it without special tokens.
    ///
    /// # Errors
    /// An option cannot be used; the template refuses the messages or fails on them.
    pub fn render(&self, messages: &[Message], options: &ChatOptions) -> Result<String, ChatError> {
        options.check()?;
        let mut messages = messages.to_vec();
        if let Some(system) = &options.system
            && !messages.first().is_some_and(|first| ["system", "developer"].contains(&first.role()))
        {
            messages.insert(0, Message::new("system", system));
        }
        let now = SystemTime::now();
        if !options.continue_final_message {
            return self.render_at(&messages, options, true, now);
        }
        let end = continuation::mark(&mut messages)?;
        let text = self.render_at(&messages, options, false, now)?;
        continuation::cut(text, &end)
    }

    /// Renders messages at a given time, which some templates print as today's date (in UTC); with `add_generation_prompt`
    /// the text ends where the assistant's next turn begins.
    ///
    /// # Errors
    /// As for `render`.
    pub fn render_at(
        &self,
        messages: &[Message],
        options: &ChatOptions,
        add_generation_prompt: bool,
        now: SystemTime,
    ) -> Result<String, ChatError> {
        let (name, path) = self.select(options)?;
        let mut context: BTreeMap<&str, Value> =
            self.special_tokens.iter().map(|(name, text)| (name, Value::from(text))).collect();
        for (name, value) in &options.chat_template_kwargs {
            context.insert(name, Value::from_serialize(value));
        }
        let messages = messages.iter().map(|message| Value::from_serialize(message.for_templates()));
        context.insert("messages", messages.collect());
        context.insert("add_generation_prompt", Value::from(add_generation_prompt));
        context.insert("tools", Value::from_serialize(&options.tools));
        context.insert("documents", Value::from_serialize(&options.documents));
        let strftime_now = move |format: &str| {
            strftime::strftime(now, format).map_err(|problem| Error::new(ErrorKind::InvalidOperation, problem))
        };
        context.insert("strftime_now", Value::from_function(strftime_now));
        self.environment
            .get_template(name)
            .and_then(|template| template.render(&context))
            .map_err(|error| failure(path, &error))
    }

    /// The template that the options ask for, by name and file.
    fn select(&self, options: &ChatOptions) -> Result<(&str, &Path), ChatError> {
        let find = |name: &str| self.paths.get_key_value(name).map(|(name, path)| (name.as_str(), path.as_path()));
        let known = || self.names().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        if let Some(name) = &options.chat_template {
            return find(name).ok_or_else(|| ChatError::Unknown {
                name: name.clone(),
                known: known(),
                dir: self.dir.clone(),
            });
        }
        let tool_use = options.tools.as_ref().and_then(|_| find("tool_use"));
        tool_use.or_else(|| find("default")).ok_or_else(|| ChatError::Option {
            field: "chat_template",
            problem: format!(
                "the model's chat templates have no default: ask for one by chat_template, of {}",
                known()
            ),
        })
    }
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
