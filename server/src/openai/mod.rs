//! OpenAI's API: completions, chat and models, with vLLM's extensions where the library has them. A handler reads a body, makes
//! requests of it, starts them, and writes what comes.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`policy`] | fields that change nothing, and fields that are refused |
//! | [`guide`] | what an output must look like, by its several names |
//! | [`request`], [`sampling`] | the fields that completions and chat share |
//! | [`prompt`], [`messages`] | what comes before the output, of each |
//! | [`start`] | from a body to requests under way |
//! | [`logprobs`] | tokens by their names, places and probabilities |
//! | [`sequence`] | one sequence on its way out |
//! | `shape` | the JSON of answers |
//! | [`answer`], `chunks` | answers, whole and as they come |
//! | [`models`] | the list of models |

pub mod answer;
mod chunks;
pub mod guide;
pub mod logprobs;
pub mod messages;
pub mod models;
pub mod policy;
pub mod prompt;
pub mod request;
pub mod sampling;
pub mod sequence;
mod shape;
pub mod start;

use std::sync::Arc;

use bytes::Bytes;
use http::Response;

use crate::error::ApiError;
use crate::http::reply::Body;
use crate::http::routes::Call;
use crate::state::State;

/// `/v1/completions`.
///
/// # Errors
/// What is wrong with the request, or why it is not served.
pub async fn completions(state: &Arc<State>, call: &Call, body: Bytes) -> Result<Response<Body>, ApiError> {
    let started = start::start(state, call, body, prompt::read).await?;
    answer::respond(state, call, started).await
}

/// `/v1/chat/completions`.
///
/// # Errors
/// What is wrong with the request, or why it is not served.
pub async fn chat(state: &Arc<State>, call: &Call, body: Bytes) -> Result<Response<Body>, ApiError> {
    let started = start::start(state, call, body, messages::read).await?;
    answer::respond(state, call, started).await
}
