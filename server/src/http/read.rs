//! A request's body, within its limits, as the fields of a JSON object.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value as Json;

use crate::config::Settings;
use crate::error::ApiError;
use crate::fields::Fields;

use super::gzip::{Gzip, GzipError};

fn too_large(limit: usize) -> ApiError {
    let message = format!("the body has more than {limit} bytes (max_body_bytes)");
    ApiError::of(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request_error", "request_too_large", message)
}

/// Checks what the head says of the body: whether it is compressed.
fn check(headers: &HeaderMap, limit: usize) -> Result<bool, ApiError> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default().trim());
    let unsupported = |message: String| {
        ApiError::of(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request_error", "unsupported_media_type", message)
    };
    if let Some(kind) = text(CONTENT_TYPE)
        && !kind.split(';').next().unwrap_or_default().trim().eq_ignore_ascii_case("application/json")
    {
        return Err(unsupported("the body must be JSON: Content-Type: application/json".to_owned()));
    }
    let is_compressed = match text(CONTENT_ENCODING) {
        Some(encoding) if encoding.eq_ignore_ascii_case("gzip") => true,
        Some(encoding) if !encoding.eq_ignore_ascii_case("identity") => {
            return Err(unsupported("the body may be compressed with gzip only: Content-Encoding: gzip".to_owned()));
        }
        _ => false,
    };
    match text(CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok()) {
        Some(length) if length > limit as u64 => Err(too_large(limit)),
        _ => Ok(is_compressed),
    }
}

/// What was read of a body, decompressed; at most so many bytes.
enum Piecewise {
    Plain(BytesMut, usize),
    Gzip(Box<Gzip>, usize),
}

impl Piecewise {
    fn push(&mut self, piece: &[u8]) -> Result<(), ApiError> {
        match self {
            Self::Plain(read, limit) if read.len() + piece.len() > *limit => Err(too_large(*limit)),
            Self::Plain(read, _) => {
                read.extend_from_slice(piece);
                Ok(())
            }
            Self::Gzip(gzip, limit) => gzip.push(piece).map_err(|error| not_read(error, *limit)),
        }
    }

    fn finish(self) -> Result<Bytes, ApiError> {
        match self {
            Self::Plain(read, _) => Ok(read.freeze()),
            Self::Gzip(gzip, limit) => gzip.finish().map(Bytes::from).map_err(|error| not_read(error, limit)),
        }
    }
}

fn not_read(error: GzipError, limit: usize) -> ApiError {
    match error {
        GzipError::TooLarge => too_large(limit),
        GzipError::Invalid => ApiError::bad_request("invalid_value", None, "the body is not whole, or not gzip"),
    }
}

/// Reads a body to its end.
///
/// # Errors
/// It is too large, too slow, or not what is read here.
pub async fn body(headers: &HeaderMap, mut incoming: Incoming, settings: &Settings) -> Result<Bytes, ApiError> {
    let limit = settings.max_body_bytes;
    let is_compressed = check(headers, limit)?;
    let pause = Duration::from_secs_f64(settings.body_timeout);
    let mut read = match is_compressed {
        true => Piecewise::Gzip(Box::new(Gzip::new(limit)), limit),
        false => Piecewise::Plain(BytesMut::new(), limit),
    };
    loop {
        let frame = tokio::time::timeout(pause, incoming.frame()).await.map_err(|_| {
            let message = format!("no byte of the body came for {} s (body_timeout)", settings.body_timeout);
            ApiError::of(StatusCode::REQUEST_TIMEOUT, "timeout_error", "body_timeout", message)
        })?;
        let frame = match frame {
            None => return read.finish(),
            Some(Ok(frame)) => frame,
            Some(Err(_)) => {
                return Err(ApiError::bad_request(
                    "invalid_value",
                    None,
                    "the body broke off, or its chunks are not well formed",
                ));
            }
        };
        if let Some(data) = frame.data_ref() {
            read.push(data)?;
        }
    }
}

/// Levels of lists and objects that a body may have.
const DEPTH: usize = 127;

/// The fields of a body.
///
/// # Errors
/// It is no JSON, or no object.
pub fn fields(body: &[u8]) -> Result<Fields, ApiError> {
    let invalid = |message: String| ApiError::bad_request("invalid_json", None, message);
    match serde_json::from_slice(body) {
        Ok(Json::Object(map)) => Ok(Fields::new(map)),
        Ok(_) => Err(invalid("the body must be a JSON object".to_owned())),
        Err(error) => Err(invalid(malformed(body, &error))),
    }
}

/// Why a body cannot be read, as a sentence.
fn malformed(body: &[u8], error: &serde_json::Error) -> String {
    let text = match std::str::from_utf8(body) {
        Ok(text) => text,
        Err(error) => return format!("the body is not UTF-8: byte {} begins no character", error.valid_up_to() + 1),
    };
    let (line, column) = (error.line(), error.column());
    if body.is_empty() {
        return "the body is empty: send a JSON object".to_owned();
    }
    if error.is_eof() {
        return format!("the body is not valid JSON: it ends too early, at line {line} column {column}");
    }
    let start: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
    let before = &text[..text.floor_char_boundary(start + column)];
    if is_deep(before) {
        return format!("the body has more than {DEPTH} levels of lists and objects, at line {line} column {column}");
    }
    let near = &before[before.floor_char_boundary(before.len().saturating_sub(24))..];
    let near = near.lines().next_back().unwrap_or_default();
    format!("the body is not valid JSON at line {line} column {column}, at the end of `{}`", near.trim())
}

/// Whether more than so many lists and objects are open at the end of what is otherwise JSON.
fn is_deep(text: &str) -> bool {
    let (mut depth, mut is_string, mut is_escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        match (is_string, byte) {
            (true, _) if is_escaped => is_escaped = false,
            (true, b'\\') => is_escaped = true,
            (_, b'"') => is_string = !is_string,
            (false, b'[' | b'{') => depth += 1,
            (false, b']' | b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    depth > DEPTH
}
