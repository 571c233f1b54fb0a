//! The OpenAPI document: every path, field and error code, as a test beside each list says.

use std::sync::LazyLock;

use bytes::Bytes;
use http::{Response, StatusCode};

use crate::http::reply::{self, Body};

static DOCUMENT: LazyLock<Bytes> =
    LazyLock::new(|| include_str!("openapi.json").replace("{version}", env!("CARGO_PKG_VERSION")).into());

/// The document, in JSON.
pub fn document() -> Response<Body> {
    reply::bytes(StatusCode::OK, "application/json", DOCUMENT.clone())
}
