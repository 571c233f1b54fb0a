//! The files of a tokenizer, made of a model's metadata: `tokenizer.json`, `tokenizer_config.json`, the chat template, and
//! `generation_config.json` with the ids that end an output. They are checked and read as those of any other model.

mod byte_level;
mod sentencepiece;
mod vocabulary;

use std::path::Path;

use engine_format::ModelConfig;
use engine_format::engine_dir::{CHAT_TEMPLATES_DIR, GENERATION_CONFIG_FILE, TOKENIZER_FILE};
use serde_json::{Map, Value, json};

use super::source::Metadata;
use crate::companions::{self, Companions, File};
use crate::error::Result;
use crate::huggingface::config::CONFIG_FILE;
use vocabulary::Vocabulary;

/// The key of the default chat template; others have a dot and their name behind it.
const CHAT_TEMPLATE: &str = "tokenizer.chat_template";

/// The companions of the model at `path`.
///
/// # Errors
/// Metadata that contradicts itself, by its key. A tokenizer of a kind that is not known is a warning.
pub(crate) fn companions(path: &Path, metadata: &Metadata, config: &ModelConfig) -> Result<Companions> {
    let mut warning = None;
    let mut files =
        vec![(CONFIG_FILE.to_owned(), json!({ "architectures": [config.architecture.name()] }).to_string().into())];
    if let Some(vocabulary) = Vocabulary::read(path, metadata)? {
        match tokenizer(path, metadata, &vocabulary)? {
            Ok(tokenizer) => {
                files.push((TOKENIZER_FILE.to_owned(), tokenizer.to_string().into()));
                files.push(("tokenizer_config.json".to_owned(), vocabulary.config().to_string().into()));
            }
            Err(problem) => {
                let advice = "name a directory with the model's `tokenizer.json` by `tokenizer`";
                warning = Some(format!("`{}`: {problem}: {advice}", path.display()));
            }
        }
        files.push((
            GENERATION_CONFIG_FILE.to_owned(),
            json!({ "eos_token_id": vocabulary.end_ids() }).to_string().into(),
        ));
    }
    files.extend(templates(metadata));
    let mut companions = companions::read_files(path, &files, config.vocab_size)?;
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
        let template = value.as_str()?.as_bytes().to_vec();
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

/// A JSON object of all tokens with their ids, but for those that only fill up the vocabulary.
fn ids_of(vocabulary: &Vocabulary<'_>) -> Map<String, Value> {
    vocabulary.used().map(|(id, text)| (text.to_owned(), Value::from(id))).collect()
}
