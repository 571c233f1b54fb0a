//! Which tokens end a sequence: `eos_token_id` of `generation_config.json`, and `eos_token` of the tokenizer.
//!
//! A build writes both into the engine's `generation_config.json`, so that a run need not parse a tokenizer to know when to
//! end.

use std::path::Path;

use engine_format::engine_dir::{FOREIGN_TARGET, GENERATION_CONFIG_FILE};
use engine_format::json::{self, Object};
use engine_format::{EngineDir, FormatError, Result};
use serde_json::Value;

use crate::TokenId;
use crate::tokenizer::{LazyTokenizer, SpecialTokens, Tokenizer};

/// The engine's end ids: those of `generation_config.json`. Of an engine that `build-engine` did not make, and of one whose
/// file has none, also the tokenizer's `eos_token`; only then is the tokenizer asked for.
///
/// # Errors
/// An invalid `generation_config.json`.
pub fn end_ids(engine: &EngineDir, tokenizer: Option<&LazyTokenizer>) -> Result<Vec<TokenId>> {
    let vocab_size = engine.config().vocab_size;
    let path = engine.path().join(GENERATION_CONFIG_FILE);
    let listed = match engine.has_file(GENERATION_CONFIG_FILE) {
        true => listed(&path, &json::read_file(&path, "")?, vocab_size)?,
        false => None,
    };
    if listed.is_some() && engine.manifest().target != FOREIGN_TARGET {
        return Ok(listed.unwrap_or_default());
    }
    // A tokenizer that names no end token need not be parsed to know it.
    let names_one = || SpecialTokens::read(engine.path()).is_ok_and(|tokens| tokens.get("eos_token").is_some());
    let tokenizer = tokenizer.filter(|_| names_one()).and_then(|tokenizer| tokenizer.get().ok());
    let eos = tokenizer.and_then(Tokenizer::eos_id).filter(|&id| (id as usize) < vocab_size);
    Ok(union(listed.unwrap_or_default(), eos))
}

/// The end ids of a generation configuration and of a tokenizer together.
pub fn union(mut listed: Vec<TokenId>, eos: Option<TokenId>) -> Vec<TokenId> {
    listed.extend(eos.filter(|eos| !listed.contains(eos)));
    listed
}

/// `eos_token_id` of a generation configuration, a number or a list; `None` where it has none. An id outside the vocabulary
/// cannot be generated, so it ends nothing and is left out.
///
/// # Errors
/// It is neither.
pub fn listed(path: &Path, value: &Value, vocab_size: usize) -> Result<Option<Vec<TokenId>>> {
    let Some(value) = Object::root(path, value)?.get("eos_token_id") else { return Ok(None) };
    let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    let ids: Option<Vec<_>> = list.iter().map(Value::as_i64).collect();
    let problem = format!("must be a token id, or a list of them, not `{value}`");
    let ids = ids.ok_or_else(|| FormatError::field(path, "eos_token_id", problem))?;
    let in_vocabulary = |&id: &i64| usize::try_from(id).is_ok_and(|id| id < vocab_size);
    Ok(Some(ids.into_iter().filter(in_vocabulary).map(|id| id as TokenId).collect()))
}

/// Why an engine has no end ids, and what ends an output then.
pub fn why_none(engine: &EngineDir) -> String {
    let size = engine.config().vocab_size;
    let cause = match SpecialTokens::read(engine.path()).ok().as_ref().and_then(|tokens| tokens.get("eos_token")) {
        Some(token) => format!("eos_token {token:?} of the tokenizer is none of the model's {size} tokens"),
        None => {
            "neither eos_token_id of generation_config.json nor eos_token of tokenizer_config.json names one".to_owned()
        }
    };
    format!(
        "no token ends an output: {cause}; outputs end at their largest length, a stop text or an end id of the request"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_several_or_none() {
        let listed = |value: Value| listed(Path::new("generation_config.json"), &value, 10);
        assert_eq!(listed(json!({ "eos_token_id": 2 })).unwrap(), Some(vec![2]));
        assert_eq!(listed(json!({ "eos_token_id": [2, 7] })).unwrap(), Some(vec![2, 7]));
        assert_eq!(listed(json!({ "eos_token_id": null })).unwrap(), None);
        assert_eq!(listed(json!({})).unwrap(), None);
        assert_eq!(listed(json!({ "eos_token_id": [10, -1, 9] })).unwrap(), Some(vec![9]));
        for wrong in [json!("2"), json!([2, 1.5]), json!("NaN")] {
            let error = listed(json!({ "eos_token_id": wrong })).unwrap_err().to_string();
            assert!(error.contains("eos_token_id"), "{error}");
        }
    }

    #[test]
    fn the_tokenizers_end_joins_the_others() {
        assert_eq!(union(vec![2], Some(4)), [2, 4]);
        assert_eq!(union(vec![2, 4], Some(4)), [2, 4]);
        assert_eq!(union(vec![], None), [0; 0]);
    }
}
