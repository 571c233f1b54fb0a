//! Why a request has no answer.

use args::exit::{Failure, input};
use serde_json::Value as Json;

use super::address::KEY_VARIABLE;
use super::events::TooLarge;

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// There is no connection.
    Unreachable,
    /// The server answered with this status.
    Status(u16),
    /// What came is no answer, or only a part of one.
    Broken,
}

/// Why a request has no answer.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    pub kind: Kind,
    pub message: String,
    /// Seconds after which the server wants to be asked again.
    pub retry_after: Option<f64>,
}

impl Problem {
    pub(super) fn broken(message: impl Into<String>) -> Self {
        Self { kind: Kind::Broken, message: message.into(), retry_after: None }
    }

    /// A status that is no answer, with the server's words.
    pub(super) fn of_status(status: u16, body: &[u8], retry_after: Option<&str>) -> Self {
        let words = words(body);
        let message = if words.is_empty() { format!("status {status}") } else { format!("status {status}: {words}") };
        let retry_after = retry_after.and_then(|text| text.trim().parse::<f64>().ok());
        Self { kind: Kind::Status(status), message, retry_after }
    }

    pub(super) fn of_transport(error: &ureq::Error) -> Self {
        let is_unreachable = match error {
            ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => true,
            ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => true,
            ureq::Error::Io(error) => matches!(
                error.kind(),
                std::io::ErrorKind::ConnectionRefused
                    | std::io::ErrorKind::HostUnreachable
                    | std::io::ErrorKind::NetworkUnreachable
                    | std::io::ErrorKind::AddrNotAvailable
            ),
            _ => false,
        };
        let kind = if is_unreachable { Kind::Unreachable } else { Kind::Broken };
        Self { kind, message: error.to_string(), retry_after: None }
    }

    /// Whether the server has no room now.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self.kind, Kind::Status(429 | 503 | 529))
    }

    /// Whether the server may take the same request in another form: without some field, or with text for ids.
    pub(super) fn is_about_form(&self) -> bool {
        matches!(self.kind, Kind::Status(400 | 415 | 422 | 500 | 501))
    }

    /// What the program ends with where this stands in the way of measuring.
    pub(super) fn into_failure(self, what: &str) -> Failure {
        let advice = match self.kind {
            Kind::Unreachable => "; is the server running?".to_owned(),
            Kind::Status(401 | 403) => format!("; give its key by --api-key-file or {KEY_VARIABLE}"),
            _ => String::new(),
        };
        let error = anyhow::anyhow!("{what}: {}{advice}", self.message);
        match self.kind {
            Kind::Status(400..=428 | 430..=499) => input(error),
            _ => Failure::Other(error),
        }
    }
}

impl From<TooLarge> for Problem {
    fn from(_: TooLarge) -> Self {
        Self::broken("an event of the stream is larger than 16 MiB")
    }
}

/// Characters of a server's words that are kept.
const MOST_WORDS: usize = 300;

/// The message of an error's body, wherever servers put it; else its beginning.
fn words(body: &[u8]) -> String {
    let text = match serde_json::from_slice::<Json>(body) {
        Ok(json) => of_json(&json).unwrap_or_else(|| json.to_string()),
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    // A line, and no control characters of a stranger's.
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.chars().filter(|c| !c.is_control()).take(MOST_WORDS).collect()
}

/// The message of an error in JSON: OpenAI's `error.message`, TGI's `error`, vLLM's older `message`, FastAPI's `detail`.
fn of_json(json: &Json) -> Option<String> {
    ["/error/message", "/error", "/message", "/detail"].into_iter().find_map(|pointer| match json.pointer(pointer)? {
        Json::String(text) => Some(text.clone()),
        Json::Null => None,
        other => Some(other.to_string()),
    })
}

/// An error that stands in a stream.
pub(super) fn in_stream(error: &Json) -> Problem {
    let words = words(Json::from_iter([("error", error.clone())]).to_string().as_bytes());
    Problem::broken(format!("the stream ended with an error: {words}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_the_servers() {
        for (body, expected) in [
            (r#"{"error": {"message": "a", "code": "b"}}"#, "a"),
            (r#"{"error": "a", "error_type": "b"}"#, "a"),
            (r#"{"object": "error", "message": "a"}"#, "a"),
            (r#"{"detail": [{"loc": 1}]}"#, r#"[{"loc":1}]"#),
            ("<html>\n  no\u{1b}[1m </html>", "<html> no[1m </html>"),
            ("", ""),
        ] {
            assert_eq!(words(body.as_bytes()), expected);
        }
        let problem = Problem::of_status(503, b"", Some(" 7"));
        assert_eq!(
            (problem.message.as_str(), problem.retry_after, problem.is_refusal()),
            ("status 503", Some(7.0), true)
        );
        assert_eq!(Problem::of_status(503, b"", Some("Wed, 21 Oct 2026 07:28:00 GMT")).retry_after, None);
    }
}
