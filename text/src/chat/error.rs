//! Why messages could not become a prompt.

use std::path::PathBuf;

use crate::tokenizer::TokenizerError;

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
    /// The template asked for more time, memory or nesting than it may have.
    #[error(
        "chat template of {}: {detail}; it may not be meant for conversations like this one: shorten the messages, or correct \
         the template", path.display()
    )]
    Budget {
        /// The file that the template came from.
        path: PathBuf,
        /// What it asked too much of, with the line.
        detail: String,
    },
    /// The system refuses the thread that templates run on.
    #[error("the system refuses a thread for the chat template ({0}): allow more threads or memory, and try again")]
    Thread(std::io::Error),
    /// A template was asked for that the model does not have.
    #[error("{} has no chat template named `{name}`: it has {known}", dir.display())]
    Unknown {
        /// The name that was asked for.
        name: String,
        /// The names that it has.
        known: String,
        /// The directory.
        dir: PathBuf,
    },
    /// An option of the conversation cannot be used.
    #[error("{problem}")]
    Option {
        /// The option, by its name in [`ChatOptions`](super::ChatOptions).
        field: &'static str,
        /// What is wrong, as a sentence that names it.
        problem: String,
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
