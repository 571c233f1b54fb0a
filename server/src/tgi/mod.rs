//! TGI's API: a prompt as `inputs`, everything else as `parameters`. A handler is the same call as in [`openai`](crate::openai), which it
//! shares the way from a body to requests with; fields, answers and errors have TGI's shapes.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`error`] | refusals as TGI's clients read them |
//! | [`request`] | the fields of a body |
//! | [`assembly`] | tokens with their texts |
//! | `shape` | the JSON of answers |
//! | [`answer`], `frames` | answers, whole and token by token |
//! | [`info`] | `/info` |

pub mod answer;
pub mod assembly;
pub mod error;
mod frames;
pub mod info;
pub mod request;
mod shape;

use std::sync::Arc;

use bytes::Bytes;
use http::Response;

use crate::error::ApiError;
use crate::http::reply::Body;
use crate::http::routes::Call;
use crate::openai::start::{self, Reader};
use crate::state::State;

/// Which of the three routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `/generate`: one object.
    Whole,
    /// `/generate_stream`: a frame for each token.
    Stream,
    /// POST `/`: a list of one object, or a stream, as the body says.
    Root,
}

/// Answers a body.
///
/// # Errors
/// What is wrong with the request, or why it is not served.
pub async fn generate(state: &Arc<State>, call: &Call, body: Bytes, kind: Kind) -> Result<Response<Body>, ApiError> {
    let reader: Reader<request::Own> = match kind {
        Kind::Whole => request::whole,
        Kind::Stream => request::stream,
        Kind::Root => request::root,
    };
    let started = start::start(state, call, body, reader).await?;
    answer::respond(state, call, started, kind == Kind::Root).await
}
