//! The tokenizer's files in the archive. Their names begin with 32 hexadecimal digits and `_`, so that none meets another.

use std::path::Path;

use engine_format::engine_dir::TOKENIZER_FILE;
use engine_format::json::Object;
use serde_json::Value;

use super::archive::{Archive, MODEL_CONFIG};
use crate::companions::{self, Companions, File};
use crate::error::Result;

/// Files that are taken as they are.
const FILES: [&str; 5] = [
    TOKENIZER_FILE,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
];

/// The tokenizer's files, by the names that Transformers gives them.
pub(super) fn files(archive: &Archive) -> Vec<File> {
    let mut files: Vec<File> = Vec::new();
    for member in archive.names() {
        let name = match member.split_at_checked(32) {
            Some((digits, rest)) if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                rest.strip_prefix('_').unwrap_or(member)
            }
            _ => member,
        };
        let is_new = files.iter().all(|(other, _)| other != name);
        if let Some(found) = archive.member(member).filter(|_| FILES.contains(&name) && is_new) {
            files.push((name.to_owned(), found.bytes.to_vec()));
        }
    }
    files
}

/// The companions of a model whose archive has these files.
pub(super) fn companions(path: &Path, config: &Value, files: &[File], vocab_size: usize) -> Result<Companions> {
    let mut companions = companions::read_files(path, files, vocab_size)?;
    if !files.iter().any(|(name, _)| name == TOKENIZER_FILE) {
        let config_path = path.join(MODEL_CONFIG);
        let root = Object::root(&config_path, config)?;
        let library = root.object("tokenizer")?.map(|tokenizer| tokenizer.string("library")).transpose()?.flatten();
        let library =
            library.map_or_else(String::new, |library| format!(" (its tokenizer is of the kind `{library}`)"));
        let advice = "name a directory with the model's `tokenizer.json` by `tokenizer`";
        companions.warnings.push(format!("`{}` holds no `{TOKENIZER_FILE}`{library}: {advice}", path.display()));
    }
    Ok(companions)
}
