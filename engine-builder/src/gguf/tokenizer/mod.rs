//! The files of a tokenizer, made of a model's metadata: `tokenizer.json`, `tokenizer_config.json`, the chat template, and
//! `generation_config.json` with the ids that end an output. They are checked and read as those of any other model.

mod byte_level;
mod sentencepiece;
mod vocabulary;

use std::path::Path;

use engine_format::engine_dir::{CHAT_TEMPLATES_DIR, GENERATION_CONFIG_FILE, TOKENIZER_FILE};
use engine_format::{FormatError, ModelConfig};
use serde_json::{Map, Value, json};

use super::source::Metadata;
use crate::companions::{self, Companions};
use crate::error::{BuildError, Result};
use crate::huggingface::config::CONFIG_FILE;
use vocabulary::Vocabulary;

/// The key of the default chat template; others have a dot and their name behind it.
const CHAT_TEMPLATE: &str = "tokenizer.chat_template";

/// A file's name and its content.
type File = (String, String);

/// The companions of the model at `path`.
///
/// # Errors
/// Metadata that contradicts itself, by its key. A tokenizer of a kind that is not known is a warning.
pub(crate) fn companions(path: &Path, metadata: &Metadata, config: &ModelConfig) -> Result<Companions> {
    let mut warning = None;
    let mut files =
        vec![(CONFIG_FILE.to_owned(), json!({ "architectures": [config.architecture.name()] }).to_string())];
    if let Some(vocabulary) = Vocabulary::read(path, metadata)? {
        match tokenizer(path, metadata, &vocabulary)? {
            Ok(tokenizer) => {
                files.push((TOKENIZER_FILE.to_owned(), tokenizer.to_string()));
                files.push(("tokenizer_config.json".to_owned(), vocabulary.config().to_string()));
            }
            Err(problem) => {
                let advice = "name a directory with the model's `tokenizer.json` by `tokenizer`";
                warning = Some(format!("`{}`: {problem}: {advice}", path.display()));
            }
        }
        files.push((GENERATION_CONFIG_FILE.to_owned(), json!({ "eos_token_id": vocabulary.end_ids() }).to_string()));
    }
    files.extend(templates(metadata));
    let mut companions = read(path, &files, config.vocab_size)?;
    companions.warnings.extend(warning);
    Ok(companions)
}

/// `tokenizer.json`, or why there is none.
fn tokenizer(path: &Path, metadata: &Metadata, vocabulary: &Vocabulary<'_>) -> Result<Result<Value, String>> {
    let made = match vocabulary.model {
        "gpt2" => byte_level::tokenizer(path, metadata, vocabulary)?,
        "llama" => Ok(sentencepiece::tokenizer(path, metadata, vocabulary)?),
        other => Err(format!("its tokenizer is `{other}`, which is not known (known: gpt2, llama)")),
    };
    Ok(made.map(|parts| {
        let mut root = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": vocabulary.added_tokens(),
            "post_processor": vocabulary.post_processor(),
        });
        for (name, part) in parts {
            root[name] = part;
        }
        root
    }))
}

/// The parts of `tokenizer.json` in which kinds of tokenizers differ.
type Parts = [(&'static str, Value); 4];

fn templates(metadata: &Metadata) -> Vec<File> {
    let named = metadata.iter().filter_map(|(key, value)| {
        let name = key.strip_prefix(CHAT_TEMPLATE)?;
        let template = value.as_str()?.to_owned();
        let is_name = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
        match name.strip_prefix('.') {
            None if name.is_empty() => Some(("chat_template.jinja".to_owned(), template)),
            Some(name) if !name.is_empty() && is_name(name) => {
                Some((format!("{CHAT_TEMPLATES_DIR}/{name}.jinja"), template))
            }
            _ => None,
        }
    });
    named.collect()
}

/// Reads the files as those of a model's directory.
fn read(path: &Path, files: &[File], vocab_size: usize) -> Result<Companions> {
    let io = FormatError::io;
    let dir = tempfile::tempdir().map_err(io("create", &std::env::temp_dir()))?;
    for (name, content) in files {
        let file = dir.path().join(name);
        if let Some(folder) = file.parent().filter(|folder| !folder.exists()) {
            std::fs::create_dir(folder).map_err(io("create", folder))?;
        }
        std::fs::write(&file, content).map_err(io("write", &file))?;
    }
    // What is said of a file is said of the model that it was made of.
    let named = |text: String| text.replace(&dir.path().display().to_string(), &path.display().to_string());
    match companions::read(dir.path(), vocab_size) {
        Ok(mut companions) => {
            companions.warnings = companions.warnings.into_iter().map(named).collect();
            Ok(companions)
        }
        Err(error @ (BuildError::Format(_) | BuildError::Tokenizer(_))) => {
            let problem = engine_format::error::with_causes(&error);
            Err(FormatError::damaged(path, format!("its tokenizer cannot be used: {}", named(problem))).into())
        }
        Err(error) => Err(error),
    }
}

/// A JSON object of all tokens with their ids, but for those that only fill up the vocabulary.
fn ids_of(vocabulary: &Vocabulary<'_>) -> Map<String, Value> {
    vocabulary.used().map(|(id, text)| (text.to_owned(), Value::from(id))).collect()
}
