//! Where a model keeps its chat templates.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use engine_format::engine_dir::CHAT_TEMPLATES_DIR;
use engine_format::foreign_file::ForeignFile;
use serde_json::Value as Json;

use super::ChatError;
use crate::tokenizer::{TokenizerError, read_json_object};

/// A template's text and the file that it is in.
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) text: String,
}

/// The templates of a directory by their names. The files `chat_template.jinja` (the default) and
/// `additional_chat_templates/NAME.jinja` replace `chat_template` of `tokenizer_config.json`, as in Transformers;
/// `chat_template.json` is the last to be asked.
pub(super) fn find(dir: &Path) -> Result<BTreeMap<String, Source>, ChatError> {
    let mut sources = files(dir)?;
    for name in ["tokenizer_config.json", "chat_template.json"] {
        if sources.is_empty() {
            sources = field(&dir.join(name))?;
        }
    }
    if sources.is_empty() { Err(ChatError::Missing { dir: dir.to_path_buf() }) } else { Ok(sources) }
}

fn files(dir: &Path) -> Result<BTreeMap<String, Source>, ChatError> {
    let mut sources = BTreeMap::new();
    let mut add = |name: String, path: PathBuf| match std::fs::read_to_string(&path) {
        Ok(text) => match ForeignFile::recognise(text.as_bytes()) {
            // Its text would be a valid template.
            Some(foreign) => Err(TokenizerError::Foreign { detail: foreign.error(&path).to_string() }.into()),
            None => {
                sources.insert(name, Source { path, text });
                Ok(())
            }
        },
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(source) => Err(ChatError::Read { path, source }),
    };
    add("default".to_owned(), dir.join("chat_template.jinja"))?;
    let folder = dir.join(CHAT_TEMPLATES_DIR);
    let unreadable = |source| ChatError::Read { path: folder.clone(), source };
    let entries = match std::fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(sources),
        Err(source) => return Err(unreadable(source)),
    };
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "jinja")
            && let Some(name) = path.file_stem().and_then(|name| name.to_str())
        {
            add(name.to_owned(), path)?;
        }
    }
    Ok(sources)
}

/// `chat_template` of a file: a template, an object of templates, or a list of objects with `name` and `template`.
fn field(path: &Path) -> Result<BTreeMap<String, Source>, ChatError> {
    let mut fields = read_json_object(path)?.unwrap_or_default();
    let wrong = |problem: &str| ChatError::Field { path: path.to_path_buf(), problem: problem.to_owned() };
    let named: Vec<(Json, Json)> = match fields.remove("chat_template") {
        None | Some(Json::Null) => return Ok(BTreeMap::new()),
        Some(text @ Json::String(_)) => vec![("default".into(), text)],
        Some(Json::Object(named)) => named.into_iter().map(|(name, text)| (name.into(), text)).collect(),
        Some(Json::Array(named)) => {
            let named = named.into_iter().map(|mut entry| (entry["name"].take(), entry["template"].take()));
            named.collect()
        }
        Some(_) => return Err(wrong("must be the template's text or a list of {name, template}")),
    };
    let named = named.into_iter().map(|(name, text)| match (name, text) {
        (Json::String(name), Json::String(text)) => Ok((name, Source { path: path.to_path_buf(), text })),
        _ => Err(wrong("every listed template needs a `name` and its text in `template`")),
    });
    named.collect()
}
