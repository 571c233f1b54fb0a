//! Who may ask: hosts and origins, against pages of other sites that reach for this server through a browser, and API keys.

use std::sync::Arc;

use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::request::Parts;
use http::{Method, StatusCode};

use crate::error::ApiError;
use crate::keys::Key;
use crate::state::State;

fn forbidden(message: String) -> ApiError {
    ApiError::of(StatusCode::FORBIDDEN, "permission_error", "forbidden", message)
}

/// The name of `name:port`.
fn without_port(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}

/// Refuses a host that is not this server's, where it is known which are: on loopback, or where they were listed.
///
/// # Errors
/// The request is for another host, or comes from another site's page.
pub fn check_site(state: &State, request: &Parts) -> Result<(), ApiError> {
    let text = |name: &str| request.headers.get(name).map(|value| value.to_str().unwrap_or("\u{fffd}"));
    let host = request.uri.authority().map(http::uri::Authority::as_str).or_else(|| text(HOST.as_str()));
    let allowed = &state.settings.allowed_host;
    let is_allowed = |name: &str| allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(name));
    let is_loopback = state.address.is_loopback();
    if let Some(host) = host.filter(|_| is_loopback || !allowed.is_empty()) {
        let name = without_port(host);
        let is_ours = ["localhost", "127.0.0.1", "::1"].iter().any(|ours| ours.eq_ignore_ascii_case(name));
        let is_known = is_ours && is_loopback || is_allowed(name);
        if !is_known {
            return Err(forbidden(format!("the host `{name}` is not this server's: allow it by --allowed-host")));
        }
    }
    if request.method != Method::POST {
        return Ok(());
    }
    if text("sec-fetch-site") == Some("cross-site") {
        return Err(forbidden("the request comes from a page of another site".to_owned()));
    }
    let Some(origin) = text(ORIGIN.as_str()) else { return Ok(()) };
    let site = origin.split_once("://").map(|(_, site)| site);
    let is_same = site.is_some_and(|site| host.is_some_and(|host| host.eq_ignore_ascii_case(site)));
    if is_same || site.is_some_and(|site| is_allowed(without_port(site))) {
        return Ok(());
    }
    Err(forbidden(format!("the request comes from a page of `{origin}`: allow its host by --allowed-host")))
}

/// The key of a request, where keys are asked for.
///
/// # Errors
/// There is none, or it is none of ours.
pub fn check_key(state: &State, request: &Parts) -> Result<Option<Arc<Key>>, ApiError> {
    if !state.keys.are_needed() {
        return Ok(None);
    }
    let given = request.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let bearer = given.and_then(|given| given.split_once(' '));
    let token = bearer.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer")).map(|(_, token)| token.trim());
    token.and_then(|token| state.keys.find(token)).map(Some).ok_or_else(|| {
        let message = match given {
            None => "an API key is needed: Authorization: Bearer KEY",
            Some(_) => "the API key is not valid",
        };
        ApiError::of(StatusCode::UNAUTHORIZED, "authentication_error", "invalid_api_key", message)
    })
}
