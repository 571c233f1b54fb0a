//! Which tokens end a sequence.

use std::path::Path;

use engine_format::engine_dir::GENERATION_CONFIG_FILE;
use engine_format::json::{self, Object};
use engine_format::{EngineDir, FormatError, Result};
use serde_json::Value;

use crate::TokenId;
use crate::tokenizer::{LazyTokenizer, Tokenizer};

/// The model's end ids: `eos_token_id` of `generation_config.json`, a number or a list; where it has none, the
/// tokenizer's `eos_token`; only then is the tokenizer asked for.
///
/// # Errors
/// An invalid `generation_config.json`.
pub fn end_ids(engine: &EngineDir, tokenizer: Option<&LazyTokenizer>) -> Result<Vec<TokenId>> {
    let path = engine.path().join(GENERATION_CONFIG_FILE);
    if engine.has_file(GENERATION_CONFIG_FILE) {
        let value = json::read_file(&path, "")?;
        if let Some(ids) = parse(&path, &value, engine.config().vocab_size)? {
            return Ok(ids);
        }
    }
    Ok(tokenizer.and_then(|tokenizer| tokenizer.get().ok()).and_then(Tokenizer::eos_id).into_iter().collect())
}

/// An id outside the vocabulary cannot be generated, so it ends nothing and is left out.
fn parse(path: &Path, value: &Value, vocab_size: usize) -> Result<Option<Vec<TokenId>>> {
    let Some(value) = Object::root(path, value)?.get("eos_token_id") else { return Ok(None) };
    let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    let ids: Option<Vec<_>> = list.iter().map(Value::as_i64).collect();
    let problem = format!("must be a token id, or a list of them, not `{value}`");
    let ids = ids.ok_or_else(|| FormatError::field(path, "eos_token_id", problem))?;
    let in_vocabulary = |&id: &i64| usize::try_from(id).is_ok_and(|id| id < vocab_size);
    Ok(Some(ids.into_iter().filter(in_vocabulary).map(|id| id as TokenId).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_several_or_none() {
        let parse = |value: Value| parse(Path::new("generation_config.json"), &value, 10);
        assert_eq!(parse(json!({ "eos_token_id": 2 })).unwrap(), Some(vec![2]));
        assert_eq!(parse(json!({ "eos_token_id": [2, 7] })).unwrap(), Some(vec![2, 7]));
        assert_eq!(parse(json!({ "eos_token_id": null })).unwrap(), None);
        assert_eq!(parse(json!({})).unwrap(), None);
        assert_eq!(parse(json!({ "eos_token_id": [10, -1, 9] })).unwrap(), Some(vec![9]));
        for wrong in [json!("2"), json!([2, 1.5])] {
            let error = parse(json!({ "eos_token_id": wrong })).unwrap_err().to_string();
            assert!(error.contains("eos_token_id"), "{error}");
        }
    }
}
