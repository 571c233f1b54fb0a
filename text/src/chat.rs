//! Chat templates: from a list of messages to the one text that the model was trained to continue.
//!
//! A template is a Jinja program that comes with the model. It runs here as it does in Transformers' `apply_chat_template`:
//! same white space rules, same functions, Python's spelling of what is printed. It can read what it is given and
//! nothing else, and what it may compute has an end.

mod content;
mod continuation;
mod error;
mod message;
mod options;
mod rendered;
mod source;
mod strftime;

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::SystemTime;

use crate::tokenizer::SpecialTokens;
use jinja::{Template, Variable};
use serde_json::Value as Json;
use source::Source;

pub use error::ChatError;
pub use message::{Message, messages_from_json, parse_messages};
pub use options::ChatOptions;
pub use rendered::Rendered;

/// A model's chat templates, compiled.
#[derive(Debug)]
pub struct ChatTemplate {
    dir: PathBuf,
    special_tokens: SpecialTokens,
    templates: BTreeMap<String, Named>,
}

/// A template and the file that it came from.
#[derive(Debug)]
struct Named {
    path: PathBuf,
    source: String,
    template: Template,
    /// Whether it reads a message's content as a list of parts.
    reads_parts: OnceLock<bool>,
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
        let mut templates = BTreeMap::new();
        for (name, Source { path, text }) in sources {
            let template = Template::parse(&text).map_err(|error| failure(&path, error))?;
            templates.insert(name, Named { path, source: text, template, reads_parts: OnceLock::new() });
        }
        Ok(Self { dir: dir.to_path_buf(), special_tokens, templates })
    }

    /// The names of the templates.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.templates.keys().map(String::as_str)
    }

    /// The Jinja program of a name.
    pub fn source(&self, name: &str) -> Option<&str> {
        self.templates.get(name).map(|named| named.source.as_str())
    }

    /// Renders a conversation, so that the text ends where the assistant's next turn begins, or before that, or within the last
    /// message, where the options ask for it. The result has its own BOS where the template writes one: encode it without special tokens,
    /// by [`Tokenizer::encode_rendered`](crate::tokenizer::Tokenizer::encode_rendered).
    ///
    /// # Errors
    /// An option cannot be used; the template refuses the messages, fails on them, or works for too long.
    pub fn render(&self, messages: &[Message], options: &ChatOptions) -> Result<Rendered, ChatError> {
        options.check()?;
        let mut messages = messages.to_vec();
        if let Some(system) = &options.system
            && !messages.first().is_some_and(|first| ["system", "developer"].contains(&first.role()))
        {
            messages.insert(0, Message::new("system", system));
        }
        let now = SystemTime::now();
        if !options.continue_final_message {
            return self.render_at(&messages, options, options.add_generation_prompt != Some(false), now);
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
    ) -> Result<Rendered, ChatError> {
        let template = self.select(options)?;
        let mut messages = std::borrow::Cow::Borrowed(messages);
        if messages.iter().any(content::has_parts)
            && !*template
                .reads_parts
                .get_or_init(|| content::are_read(|probe| self.run(template, probe, options, true, now)))
        {
            messages.to_mut().iter_mut().enumerate().try_for_each(content::join_parts)?;
        }
        self.run(template, &messages, options, add_generation_prompt, now)
    }

    /// Whether the template that the options ask for reads a variable.
    ///
    /// # Errors
    /// There is no such template.
    pub fn reads(&self, options: &ChatOptions, name: &str) -> Result<bool, ChatError> {
        self.select(options).map(|named| named.template.mentions(name))
    }

    /// Whether the template that the options ask for reads a field of this name, of a message or of whatever it is given.
    ///
    /// # Errors
    /// There is no such template.
    pub fn reads_field(&self, options: &ChatOptions, name: &str) -> Result<bool, ChatError> {
        self.select(options).map(|named| named.template.mentions_field(name))
    }

    /// Runs a template on a stack that its nesting has room on, whatever the caller's.
    fn run(
        &self,
        named: &Named,
        messages: &[Message],
        options: &ChatOptions,
        add_generation_prompt: bool,
        now: SystemTime,
    ) -> Result<Rendered, ChatError> {
        let render = || {
            let variables = self.variables(messages, options, add_generation_prompt)?;
            named
                .template
                .render(variables, &|format| strftime::strftime(now, format))
                .map(|text| Rendered::from(&text))
        };
        let rendered = std::thread::scope(|scope| {
            let thread = system::threads::spawn_scoped(scope, "trtllm-template", render).map_err(ChatError::Thread)?;
            let done = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            done.map_err(|error| failure(&named.path, error))
        })?;
        Ok(rendered)
    }

    fn variables(
        &self,
        messages: &[Message],
        options: &ChatOptions,
        add_generation_prompt: bool,
    ) -> Result<HashMap<String, Variable>, jinja::Error> {
        let list = |values: &Option<Vec<Json>>| values.clone().map_or(Json::Null, Json::Array);
        let mut variables = HashMap::new();
        for (name, text) in self.special_tokens.iter() {
            variables.insert(name.to_owned(), Variable::own(text));
        }
        for (name, value) in &options.chat_template_kwargs {
            variables.insert(name.clone(), Variable::input(value)?);
        }
        let messages = messages.iter().map(Message::for_templates).collect::<Result<Vec<_>, _>>()?;
        variables.insert("messages".to_owned(), Variable::list(messages)?);
        variables.insert("add_generation_prompt".to_owned(), Variable::input(&Json::Bool(add_generation_prompt))?);
        variables.insert("tools".to_owned(), Variable::input(&list(&options.tools))?);
        variables.insert("documents".to_owned(), Variable::input(&list(&options.documents))?);
        Ok(variables)
    }

    /// The template that the options ask for.
    fn select(&self, options: &ChatOptions) -> Result<&Named, ChatError> {
        let known = || self.names().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        if let Some(name) = &options.chat_template {
            return self.templates.get(name).ok_or_else(|| ChatError::Unknown {
                name: name.clone(),
                known: known(),
                dir: self.dir.clone(),
            });
        }
        let tool_use = options.tools.as_ref().and_then(|_| self.templates.get("tool_use"));
        tool_use.or_else(|| self.templates.get("default")).ok_or_else(|| ChatError::Option {
            field: "chat_template",
            problem: format!(
                "the model's chat templates have no default: ask for one by chat_template, of {}",
                known()
            ),
        })
    }
}

fn failure(path: &Path, error: jinja::Error) -> ChatError {
    match error {
        jinja::Error::Raised { message } => ChatError::Refused { message },
        jinja::Error::Budget { .. } => ChatError::Budget { path: path.to_path_buf(), detail: error.to_string() },
        other => ChatError::Template { path: path.to_path_buf(), detail: other.to_string() },
    }
}
