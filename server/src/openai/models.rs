//! `/v1/models`.

use http::{Response, StatusCode};
use serde::Serialize;

use crate::error::ApiError;
use crate::http::reply::{self, Body};
use crate::model::Model;
use crate::state::State;

#[derive(Serialize)]
struct Entry<'a> {
    id: &'a str,
    object: &'static str,
    created: u64,
    owned_by: &'static str,
    root: &'a str,
    parent: Option<&'a str>,
    max_model_len: usize,
}

#[derive(Serialize)]
struct List<'a> {
    object: &'static str,
    data: Vec<Entry<'a>>,
}

fn entries(model: &Model) -> impl Iterator<Item = Entry<'_>> {
    let max_model_len = model.session().executor().limits().max_seq_len;
    model.all_names().map(move |(id, parent)| Entry {
        id,
        object: "model",
        created: model.created(),
        owned_by: "trtllm",
        root: model.name(),
        parent,
        max_model_len,
    })
}

fn open(state: &State) -> Result<&Model, ApiError> {
    state.model().ok_or_else(|| ApiError::overloaded("loading", "the engine is being opened", 2))
}

/// Every model.
///
/// # Errors
/// The engine is not open.
pub fn list(state: &State) -> Result<Response<Body>, ApiError> {
    let data = entries(open(state)?).collect();
    Ok(reply::json(StatusCode::OK, &List { object: "list", data }))
}

/// One of them, by its name, which may have slashes.
///
/// # Errors
/// There is none of that name.
pub fn one(state: &State, name: &str) -> Result<Response<Body>, ApiError> {
    let model = open(state)?;
    let name = name.strip_suffix('/').unwrap_or(name);
    let entry = entries(model).find(|entry| entry.id == name);
    match entry {
        Some(entry) => Ok(reply::json(StatusCode::OK, &entry)),
        None => {
            let shown: String = name.chars().take(100).collect();
            let message = format!("the model `{shown}` does not exist");
            Err(ApiError::of(StatusCode::NOT_FOUND, "invalid_request_error", "model_not_found", message))
        }
    }
}
