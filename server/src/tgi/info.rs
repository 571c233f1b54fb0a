//! `/info`: what is served, and its limits.

use http::{Response, StatusCode};
use serde::Serialize;

use crate::error::ApiError;
use crate::http::reply::{self, Body};
use crate::openai::prompt::MOST_PROMPTS;
use crate::openai::request::MOST_STOPS;
use crate::openai::sampling::MOST_SEQUENCES;
use crate::state::State;

#[derive(Serialize)]
struct Info<'a> {
    model_id: &'a str,
    model_sha: (),
    model_pipeline_tag: &'static str,
    max_concurrent_requests: usize,
    max_best_of: usize,
    max_stop_sequences: usize,
    max_input_tokens: usize,
    max_total_tokens: usize,
    validation_workers: usize,
    max_client_batch_size: usize,
    router: &'static str,
    version: &'static str,
    sha: (),
    docker_label: (),
}

/// What is served.
///
/// # Errors
/// The engine is not open.
pub fn info(state: &State) -> Result<Response<Body>, ApiError> {
    let model = state.model().ok_or_else(|| ApiError::overloaded("loading", "the engine is being opened", 2))?;
    let max_seq_len = model.session().executor().limits().max_seq_len;
    let info = Info {
        model_id: model.name(),
        model_sha: (),
        model_pipeline_tag: "text-generation",
        max_concurrent_requests: model.admission().most_sequences(),
        max_best_of: MOST_SEQUENCES.min(state.settings.max_num_sequences),
        max_stop_sequences: MOST_STOPS.0,
        // One is kept for the output.
        max_input_tokens: max_seq_len.saturating_sub(1),
        max_total_tokens: max_seq_len,
        validation_workers: state.prepare_threads,
        max_client_batch_size: MOST_PROMPTS.min(state.settings.max_num_sequences),
        router: "serve-engine",
        version: env!("CARGO_PKG_VERSION"),
        sha: (),
        docker_label: (),
    };
    Ok(reply::json(StatusCode::OK, &info))
}
