//! Refusals as TGI's clients read them: `error`, a sentence, and `error_type`, by which the clients choose an exception.

use http::{Response, StatusCode};
use serde::Serialize;

use crate::error::ApiError;
use crate::http::reply::{self, Body};

/// An error in TGI's shape.
#[derive(Debug, Serialize)]
pub struct ErrorBody {
    error: String,
    error_type: &'static str,
}

/// The status and the body of an error.
fn shaped(error: &ApiError) -> (StatusCode, ErrorBody) {
    let message = &error.message;
    let param = error.param.as_deref().unwrap_or_default();
    let (status, said, error_type) = match (error.status, error.code) {
        (StatusCode::FAILED_DEPENDENCY, _) | (_, "deadline_exceeded") => {
            (StatusCode::FAILED_DEPENDENCY, format!("Request failed during generation: {message}"), "generation")
        }
        (_, "template_refused") => {
            (StatusCode::UNPROCESSABLE_ENTITY, format!("Template error: {message}"), "template_error")
        }
        (StatusCode::BAD_REQUEST, "unsupported_parameter") if param.starts_with("tool") => {
            (StatusCode::UNPROCESSABLE_ENTITY, format!("Tool error: {message}"), "tool_error")
        }
        (StatusCode::BAD_REQUEST, "invalid_json") => (error.status, message.clone(), "validation"),
        (StatusCode::BAD_REQUEST, _) | (_, "model_not_found") => {
            // The shape has no place for the field, so the sentence names it.
            let field = if message.contains(param) { String::new() } else { format!("`{param}`: ") };
            (StatusCode::UNPROCESSABLE_ENTITY, format!("Input validation error: {field}{message}"), "validation")
        }
        (_, "queue_full") => (StatusCode::TOO_MANY_REQUESTS, format!("Model is overloaded: {message}"), "overloaded"),
        (StatusCode::TOO_MANY_REQUESTS, _) => (error.status, message.clone(), "overloaded"),
        (status, code) => (status, message.clone(), code),
    };
    (status, ErrorBody { error: said, error_type })
}

/// What a request that was taken ends with: a failure of the model's is none of the server's.
pub fn of_generation(error: ApiError) -> ApiError {
    match error.code {
        "internal" | "engine_failed" => ApiError { status: StatusCode::FAILED_DEPENDENCY, ..error },
        _ => error,
    }
}

/// The body of an error, for a stream that has begun.
pub fn body(error: &ApiError) -> ErrorBody {
    shaped(error).1
}

/// The answer that an error is.
pub fn response(error: &ApiError) -> Response<Body> {
    let (status, body) = shaped(error);
    reply::refusal(error, status, &body)
}
