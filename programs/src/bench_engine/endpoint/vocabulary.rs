//! A vocabulary without its model: what synthetic prompts of ids are made of where the engine is a server's.

use std::path::Path;

use anyhow::{Context, Result, anyhow};
use engine_format::EngineDir;
use engine_format::engine_dir::{GENERATION_CONFIG_FILE, TOKENIZER_FILE};
use engine_format::json;
use engine_format::manifest::MANIFEST_FILE;
use serde_json::Value as Json;
use text::end_ids::{end_ids, listed, union};
use text::tokenizer::LazyTokenizer;

use super::super::workload::Material;

/// The vocabulary of an engine directory, of which no weights are read, or of a model's.
pub(super) fn of(dir: &Path) -> Result<Material> {
    let tokenizer = dir.join(TOKENIZER_FILE).exists().then(|| LazyTokenizer::of(dir));
    if dir.join(MANIFEST_FILE).exists() {
        let engine = EngineDir::open(dir)?;
        let end_ids = end_ids(&engine, tokenizer.as_ref())?;
        return Ok(Material::Ids { vocab_size: engine.config().vocab_size, end_ids });
    }
    let of_config = |name: &str| -> Result<Option<Json>> {
        let path = dir.join(name);
        Ok(if path.exists() { Some(json::read_file(&path, "")?) } else { None })
    };
    let config = of_config("config.json")?;
    let size = |config: &Json| {
        let places = ["/vocab_size", "/text_config/vocab_size", "/pretrained_config/vocab_size"];
        let size = places.into_iter().find_map(|place| config.pointer(place)?.as_u64());
        size.and_then(|size| usize::try_from(size).ok())
    };
    let parsed = tokenizer.as_ref().map(LazyTokenizer::get).transpose()?;
    let vocab_size = config.as_ref().and_then(size).or_else(|| parsed.map(|tokenizer| tokenizer.vocab_size()));
    let vocab_size = vocab_size
        .ok_or_else(|| anyhow!("`{}` holds neither config.json with `vocab_size` nor tokenizer.json", dir.display()));
    let vocab_size = vocab_size.context("--tokenizer must be a model's directory, or an engine's")?;
    let path = dir.join(GENERATION_CONFIG_FILE);
    let listed = of_config(GENERATION_CONFIG_FILE)?.map(|value| listed(&path, &value, vocab_size)).transpose()?;
    let eos = parsed.and_then(|tokenizer| tokenizer.eos_id()).filter(|&id| (id as usize) < vocab_size);
    Ok(Material::Ids { vocab_size, end_ids: union(listed.flatten().unwrap_or_default(), eos) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vocabulary(dir: &Path) -> (usize, Vec<u32>) {
        match of(dir).unwrap() {
            Material::Ids { vocab_size, end_ids } => (vocab_size, end_ids),
            Material::Words => panic!("no ids"),
        }
    }

    #[test]
    fn a_models_files_say_size_and_end_ids() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        let error = format!("{:#}", of(dir.path()).unwrap_err());
        assert!(error.contains("--tokenizer") && error.contains("tokenizer.json"), "{error}");
        write("config.json", r#"{"vocab_size": 9}"#);
        assert_eq!(vocabulary(dir.path()), (9, Vec::new()));
        write("generation_config.json", r#"{"eos_token_id": [2, 11]}"#);
        assert_eq!(vocabulary(dir.path()), (9, vec![2]));
        write("config.json", r#"{"text_config": {"vocab_size": 12}}"#);
        assert_eq!(vocabulary(dir.path()), (12, vec![2, 11]));
        let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../assets/demo-model");
        let (size, ends) = vocabulary(&demo);
        assert!(size > 100 && !ends.is_empty());
    }
}
