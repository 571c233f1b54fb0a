//! HTTP/1.1 on one socket, as plain as it can be, so that what it costs is small beside what it measures.

use std::net::SocketAddr;

use anyhow::{Context, bail};
use serde_json::Value as Json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A connection.
pub struct Client {
    pub socket: TcpStream,
    /// Bytes that were read, and of them those that were used.
    buffer: Vec<u8>,
    used: usize,
    body: Body,
}

/// What is left of an answer's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Body {
    None,
    Length(usize),
    Chunks,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Reply {
    pub status: u16,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn text(self) -> anyhow::Result<String> {
        Ok(String::from_utf8(self.body)?)
    }

    pub fn json(&self) -> anyhow::Result<Json> {
        Ok(serde_json::from_slice(&self.body)?)
    }

    /// The code of an error.
    pub fn code(&self) -> String {
        let json = self.json().unwrap_or_default();
        json["error"]["code"].as_str().unwrap_or("none").to_owned()
    }
}

/// A request of a path, with a body in JSON where there is one.
pub fn request(method: &str, path: &str, body: &str) -> Vec<u8> {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n{length}\r\n{body}")
        .into_bytes()
}

/// A request for a completion.
pub fn completion(body: &Json) -> Vec<u8> {
    request("POST", "/v1/completions", &body.to_string())
}

/// Asks once, on a connection of its own.
pub async fn get(address: SocketAddr, path: &str) -> anyhow::Result<Reply> {
    Client::connect(address).await?.ask(&request("GET", path, "")).await
}

impl Client {
    pub async fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        let socket = TcpStream::connect(address).await?;
        socket.set_nodelay(true)?;
        Ok(Self::of(socket))
    }

    /// On a socket that is connected.
    pub fn of(socket: TcpStream) -> Self {
        Self { socket, buffer: Vec::new(), used: 0, body: Body::None }
    }

    pub async fn send(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(self.socket.write_all(bytes).await?)
    }

    /// Reads more.
    async fn fill(&mut self) -> anyhow::Result<()> {
        if self.used == self.buffer.len() {
            self.buffer.clear();
            self.used = 0;
        } else if self.used > 1 << 16 {
            self.buffer.drain(..std::mem::take(&mut self.used));
        }
        self.buffer.reserve(1 << 14);
        if self.socket.read_buf(&mut self.buffer).await? == 0 {
            bail!("the connection has ended");
        }
        Ok(())
    }

    /// Reads a line, without its end.
    async fn line(&mut self) -> anyhow::Result<String> {
        loop {
            let rest = &self.buffer[self.used..];
            if let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
                let line = std::str::from_utf8(&rest[..end])?.trim_end().to_owned();
                self.used += end + 1;
                return Ok(line);
            }
            self.fill().await?;
        }
    }

    /// Reads an answer's head.
    pub async fn head(&mut self) -> anyhow::Result<u16> {
        let line = self.line().await?;
        let status =
            line.split(' ').nth(1).and_then(|status| status.parse().ok()).with_context(|| format!("{line:?}"))?;
        self.body = Body::None;
        loop {
            let line = self.line().await?.to_ascii_lowercase();
            match line.split_once(": ") {
                Some(("content-length", length)) => self.body = Body::Length(length.parse()?),
                Some(("transfer-encoding", "chunked")) => self.body = Body::Chunks,
                None if line.is_empty() => return Ok(status),
                _ => {}
            }
        }
    }

    /// Reads the next part of the body into `out`, whose contents are replaced. Whether there was one.
    pub async fn part(&mut self, out: &mut Vec<u8>) -> anyhow::Result<bool> {
        out.clear();
        match self.body {
            Body::None => Ok(false),
            Body::Length(length) => {
                self.take(length, out).await?;
                self.body = Body::None;
                Ok(length > 0)
            }
            Body::Chunks => {
                let line = self.line().await?;
                let length =
                    usize::from_str_radix(&line, 16).with_context(|| format!("{line:?} is no length of a chunk"))?;
                self.take(length, out).await?;
                if !self.line().await?.is_empty() {
                    bail!("a chunk is longer than it says");
                }
                if length == 0 {
                    self.body = Body::None;
                }
                Ok(length > 0)
            }
        }
    }

    async fn take(&mut self, length: usize, out: &mut Vec<u8>) -> anyhow::Result<()> {
        while self.buffer.len() - self.used < length {
            self.fill().await?;
        }
        out.extend_from_slice(&self.buffer[self.used..self.used + length]);
        self.used += length;
        Ok(())
    }

    /// Reads an answer.
    pub async fn receive(&mut self) -> anyhow::Result<Reply> {
        let status = self.head().await?;
        let (mut body, mut part) = (Vec::new(), Vec::new());
        while self.part(&mut part).await? {
            body.extend_from_slice(&part);
        }
        Ok(Reply { status, body })
    }

    pub async fn ask(&mut self, request: &[u8]) -> anyhow::Result<Reply> {
        self.send(request).await?;
        self.receive().await
    }
}

/// The events of a stream's bytes, which begin where one does. What is left is the beginning of another.
pub fn events(bytes: &[u8]) -> (Vec<&str>, usize) {
    let (mut found, mut start) = (Vec::new(), 0);
    while let Some(length) = bytes[start..].windows(2).position(|pair| pair == b"\n\n") {
        let event = std::str::from_utf8(&bytes[start..start + length]).unwrap_or("not UTF-8");
        found.push(event);
        start += length + 2;
    }
    (found, start)
}
