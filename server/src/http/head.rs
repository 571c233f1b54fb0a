//! A request's head, checked before hyper reads it: hyper answers what it cannot read without saying why, and takes some that two
//! programs could understand in two ways.

use http::{StatusCode, Uri};

use crate::error::ApiError;

use super::framing::Framing;

/// Bytes of a head at most, its empty line among them.
pub const MOST_BYTES: usize = 64 << 10;

/// Headers of a head at most, which is hyper's limit too.
const MOST_HEADERS: usize = 100;

/// Where the first empty line ends, looking from byte `from` on.
pub fn end(bytes: &[u8], from: usize) -> Option<usize> {
    // The line feed that the empty line follows may have been seen already.
    let from = from.saturating_sub(2);
    let mut feeds = bytes.iter().enumerate().skip(from).filter(|(_, byte)| **byte == b'\n').map(|(index, _)| index);
    feeds.find_map(|feed| match &bytes[feed + 1..] {
        [b'\n', ..] => Some(feed + 2),
        [b'\r', b'\n', ..] => Some(feed + 3),
        _ => None,
    })
}

/// Whether a head may begin with this byte, which that of another protocol hardly does.
pub fn may_begin(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// A head that is no HTTP, because of this.
pub fn bad(problem: impl std::fmt::Display) -> ApiError {
    ApiError::bad_request("invalid_value", None, format!("this is not a request of HTTP/1.1: {problem}"))
}

/// A head beyond a limit.
pub fn too_large(limit: &str) -> ApiError {
    let message = format!("the request's head is larger than {limit}");
    let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
    ApiError::of(status, "invalid_request_error", "request_too_large", message)
}

/// A head that did not come in its time.
pub fn too_slow(seconds: f64) -> ApiError {
    let message = format!("the request's head did not come within {seconds} s (header_timeout)");
    ApiError::of(StatusCode::REQUEST_TIMEOUT, "timeout_error", "header_timeout", message)
}

/// Checks a whole head: how its body ends.
///
/// # Errors
/// It is no HTTP, is too large, or could be understood in two ways.
pub fn check(head: &[u8]) -> Result<Framing, ApiError> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        Ok(httparse::Status::Partial) => return Err(bad("the head has no end")),
        Err(httparse::Error::TooManyHeaders) => return Err(too_large(&format!("{MOST_HEADERS} headers"))),
        Err(error) => return Err(bad(error)),
    }
    Uri::try_from(request.path.unwrap_or_default()).map_err(|error| bad(format_args!("its target: {error}")))?;
    let is_current = request.version == Some(1);
    let all = |name: &'static str| {
        let named = request.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name));
        named.map(|header| header.value)
    };
    match all("host").count() {
        0 if is_current => return Err(bad("it has no header Host")),
        0 | 1 => {}
        _ => return Err(bad("it has more than one header Host")),
    }
    let mut lengths = all("content-length").map(length);
    let length = lengths.next().transpose()?;
    for other in lengths {
        if Some(other?) != length {
            return Err(bad("its headers Content-Length differ"));
        }
    }
    let mut codings = all("transfer-encoding");
    let Some(coding) = codings.next() else { return Ok(Framing::length(length.unwrap_or(0))) };
    if !is_current || codings.next().is_some() || !coding.eq_ignore_ascii_case(b"chunked") {
        return Err(bad("its Transfer-Encoding is not `chunked`"));
    }
    match length {
        Some(_) => Err(bad("it has both Content-Length and Transfer-Encoding")),
        None => Ok(Framing::chunked()),
    }
}

fn length(value: &[u8]) -> Result<u64, ApiError> {
    let is_plain = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    let digits = std::str::from_utf8(value).ok().filter(|_| is_plain);
    // The largest numbers have another meaning in hyper.
    let length = digits.and_then(|digits| digits.parse().ok()).filter(|&length: &u64| length <= i64::MAX as u64);
    length.ok_or_else(|| bad("its Content-Length is not a number of bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_head_is_found_however_its_lines_end() {
        for (text, expected) in [
            ("GET / HTTP/1.1\r\nA: b\r\n\r\nmore", Some(24)),
            ("GET / HTTP/1.1\nA: b\n\nmore", Some(21)),
            ("GET / HTTP/1.1\n\r\nmore", Some(17)),
            ("GET / HTTP/1.1\r\nA: b\r\n", None),
            ("GET / HTTP/1.1\r\nA: b\r\n\r", None),
        ] {
            for from in 0..=text.len().min(20) {
                let seen = end(&text.as_bytes()[..from], 0);
                assert_eq!(seen.or_else(|| end(text.as_bytes(), from)), expected, "{text:?} from {from}");
            }
        }
    }

    #[test]
    fn heads_are_refused_that_are_not_clear() {
        let refused = |head: &str| check(head.as_bytes()).unwrap_err();
        for (lines, said) in [
            ("POST / HTTP/1.1", "no header Host"),
            ("POST / HTTP/1.1\r\nHost: a\r\nHost: a", "more than one header Host"),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2", "Content-Length differ"),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1", "Content-Length is not"),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1", "Content-Length is not"),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551615", "Content-Length is not"),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip", "Transfer-Encoding is not"),
            ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 1", "both"),
            ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked", "Transfer-Encoding is not"),
            ("POST / HTTP/2.0\r\nHost: a", "version"),
            ("POST / HTTP/1.1\r\nHo st: a", "header name"),
            ("POST ? HTTP/1.1\r\nHost: a", "target"),
            ("hello", "this is not a request of HTTP/1.1"),
        ] {
            let error = refused(&format!("{lines}\r\n\r\n"));
            assert!(error.status == StatusCode::BAD_REQUEST && error.message.contains(said), "{lines:?}: {error:?}");
        }
        let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "a: b\r\n".repeat(100));
        assert_eq!(refused(&many).status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        let same = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(check(same.as_bytes()), Ok(Framing::length(5)));
        assert_eq!(check(b"GET / HTTP/1.0\r\n\r\n"), Ok(Framing::length(0)));
    }
}
