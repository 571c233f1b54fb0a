//! `/detokenize`.

use http::Response;
use serde_json::json;

use crate::error::ApiError;
use crate::http::reply::Body;

use super::Asked;

/// The text of tokens. Of tokens that were made without special ones it is the text that was tokenized.
///
/// # Errors
/// The first field that is wrong.
pub fn answer(asked: &mut Asked<'_>) -> Result<Response<Body>, ApiError> {
    asked.model_name()?;
    let vocab_size = asked.model.session().executor().vocab_size();
    let ids = asked.fields.ids("tokens", vocab_size)?;
    let ids = ids.ok_or_else(|| ApiError::bad_request("missing_field", Some("tokens"), "`tokens` is needed"))?;
    let skip_special_tokens = asked.fields.boolean("skip_special_tokens")?.unwrap_or(false);
    let ignored = asked.ignored(Vec::new())?;
    let text = asked.model.tokenizer("tokens")?.decode(&ids, skip_special_tokens);
    let text = text.map_err(|error| ApiError::invalid("tokens", error.to_string()))?;
    Ok(super::json(&json!({ "prompt": text }), ignored.as_deref()))
}
