//! What probes and dashboards ask for. Nothing here waits for the executor.

use std::sync::Arc;
use std::time::Duration;

use http::header::ACCEPT;
use http::{HeaderMap, Response, StatusCode};
use runner::executor::{Limits, Load};
use serde_json::json;

use crate::error::ApiError;
use crate::http::reply::{self, Body};
use crate::http::routes::Call;
use crate::metrics::{self, Facts, Format};
use crate::openai;
use crate::operations::Phase;
use crate::state::State;

fn said(status: StatusCode, word: &str, problem: Option<&str>) -> Response<Body> {
    let body = match problem {
        None => json!({ "status": word }),
        Some(problem) => json!({ "status": word, "reason": problem }),
    };
    reply::json(status, &body)
}

/// The process answers.
pub fn live() -> Response<Body> {
    said(StatusCode::OK, "live", None)
}

/// The engine is open, whatever has become of it since.
pub fn startup(state: &State) -> Response<Body> {
    match state.model() {
        Some(_) => said(StatusCode::OK, "started", None),
        None => said(StatusCode::SERVICE_UNAVAILABLE, "starting", Some("the engine is being opened")),
    }
}

/// Requests should be sent here. A full queue does not change that.
pub fn ready(state: &State) -> Response<Body> {
    match obstacle(state) {
        None => said(StatusCode::OK, "ready", None),
        Some(problem) => said(StatusCode::SERVICE_UNAVAILABLE, "not ready", Some(&problem)),
    }
}

/// The engine is able to work.
pub fn health(state: &State) -> Response<Body> {
    match obstacle(state) {
        None => said(StatusCode::OK, "healthy", None),
        Some(problem) => said(StatusCode::SERVICE_UNAVAILABLE, "not healthy", Some(&problem)),
    }
}

fn obstacle(state: &State) -> Option<String> {
    match state.lifecycle.phase() {
        Phase::Loading => Some("the engine is being opened".to_owned()),
        Phase::Draining | Phase::Refusing | Phase::Cancelling => Some("the server is shutting down".to_owned()),
        Phase::Failed(problem) => Some(format!("the engine has failed: {problem}")),
        Phase::Serving if state.is_stalled() => {
            let seconds = state.settings.stall_timeout;
            Some(format!("the engine has not advanced for {seconds} s, with work at hand (stall_timeout)"))
        }
        Phase::Serving => None,
    }
}

/// One token, through everything that a request goes through.
///
/// # Errors
/// There is none, for the reason that a request would have.
pub async fn generate(state: &Arc<State>, call: &Call) -> Result<Response<Body>, ApiError> {
    let body = json!({ "prompt": [0], "max_tokens": 1 }).to_string();
    let answered = openai::completions(state, call, body.into());
    let time = Duration::from_secs_f64(state.settings.stall_timeout);
    tokio::time::timeout(time, answered).await.map_err(|_| ApiError::deadline_exceeded())??;
    Ok(said(StatusCode::OK, "healthy", None))
}

/// The program's version.
pub fn version() -> Response<Body> {
    reply::json(StatusCode::OK, &json!({ "version": env!("CARGO_PKG_VERSION") }))
}

/// The forms of metrics, as `Accept` names them.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    Page(Format),
    Iterations,
}

/// What is accepted most; of equals, what is named first.
fn form(headers: &HeaderMap) -> Form {
    let accept = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut best = (0.0, Form::Page(Format::Text));
    for range in accept.flat_map(|accept| accept.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let form = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
            "application/openmetrics-text" => Form::Page(Format::OpenMetrics),
            "application/json" => Form::Iterations,
            "text/plain" | "text/*" | "*/*" => Form::Page(Format::Text),
            _ => continue,
        };
        let quality = parts.find_map(|part| part.strip_prefix("q=")).map_or(1.0, |q| q.parse().unwrap_or(0.0));
        if quality > best.0 {
            best = (quality, form);
        }
    }
    best.1
}

/// The page of metrics, in the format that is asked for, or the newest iteration.
pub fn metrics(state: &State, headers: &HeaderMap) -> Response<Body> {
    let model = state.model();
    let executor = model.map(|model| model.session().executor());
    if let Some(executor) = executor {
        state.metrics.take_iterations(executor);
    }
    let format = match form(headers) {
        Form::Page(format) => format,
        Form::Iterations => return reply::json(StatusCode::OK, &metrics::iterations(&state.metrics)),
    };
    let nothing = Limits { max_seq_len: 0, max_batch_size: 0, max_num_tokens: 0 };
    let facts = Facts {
        model_name: model.map_or("", |model| model.name()),
        load: executor.map_or_else(Load::default, |executor| executor.load()),
        limits: executor.map_or(nothing, |executor| executor.limits()),
        kv_cache_dtype: model.and_then(|model| model.kv_cache_dtype()),
    };
    reply::bytes(StatusCode::OK, format.content_type(), metrics::render(&state.metrics, &facts, format))
}
