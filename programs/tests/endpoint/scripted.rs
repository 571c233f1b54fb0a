//! A server that answers with the bytes of a script.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

/// What came in.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) path: String,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Value,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// A part of an answer.
#[derive(Debug, Clone)]
pub(crate) enum Piece {
    /// Written at once.
    Bytes(Vec<u8>),
    Wait(Duration),
    /// The connection ends.
    Cut,
}

/// The answer to a `POST`, of which `number` came before.
type Script = dyn Fn(usize, &Received) -> Vec<Piece> + Send + Sync;

#[derive(Default)]
struct Seen {
    posts: Vec<Received>,
    connections: usize,
}

/// A server that runs as long as its process.
pub(crate) struct Scripted {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

impl Scripted {
    pub(crate) fn start(script: impl Fn(usize, &Received) -> Vec<Piece> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Seen::default()));
        let (script, shared): (Arc<Script>, _) = (Arc::new(script), seen.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (script, seen) = (script.clone(), shared.clone());
                seen.lock().unwrap().connections += 1;
                std::thread::spawn(move || serve(stream, &*script, &seen));
            }
        });
        Self { address, seen }
    }

    /// What was asked so far, the warm-up first.
    pub(crate) fn posts(&self) -> Vec<Received> {
        self.seen.lock().unwrap().posts.clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.seen.lock().unwrap().connections
    }
}

fn serve(stream: TcpStream, script: &Script, seen: &Mutex<Seen>) -> Option<()> {
    stream.set_nodelay(true).ok()?;
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut writer = stream;
    loop {
        let (method, received) = receive(&mut reader)?;
        let answer = match method.as_str() {
            "GET" => whole(200, &[], &json!({ "object": "list", "data": [{ "id": "scripted/model" }, { "id": "b" }] })),
            _ => {
                let number = {
                    let mut seen = seen.lock().unwrap();
                    seen.posts.push(received.clone());
                    seen.posts.len() - 1
                };
                script(number, &received)
            }
        };
        for piece in answer {
            match piece {
                Piece::Bytes(bytes) => writer.write_all(&bytes).ok()?,
                Piece::Wait(time) => std::thread::sleep(time),
                Piece::Cut => return writer.shutdown(std::net::Shutdown::Both).ok(),
            }
        }
    }
}

fn receive(reader: &mut BufReader<TcpStream>) -> Option<(String, Received)> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|&length| length > 0)?;
    let mut words = line.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => headers.push((name.to_lowercase(), value.to_owned())),
            None => break,
        }
    }
    let mut received = Received { path, headers, body: Value::Null };
    let length = received.header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    received.body = serde_json::from_slice(&body).unwrap_or_default();
    Some((method, received))
}

/// An answer that does not stream.
pub(crate) fn whole(status: u16, headers: &[&str], body: &Value) -> Vec<Piece> {
    let body = body.to_string();
    let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
    let head = format!(
        "HTTP/1.1 {status} Said\r\nContent-Type: application/json\r\n{headers}Content-Length: {}\r\n\r\n",
        body.len()
    );
    vec![Piece::Bytes((head + &body).into_bytes())]
}

pub(crate) const STREAM_HEAD: &str =
    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n";

/// A chunk of a chunked body.
pub(crate) fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

/// A whole stream, of which each event is a chunk.
pub(crate) fn stream(events: &[String]) -> Vec<Piece> {
    let body: String = events.iter().map(|event| chunk(event)).collect();
    vec![Piece::Bytes(format!("{STREAM_HEAD}{body}0\r\n\r\n").into_bytes())]
}

/// The events that complete a prompt of 7 tokens with so many, one to a chunk, which tell running usage where they were asked to.
pub(crate) fn completion(received: &Received, tokens: u64) -> Vec<String> {
    let running = received.body["stream_options"]["continuous_usage_stats"] == true;
    let usage = |tokens: u64| json!({ "prompt_tokens": 7, "completion_tokens": tokens, "total_tokens": 7 + tokens });
    let mut events: Vec<String> = (1..=tokens)
        .map(|number| {
            let reason = if number == tokens { json!("length") } else { Value::Null };
            let usage = if running { usage(number) } else { Value::Null };
            let choice = json!({ "index": 0, "text": " word", "finish_reason": reason });
            format!("data: {}\n\n", json!({ "choices": [choice], "usage": usage }))
        })
        .collect();
    events.push(format!("data: {}\n\n", json!({ "choices": [], "usage": usage(tokens) })));
    events.push("data: [DONE]\n\n".to_owned());
    events
}

/// What a server answers that does what it is asked.
pub(crate) fn obliging(received: &Received) -> Vec<Piece> {
    stream(&completion(received, received.body["max_tokens"].as_u64().unwrap()))
}
