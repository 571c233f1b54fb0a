//! The tokenizer's files and what else travels with a model, copied as they are.
//!
//! A model without `generation_config.json` gets one from the end ids of its `config.json`, as Transformers does: nothing
//! else would tell a run where to stop.

use std::path::Path;

use engine_format::FormatError;
use engine_format::checkpoint::CONFIG_FILE;
use engine_format::engine_dir::{COMPANION_FILES, GENERATION_CONFIG_FILE};
use engine_format::json;
use serde_json::{Map, Value};

use crate::error::Result;

/// The companion files that the directory has, with their content.
///
/// # Errors
/// A file that is there and cannot be read.
pub(crate) fn read(dir: &Path) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let mut files = Vec::new();
    for name in COMPANION_FILES {
        let path = dir.join(name);
        match std::fs::read(&path) {
            Ok(content) => files.push((name, content)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if name == GENERATION_CONFIG_FILE
                    && let Some(content) = generation_config(&dir.join(CONFIG_FILE))?
                {
                    files.push((name, content));
                }
            }
            Err(error) => return Err(FormatError::io("read", &path)(error).into()),
        }
    }
    Ok(files)
}

/// The part of a model's `config.json` that Transformers puts into `generation_config.json`; `None` when it has none.
fn generation_config(config: &Path) -> Result<Option<Vec<u8>>> {
    let value = json::read_file(config, "a model directory needs one")?;
    let fields = ["bos_token_id", "eos_token_id"].into_iter().filter_map(|field| {
        let id = value.get(field).filter(|id| !id.is_null())?;
        Some((field.to_owned(), id.clone()))
    });
    let generation: Map<String, Value> = fields.collect();
    Ok(generation.contains_key("eos_token_id").then(|| Value::Object(generation).to_string().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_ids_of_the_configuration_become_a_generation_config() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(CONFIG_FILE), r#"{"eos_token_id": [2, 7], "bos_token_id": null}"#).unwrap();
        assert_eq!(read(dir.path()).unwrap(), [(GENERATION_CONFIG_FILE, br#"{"eos_token_id":[2,7]}"#.to_vec())]);
        std::fs::write(dir.path().join(GENERATION_CONFIG_FILE), "{}").unwrap();
        assert_eq!(read(dir.path()).unwrap(), [(GENERATION_CONFIG_FILE, b"{}".to_vec())]);
        std::fs::remove_file(dir.path().join(GENERATION_CONFIG_FILE)).unwrap();
        std::fs::write(dir.path().join(CONFIG_FILE), "{}").unwrap();
        assert_eq!(read(dir.path()).unwrap(), []);
    }
}
