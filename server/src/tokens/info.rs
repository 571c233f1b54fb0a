//! `/tokenizer_info`.

use http::Response;
use serde::Serialize;

use crate::error::ApiError;
use crate::http::reply::Body;

use super::Asked;

#[derive(Serialize)]
struct Info<'a> {
    tokenizer_class: Option<String>,
    vocab_size: usize,
    bos_token: Option<&'a str>,
    eos_token: Option<&'a str>,
    pad_token: Option<&'a str>,
    chat_template: Option<&'a str>,
    model_max_length: usize,
}

/// What the tokenizer is. The chat template is the one that is used where nobody asks for another.
///
/// # Errors
/// There is no tokenizer.
pub fn answer(asked: &mut Asked<'_>) -> Result<Response<Body>, ApiError> {
    let tokenizer = asked.model.tokenizer("model")?;
    let info = Info {
        tokenizer_class: asked.model.tokenizer_class(),
        vocab_size: tokenizer.vocab_size(),
        bos_token: tokenizer.bos_token(),
        eos_token: tokenizer.eos_token(),
        pad_token: tokenizer.pad_token(),
        chat_template: asked.model.chat_template(),
        model_max_length: asked.model.session().executor().limits().max_seq_len,
    };
    Ok(super::json(&info, None))
}
