//! The page at `/ui`, and the one at `/docs`: files in the program, served as they are. They need no key; what the first one asks the
//! server for does.

use http::{HeaderValue, Response, StatusCode};
use serde::Serialize;

use crate::error::ApiError;
use crate::http::reply::{self, Body};
use crate::model::Defaults;
use crate::state::State;

/// A file that browsers show.
#[derive(Debug, PartialEq, Eq)]
pub struct File {
    /// Where it is served.
    pub path: &'static str,
    content_type: &'static str,
    text: &'static str,
}

impl File {
    /// The file, seen from its path with a slash behind it.
    pub fn from_below(&self) -> String {
        format!("../{}", self.path.rsplit('/').next().unwrap_or_default())
    }
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

/// The files of the page.
pub static FILES: [File; 12] = [
    File { path: "/ui", content_type: "text/html; charset=utf-8", text: include_str!("index.html") },
    File { path: "/ui/ui.css", content_type: "text/css; charset=utf-8", text: include_str!("ui.css") },
    File { path: "/ui/icon.svg", content_type: "image/svg+xml", text: include_str!("icon.svg") },
    File { path: "/ui/ui.js", content_type: SCRIPT, text: include_str!("ui.js") },
    File { path: "/ui/api.js", content_type: SCRIPT, text: include_str!("api.js") },
    File { path: "/ui/chat.js", content_type: SCRIPT, text: include_str!("chat.js") },
    File { path: "/ui/complete.js", content_type: SCRIPT, text: include_str!("complete.js") },
    File { path: "/ui/dom.js", content_type: SCRIPT, text: include_str!("dom.js") },
    File { path: "/ui/parameters.js", content_type: SCRIPT, text: include_str!("parameters.js") },
    File { path: "/ui/snippets.js", content_type: SCRIPT, text: include_str!("snippets.js") },
    File { path: "/ui/strip.js", content_type: SCRIPT, text: include_str!("strip.js") },
    File { path: "/ui/tokens.js", content_type: SCRIPT, text: include_str!("tokens.js") },
];

/// The files of the page that shows the OpenAPI document.
pub static DOCS: [File; 3] = [
    File { path: "/docs", content_type: "text/html; charset=utf-8", text: include_str!("../openapi/docs.html") },
    File { path: "/docs/docs.css", content_type: "text/css; charset=utf-8", text: include_str!("../openapi/docs.css") },
    File { path: "/docs/docs.js", content_type: SCRIPT, text: include_str!("../openapi/docs.js") },
];

/// Nothing from elsewhere, nothing inline, no HTML made of strings, and no frame around it.
const POLICY: &str = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

/// Headers of whatever a browser shows.
const HEADERS: [(&str, &str); 5] = [
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cache-control", "no-cache"),
];

/// Every file.
pub fn files() -> impl Iterator<Item = &'static File> {
    FILES.iter().chain(&DOCS)
}

/// The file at a path.
pub fn find(path: &str) -> Option<&'static File> {
    files().find(|file| file.path == path)
}

/// A file.
pub fn file(file: &'static File) -> Response<Body> {
    let mut response = reply::bytes(StatusCode::OK, file.content_type, file.text);
    for (name, value) in HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// To a page, which is named relative to what was asked for: a proxy may serve all of this below a path.
pub fn redirect(to: &str) -> Response<Body> {
    let mut response = Response::new(Body::default());
    *response.status_mut() = StatusCode::SEE_OTHER;
    reply::header(&mut response, "location", to);
    response
}

#[derive(Serialize)]
struct Facts<'a> {
    name: &'a str,
    version: &'static str,
    max_model_len: usize,
    has_chat_template: bool,
    defaults: &'a Defaults,
}

/// What the page shows of the model, and the values that parameters have where a request says nothing.
///
/// # Errors
/// The engine is not open.
pub fn model(state: &State) -> Result<Response<Body>, ApiError> {
    let loading = || ApiError::overloaded("loading", "the engine is being opened", 2);
    let model = state.model().ok_or_else(loading)?;
    let facts = Facts {
        name: model.name(),
        version: env!("CARGO_PKG_VERSION"),
        max_model_len: model.session().executor().limits().max_seq_len,
        has_chat_template: model.has_chat_template(),
        defaults: model.defaults(),
    };
    Ok(reply::json(StatusCode::OK, &facts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_small() {
        let bytes: usize = FILES.iter().map(|file| file.text.len()).sum();
        assert!(bytes <= 60 * 1024, "{bytes} bytes");
    }

    #[test]
    fn nothing_is_inline_and_nothing_is_from_elsewhere() {
        for File { path, text, .. } in files() {
            for bad in [
                "<style",
                " style=",
                " onclick=",
                " onload=",
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
            ] {
                assert!(!text.contains(bad), "{path}: {bad}");
            }
            let elsewhere =
                text.match_indices("://").map(|(at, _)| &text[at.saturating_sub(8)..(at + 24).min(text.len())]);
            let elsewhere: Vec<_> = elsewhere.filter(|place| !place.contains("http://www.w3.org/")).collect();
            assert!(elsewhere.is_empty(), "{path}: {elsewhere:?}");
            assert!(
                !text.contains("<script")
                    || text.matches("<script").count() == text.matches("<script type=\"module\" src=").count()
            );
        }
    }
}
