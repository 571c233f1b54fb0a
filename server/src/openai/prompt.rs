//! The fields that completions alone have: prompts as texts and as token ids.

use serde_json::Value as Json;

use crate::error::ApiError;
use crate::fields::{self, Fields, missing, wrong};
use crate::http::routes::Call;
use crate::model::Model;

use super::policy;
use super::request::{self, Asked, Bounds, MOST_LOGPROBS};
use super::start::{Input, Read};

/// Prompts of a request.
pub const MOST_PROMPTS: usize = 1024;

/// Reads a body of `/v1/completions`.
///
/// # Errors
/// The first field that is wrong.
pub fn read(fields: &mut Fields, model: &Model, call: &Call) -> Result<Read, ApiError> {
    let bounds = Bounds { min_max_tokens: 0, default_max_tokens: 16 };
    let prompt = fields.take("prompt");
    let mut asked = request::read(fields, model, bounds, call.timeout.as_deref())?;
    asked.wanted.echo = fields.boolean("echo")?.unwrap_or(false);
    asked.wanted.logprobs = fields.count("logprobs", 0, MOST_LOGPROBS)?;
    if asked.wanted.stream && asked.wanted.prompt_logprobs.is_some() && !asked.wanted.echo {
        return Err(ApiError::invalid("prompt_logprobs", "`prompt_logprobs` streams with `echo` only"));
    }
    policy::refuse(fields, &policy::OF_CHAT)?;
    let inputs = prompts(prompt, model, &asked)?;
    Ok(Read { asked, inputs, is_chat: false, prompt_field: "prompt", own: () })
}

const KINDS: &str = "a string, a list of strings, a list of token ids, or a list of such lists";

fn prompts(prompt: Option<Json>, model: &Model, asked: &Asked) -> Result<Vec<Input>, ApiError> {
    let vocab_size = model.session().executor().vocab_size();
    let list = match prompt {
        None => return Err(missing("prompt")),
        Some(Json::String(text)) => return Ok(vec![of_text("prompt", text, model, asked)?]),
        Some(Json::Array(list)) => list,
        Some(other) => return Err(wrong("prompt", KINDS, &other)),
    };
    if list.is_empty() {
        return Err(ApiError::invalid("prompt", "`prompt` is an empty list"));
    }
    if list[0].is_number() {
        let ids = fields::ids("prompt", &list, vocab_size)?;
        return Ok(vec![Input::Ids { ids, text: None }]);
    }
    if list.len() > MOST_PROMPTS {
        return Err(ApiError::invalid(
            "prompt",
            format!("`prompt` has {} prompts; at most {MOST_PROMPTS} are taken", list.len()),
        ));
    }
    let one = |(index, value): (usize, Json)| {
        let path = format!("prompt[{index}]");
        match value {
            Json::String(text) => of_text(&path, text, model, asked),
            Json::Array(ids) if ids.is_empty() => Err(ApiError::invalid(&path, format!("`{path}` has no tokens"))),
            Json::Array(ids) => Ok(Input::Ids { ids: fields::ids(&path, &ids, vocab_size)?, text: None }),
            other => Err(wrong(&path, "a string or a list of token ids", &other)),
        }
    };
    list.into_iter().enumerate().map(one).collect()
}

/// An empty text is the tokenizer's BOS alone, if it adds one.
///
/// # Errors
/// It has no tokens, or there is no tokenizer.
pub fn of_text(path: &str, text: String, model: &Model, asked: &Asked) -> Result<Input, ApiError> {
    let tokenizer = model.tokenizer(path)?;
    let special = asked.more.add_special_tokens.unwrap_or(true);
    if asked.more.truncate.is_none() {
        let refused = |error| ApiError::of_build(error, path, "");
        model.builder().check_beginning(tokenizer, &text).map_err(refused)?;
    }
    let ids = tokenizer.encode(&text, special).map_err(|error| ApiError::invalid(path, error.to_string()))?;
    if ids.is_empty() {
        return Err(ApiError::invalid(path, format!("`{path}` has no tokens: give it text")));
    }
    Ok(Input::Ids { ids, text: Some(text) })
}
