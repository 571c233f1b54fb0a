//! Answers.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, SizeHint};
use serde::Serialize;

use crate::error::ApiError;

/// The body of every answer.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// An answer of these bytes.
pub fn bytes(status: StatusCode, content_type: &'static str, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Full::new(bytes.into()).boxed_unsync());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// An answer in JSON.
pub fn json(status: StatusCode, value: &impl Serialize) -> Response<Body> {
    // Nothing of ours has keys that are no text, which is all that could fail.
    bytes(status, "application/json", serde_json::to_vec(value).unwrap_or_default())
}

/// An error as OpenAI's clients read it.
#[derive(Debug, Serialize)]
pub struct ErrorBody<'a> {
    error: ErrorFields<'a>,
}

#[derive(Debug, Serialize)]
struct ErrorFields<'a> {
    message: &'a str,
    r#type: &'a str,
    param: Option<&'a str>,
    code: &'a str,
}

impl<'a> From<&'a ApiError> for ErrorBody<'a> {
    fn from(error: &'a ApiError) -> Self {
        let param = error.param.as_deref();
        Self { error: ErrorFields { message: &error.message, r#type: error.kind, param, code: error.code } }
    }
}

/// The answer that an error is.
pub fn error(error: &ApiError) -> Response<Body> {
    refusal(error, error.status, &ErrorBody::from(error))
}

/// The answer that an error is, with the status and the body that an API gives it.
pub fn refusal(error: &ApiError, status: StatusCode, body: &impl Serialize) -> Response<Body> {
    let mut response = json(status, body);
    let headers = response.headers_mut();
    if let Some(seconds) = error.retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if error.status == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if error.status == StatusCode::NOT_IMPLEMENTED {
        headers.insert("x-should-retry", HeaderValue::from_static("false"));
    }
    let closes = [StatusCode::REQUEST_TIMEOUT, StatusCode::PAYLOAD_TOO_LARGE].contains(&error.status);
    if closes || error.code == "shutting_down" {
        headers.insert(http::header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// An error as it goes out where there is no request that hyper could answer; the connection ends with it.
pub fn raw(error: &ApiError) -> Vec<u8> {
    let body = serde_json::to_vec(&ErrorBody::from(error)).unwrap_or_default();
    let mut bytes = format!("HTTP/1.1 {}\r\n", error.status).into_bytes();
    for (name, value) in self::error(error).headers().iter().filter(|(name, _)| *name != http::header::CONNECTION) {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    let id = uuid::Uuid::now_v7();
    let rest = format!("x-request-id: {id}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    bytes.extend_from_slice(rest.as_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

/// Adds a header whose value was made here; one that cannot be a header is left out.
pub fn header(response: &mut Response<Body>, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// An answer that keeps something until its body is dropped.
pub fn holding(response: Response<Body>, held: impl Send + Unpin + 'static) -> Response<Body> {
    response.map(|body| Body::new(Holding { body, _held: held }))
}

struct Holding<T> {
    body: Body,
    _held: T,
}

impl<T: Unpin> hyper::body::Body for Holding<T> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
