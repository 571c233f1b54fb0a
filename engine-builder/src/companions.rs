//! The tokenizer's files and what else travels with a model: checked as a run will open them, and copied as they are.
//!
//! Only `generation_config.json` may change on the way: it says which tokens end an output, and a run asks nothing else. A model
//! without one gets one from the end ids of its `config.json`, as Transformers does, and the tokenizer's `eos_token` joins the
//! end ids where it is another.

use std::path::Path;

use engine_format::FormatError;
use engine_format::checkpoint::CONFIG_FILE;
use engine_format::engine_dir::{GENERATION_CONFIG_FILE, read_companions};
use engine_format::json::read_file;
use serde_json::{Value, json};
use text::end_ids;
use text::model_files;

use crate::error::{BuildError, Result};

/// The files that travel with a model.
#[derive(Debug, Default)]
pub(crate) struct Companions {
    /// Paths inside the model's directory, and contents.
    pub(crate) files: Vec<File>,
    /// What a user is to know about them, as sentences.
    pub(crate) warnings: Vec<String>,
}

/// A file's path inside the model's directory, and its content.
pub(crate) type File = (String, Vec<u8>);

/// Calls `act` with a temporary directory that holds `files`.
pub(crate) fn with_files<T>(files: &[File], act: impl FnOnce(&Path) -> T) -> Result<T> {
    let io = FormatError::io;
    let dir = tempfile::tempdir().map_err(io("create", &std::env::temp_dir()))?;
    for (name, content) in files {
        let file = dir.path().join(name);
        if let Some(folder) = file.parent().filter(|folder| !folder.exists()) {
            std::fs::create_dir(folder).map_err(io("create", folder))?;
        }
        std::fs::write(&file, content).map_err(io("write", &file))?;
    }
    Ok(act(dir.path()))
}

/// As [`read`], of the files of a model that is one file, `path`: what is said of them is said of that.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_files(path: &Path, files: &[File], vocab_size: usize) -> Result<Companions> {
    with_files(files, |dir| {
        let named = |text: String| text.replace(&dir.display().to_string(), &path.display().to_string());
        match read(dir, vocab_size) {
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
    })?
}

/// Reads and checks the companions of the model in `dir`, whose vocabulary has `vocab_size` tokens.
///
/// # Errors
/// A file that is there and cannot be read, or that a run would refuse.
pub(crate) fn read(dir: &Path, vocab_size: usize) -> Result<Companions> {
    let mut files = read_companions(dir)?;
    files.retain(|(name, _)| name != GENERATION_CONFIG_FILE);
    let model_files::Checked { eos_id, mut warnings } = model_files::check(dir, vocab_size)?;
    match generation_config(dir, vocab_size, eos_id, &mut warnings)? {
        Some(content) => files.push((GENERATION_CONFIG_FILE.to_owned(), content)),
        None => warnings.push(
            "no token ends an output: neither eos_token_id of generation_config.json or config.json nor eos_token of \
             tokenizer_config.json names one"
                .to_owned(),
        ),
    }
    Ok(Companions { files, warnings })
}

/// The engine's `generation_config.json`: the model's, to whose end ids the tokenizer's is added.
fn generation_config(
    dir: &Path,
    vocab_size: usize,
    eos: Option<u32>,
    warnings: &mut Vec<String>,
) -> Result<Option<Vec<u8>>> {
    let mut path = dir.join(GENERATION_CONFIG_FILE);
    let (own, mut value) = match std::fs::read(&path) {
        Ok(content) => (Some(content), read_file(&path, "")?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            path = dir.join(CONFIG_FILE);
            // A directory with a tokenizer and no model has none.
            let config = if path.is_file() { read_file(&path, "")? } else { Value::Null };
            (None, generation_part(&config))
        }
        Err(error) => return Err(FormatError::io("read", &path)(error).into()),
    };
    let listed = end_ids::listed(&path, &value, vocab_size)?.unwrap_or_default();
    let all = end_ids::union(listed.clone(), eos);
    if all == listed {
        let is_there = own.is_some() || value.get("eos_token_id").is_some();
        return Ok(is_there.then(|| own.unwrap_or_else(|| value.to_string().into_bytes())));
    }
    if !listed.is_empty() {
        let ids = |ids: &[u32]| ids.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
        warnings.push(format!(
            "outputs end at {}: {} of generation_config.json, and eos_token of the tokenizer",
            ids(&all),
            ids(&listed)
        ));
    }
    value["eos_token_id"] = Value::from(all);
    Ok(Some(value.to_string().into_bytes()))
}

/// What a model without a `generation_config.json` would have in it, of its `config.json`.
fn generation_part(config: &Value) -> Value {
    let ends = config.get("eos_token_id").filter(|ends| !ends.is_null());
    ends.map_or_else(|| json!({}), |ends| json!({ "eos_token_id": ends }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generation_config_of(files: &[(&str, &str)]) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        for (name, content) in files {
            std::fs::write(dir.path().join(name), content).unwrap();
        }
        let companions = read(dir.path(), 10).unwrap();
        let file = companions.files.into_iter().find(|(name, _)| name == GENERATION_CONFIG_FILE)?;
        Some(String::from_utf8(file.1).unwrap())
    }

    #[test]
    fn end_ids_of_the_configuration_become_a_generation_config() {
        let config = (CONFIG_FILE, r#"{"eos_token_id": [2, 7], "bos_token_id": 1}"#);
        assert_eq!(generation_config_of(&[config]).unwrap(), r#"{"eos_token_id":[2,7]}"#);
        let own = "{\"eos_token_id\":  2}";
        assert_eq!(generation_config_of(&[config, (GENERATION_CONFIG_FILE, own)]).unwrap(), own, "as it is");
        assert_eq!(generation_config_of(&[(CONFIG_FILE, "{}")]), None);
    }

    #[test]
    fn the_tokenizers_end_joins_the_others() {
        let tokenizer = r#"{"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0, "c": 1, "d": 2, "e": 3, "b": 4}, "unk_token": "a"}}"#;
        let config = (CONFIG_FILE, r#"{"eos_token_id": 2}"#);
        let files = |eos| [config, ("tokenizer.json", tokenizer), ("tokenizer_config.json", eos)];
        let ends = |eos| generation_config_of(&files(eos)).unwrap();
        assert_eq!(ends(r#"{"eos_token": "b"}"#), r#"{"eos_token_id":[2,4]}"#);
        assert_eq!(ends(r#"{"eos_token": null}"#), r#"{"eos_token_id":2}"#);
        assert_eq!(ends(r#"{"eos_token": "new"}"#), r#"{"eos_token_id":[2,5]}"#);
        let many = r#"{"eos_token": "z", "extra_special_tokens": ["c", "d", "e", "f", "g", "h", "i"]}"#;
        assert_eq!(ends(many), r#"{"eos_token_id":[2,5]}"#, "named tokens come first");
        let own = (GENERATION_CONFIG_FILE, r#"{"temperature": 0.5, "eos_token_id": [3]}"#);
        let files = [own, config, ("tokenizer.json", tokenizer), ("tokenizer_config.json", r#"{"eos_token": "b"}"#)];
        let both: Value = serde_json::from_str(&generation_config_of(&files).unwrap()).unwrap();
        assert_eq!(both, json!({"temperature": 0.5, "eos_token_id": [3, 4]}));
    }
}
