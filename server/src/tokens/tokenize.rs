//! `/tokenize`: of a text (`prompt`) or a conversation (`messages`) as vLLM answers, of `inputs` as TGI does.

use http::Response;
use runner::executor::TokenId;
use serde::Serialize;
use text::tokenizer::{Placed, Tokenizer};

use crate::error::ApiError;
use crate::http::reply::Body;

use super::{Asked, template};

#[derive(Serialize)]
struct Tokens {
    count: usize,
    max_model_len: usize,
    tokens: Vec<TokenId>,
    token_strs: Option<Vec<String>>,
}

/// A token and its bytes of the text, from `start` to `stop`.
#[derive(Serialize)]
pub(super) struct PlacedToken<'a> {
    id: TokenId,
    text: &'a str,
    start: usize,
    stop: usize,
}

/// Tokens as TGI lists them. One that stands for nothing of the text has none.
pub(super) fn placed<'a>(text: &'a str, tokens: &[Placed]) -> Vec<PlacedToken<'a>> {
    let one = |(id, place): &Placed| PlacedToken {
        id: *id,
        text: text.get(place.clone()).unwrap_or_default(),
        start: place.start,
        stop: place.end,
    };
    tokens.iter().map(one).collect()
}

/// The tokens of a text or of a conversation.
///
/// # Errors
/// The first field that is wrong.
pub fn answer(asked: &mut Asked<'_>) -> Result<Response<Body>, ApiError> {
    let mut given = ["prompt", "messages", "inputs"].into_iter().filter(|name| asked.fields.has(name));
    let name = match (given.next(), given.next()) {
        (Some(name), None) => name,
        (None, _) => {
            let message = "one of `prompt`, `messages` and `inputs` is needed";
            return Err(ApiError::bad_request("missing_field", Some("prompt"), message));
        }
        (Some(first), Some(second)) => {
            return Err(ApiError::invalid(second, format!("`{first}` and `{second}` exclude one another")));
        }
    };
    let unencoded = |error: text::tokenizer::TokenizerError| ApiError::invalid(name, error.to_string());
    let tokenizer = asked.model.tokenizer(name)?;
    let return_token_strs = asked.fields.boolean("return_token_strs")?.unwrap_or(false);
    if name == "messages" {
        let (rendered, ignored) = template::rendered(asked)?;
        let tokens = tokenizer.encode_rendered(&rendered).map_err(unencoded)?;
        return Ok(super::json(&vllm(asked, tokenizer, tokens, return_token_strs), ignored.as_deref()));
    }
    asked.model_name()?;
    let text = asked.fields.text(name)?.unwrap_or_default();
    let add_special_tokens = asked.fields.boolean("add_special_tokens")?.unwrap_or(true);
    let ignored = asked.ignored(Vec::new())?;
    if name == "inputs" {
        let tokens = tokenizer.encode_with_places(&text, add_special_tokens).map_err(unencoded)?;
        return Ok(super::json(&placed(&text, &tokens), ignored.as_deref()));
    }
    let tokens = tokenizer.encode(&text, add_special_tokens).map_err(unencoded)?;
    Ok(super::json(&vllm(asked, tokenizer, tokens, return_token_strs), ignored.as_deref()))
}

fn vllm(asked: &Asked<'_>, tokenizer: &Tokenizer, tokens: Vec<TokenId>, return_token_strs: bool) -> Tokens {
    // As the vocabulary spells them.
    let spelled = |&id: &TokenId| tokenizer.id_to_token(id).unwrap_or_default();
    Tokens {
        count: tokens.len(),
        max_model_len: asked.model.session().executor().limits().max_seq_len,
        token_strs: return_token_strs.then(|| tokens.iter().map(spelled).collect()),
        tokens,
    }
}
