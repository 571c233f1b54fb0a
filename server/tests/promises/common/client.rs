//! HTTP/1.1 by hand.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value as Json;

/// What was answered.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Reply {
    #[track_caller]
    pub fn json(&self) -> Json {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The body of an answer that went well.
    #[track_caller]
    pub fn ok(&self) -> Json {
        assert_eq!(self.status, 200, "{self:?}");
        self.json()
    }

    /// Checks an error, and gives its message.
    #[track_caller]
    pub fn error(&self, status: u16, code: &str, param: Option<&str>) -> String {
        assert_eq!(self.status, status, "{self:?}");
        let error = &self.json()["error"];
        assert_eq!(error["code"], code, "{self:?}");
        assert_eq!(error["param"].as_str(), param, "{self:?}");
        let of_others =
            ["EOF while", "expected value", "expected `", "invalid type", "missing field `", "recursion limit"];
        for word in ["Some(", "None", "Number(", "String(\""].into_iter().chain(of_others) {
            assert!(!self.body.contains(word), "{self:?} shows a debug form or a library's words");
        }
        error["message"].as_str().unwrap().to_owned()
    }

    /// The events of a stream, without `[DONE]`, which must be the last.
    #[track_caller]
    pub fn events(&self) -> Vec<Json> {
        assert_eq!(self.status, 200, "{self:?}");
        let mut data = Vec::new();
        for frame in self.body.split_terminator("\n\n") {
            match frame.strip_prefix("data: ") {
                Some(frame) => data.push(frame),
                None => assert_eq!(frame, ": keep-alive"),
            }
        }
        assert_eq!(data.pop(), Some("[DONE]"), "{self:?}");
        data.iter().map(|data| serde_json::from_str(data).unwrap()).collect()
    }
}

/// A connection.
pub struct Client {
    pub socket: BufReader<TcpStream>,
    host: String,
}

impl Client {
    pub fn new(address: SocketAddr) -> Self {
        let socket = TcpStream::connect(address).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        Self { socket: BufReader::new(socket), host: address.to_string() }
    }

    /// Sends a request, with `headers` as lines.
    pub fn send(&mut self, method: &str, path: &str, headers: &[&str], body: &str) {
        let mut head = format!("{method} {path} HTTP/1.1\r\nContent-Length: {}\r\n", body.len());
        if !headers.iter().any(|header| header.starts_with("Host:")) {
            head += &format!("Host: {}\r\n", self.host);
        }
        for header in headers {
            head += &format!("{header}\r\n");
        }
        self.write(format!("{head}\r\n{body}").as_bytes());
    }

    pub fn write(&mut self, bytes: &[u8]) {
        self.socket.get_mut().write_all(bytes).unwrap();
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match self.socket.read_line(&mut line) {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(line.trim_end().to_owned()),
        }
    }

    /// Reads an answer's head; none where the connection ended.
    pub fn head(&mut self) -> Option<(u16, BTreeMap<String, String>)> {
        let status = self.line()?.split(' ').nth(1)?.parse().ok()?;
        let mut headers = BTreeMap::new();
        loop {
            let line = self.line()?;
            match line.split_once(": ") {
                Some((name, value)) => headers.insert(name.to_lowercase(), value.to_owned()),
                None => return Some((status, headers)),
            };
        }
    }

    /// Reads a chunk of a chunked body; empty at its end, none where the connection ended before.
    pub fn chunk(&mut self) -> Option<String> {
        let length = usize::from_str_radix(&self.line()?, 16).ok()?;
        let mut bytes = vec![0; length + 2];
        self.socket.read_exact(&mut bytes).ok()?;
        bytes.truncate(length);
        Some(String::from_utf8(bytes).unwrap())
    }

    /// Reads an answer; none where the connection ended before it did.
    pub fn receive(&mut self, has_body: bool) -> Option<Reply> {
        let (status, headers) = self.head()?;
        let mut body = String::new();
        if let Some(length) = headers.get("content-length").filter(|_| has_body) {
            let mut bytes = vec![0; length.parse().unwrap()];
            self.socket.read_exact(&mut bytes).ok()?;
            body = String::from_utf8(bytes).unwrap();
        } else if headers.contains_key("transfer-encoding") && has_body {
            loop {
                match self.chunk()? {
                    chunk if chunk.is_empty() => break,
                    chunk => body += &chunk,
                }
            }
        }
        Some(Reply { status, headers, body })
    }

    #[track_caller]
    pub fn request(&mut self, method: &str, path: &str, headers: &[&str], body: &str) -> Reply {
        self.send(method, path, headers, body);
        self.receive(method != "HEAD").unwrap()
    }
}

/// Sends one request on a connection of its own.
#[track_caller]
pub fn request(address: SocketAddr, method: &str, path: &str, headers: &[&str], body: &str) -> Reply {
    Client::new(address).request(method, path, headers, body)
}

#[track_caller]
pub fn get(address: SocketAddr, path: &str) -> Reply {
    request(address, "GET", path, &[], "")
}

#[track_caller]
pub fn post(address: SocketAddr, path: &str, body: &Json) -> Reply {
    request(address, "POST", path, &["Content-Type: application/json"], &body.to_string())
}

#[track_caller]
pub fn complete(address: SocketAddr, body: &Json) -> Reply {
    post(address, "/v1/completions", body)
}

#[track_caller]
pub fn chat(address: SocketAddr, body: &Json) -> Reply {
    post(address, "/v1/chat/completions", body)
}

/// The value of a metric, of the first line that begins so.
#[track_caller]
pub fn metric(address: SocketAddr, line: &str) -> f64 {
    let page = get(address, "/metrics").body;
    let found = page.lines().find(|of| of.starts_with(line)).unwrap_or_else(|| panic!("no {line} in {page}"));
    found.rsplit(' ').next().unwrap().parse().unwrap()
}
