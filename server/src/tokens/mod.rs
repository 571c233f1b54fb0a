//! Text to tokens and back: what a client asks for that counts, cuts or writes prompts itself. Nothing here runs the model.
//!
//! | module | what it answers |
//! | --- | --- |
//! | [`tokenize`] | tokens of a text or of a conversation, as vLLM and as TGI answer |
//! | [`detokenize`] | the text of tokens |
//! | [`info`] | what the tokenizer is |
//! | [`template`] | the prompt that a conversation is |

pub mod detokenize;
pub mod info;
pub mod template;
pub mod tokenize;

use std::sync::Arc;

use bytes::Bytes;
use http::Response;
use serde_json::Map;

use crate::error::ApiError;
use crate::fields::Fields;
use crate::http::read;
use crate::http::reply::{self, Body};
use crate::http::routes::Call;
use crate::model::Model;
use crate::openai::policy;
use crate::state::State;

/// A body that is to be answered, on a thread that prepares.
pub struct Asked<'a> {
    /// What every request can reach.
    pub state: &'a State,
    /// The engine.
    pub model: &'a Model,
    /// The request, beside its body.
    pub call: &'a Call,
    /// The body's fields.
    pub fields: Fields,
}

/// What answers a body.
pub type Handler = fn(&mut Asked<'_>) -> Result<Response<Body>, ApiError>;

/// Answers a body; an empty one has no fields.
///
/// # Errors
/// What is wrong with it, or why it is not served.
pub async fn answer(
    state: &Arc<State>,
    call: &Call,
    body: Bytes,
    handler: Handler,
) -> Result<Response<Body>, ApiError> {
    state.serving()?;
    let call = call.clone();
    let job = move |state: &State| {
        let model = state.serving()?;
        let fields = if body.is_empty() { Fields::new(Map::new()) } else { read::fields(&body)? };
        handler(&mut Asked { state, model, call: &call, fields })
    };
    state.prepare(job).await
}

impl Asked<'_> {
    /// Settles the fields that are left: refused, or named in the answer.
    fn ignored(&mut self, unread: Vec<String>) -> Result<Option<String>, ApiError> {
        policy::settle(&mut self.fields)?;
        policy::ignored(&self.fields, unread, self.state.settings.unknown_fields == "reject")
    }

    /// Checks the model that is asked for: adapters have the engine's tokenizer.
    fn model_name(&mut self) -> Result<(), ApiError> {
        let name = self.fields.text("model")?.unwrap_or_default();
        self.model.resolve(&name).map(drop)
    }
}

fn json(value: &impl serde::Serialize, ignored: Option<&str>) -> Response<Body> {
    let mut response = reply::json(http::StatusCode::OK, value);
    if let Some(names) = ignored {
        reply::header(&mut response, "x-ignored-fields", names);
    }
    response
}
