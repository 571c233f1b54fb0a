//! Bodies and connections: their sizes, their times, their ends.

use std::io::{Read, Write};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;

use crate::common::client::{Client, Reply, complete, get, metric, request};
use crate::common::engine::{serve, shared};
use crate::common::{scripted, until};

#[test]
fn a_body_beyond_the_limit_is_refused_before_and_while_it_is_read() {
    let server = serve(|settings| settings.max_body_bytes = 1000);
    let large = json!({ "prompt": "a".repeat(2000) }).to_string();
    let reply = request(server.address, "POST", "/v1/completions", &[], &large);
    assert!(reply.error(413, "request_too_large", None).contains("1000 bytes (max_body_bytes)"));
    let mut client = Client::new(server.address);
    client.write(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.write(format!("{:x}\r\n{large}\r\n0\r\n\r\n", large.len()).as_bytes());
    client.receive(true).unwrap().error(413, "request_too_large", None);
    assert_eq!(get(server.address, "/live").status, 200);
}

#[test]
fn chunks_that_are_none_are_told_as_such() {
    let mut client = Client::new(shared().address);
    client.write(
        b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    );
    let said = client.receive(true).unwrap().error(400, "invalid_value", None);
    assert_eq!(said, "the body broke off, or its chunks are not well formed");
}

#[test]
fn a_body_must_be_plain_json() {
    let send = |headers: &[&str]| {
        let body = json!({ "prompt": "a", "max_tokens": 1 }).to_string();
        request(shared().address, "POST", "/v1/completions", headers, &body)
    };
    send(&["Content-Type: application/json; charset=utf-8"]).ok();
    send(&["Content-Type: Application/JSON"]).ok();
    send(&["Content-Encoding: identity"]).ok();
    for headers in [
        ["Content-Type: text/plain"],
        ["Content-Type: application/x-www-form-urlencoded"],
        ["Content-Encoding: deflate"],
        ["Content-Encoding: gzip, gzip"],
    ] {
        send(&headers).error(415, "unsupported_media_type", None);
    }
}

#[test]
fn a_body_may_be_compressed_and_its_limit_is_of_what_comes_out() {
    let server = serve(|settings| settings.max_body_bytes = 10_000);
    let send = |body: &str, cut: usize| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(body.as_bytes()).unwrap();
        let mut bytes = encoder.finish().unwrap();
        bytes.truncate(bytes.len() - cut);
        let mut client = Client::new(server.address);
        let head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Encoding: gzip\r\n";
        client.write(format!("{head}Content-Length: {}\r\n\r\n", bytes.len()).as_bytes());
        client.write(&bytes);
        client.receive(true).unwrap()
    };
    let body = json!({ "prompt": "a", "max_tokens": 1 }).to_string();
    send(&body, 0).ok();
    send(&body, 1).error(400, "invalid_value", None);
    let bomb = format!("{body}{}", " ".repeat(5_000_000));
    assert!(send(&bomb, 0).error(413, "request_too_large", None).contains("10000 bytes (max_body_bytes)"));
    let said = request(server.address, "POST", "/v1/completions", &["Content-Encoding: gzip"], &body);
    said.error(400, "invalid_value", None);
}

#[test]
fn s34_heads_and_bodies_that_do_not_come_are_cut() {
    let server = serve(|settings| {
        settings.header_timeout = 0.3;
        settings.body_timeout = 0.3;
        settings.idle_timeout = 0.5;
    });
    // A byte at a time, each well within any timeout of a single read.
    let mut client = Client::new(server.address);
    for byte in b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nX-Filler: aaaaaaaaaaaaaaaaaaaaaa" {
        // What is written after the answer is read and dropped, so this does not fail.
        client.write(&[*byte]);
        std::thread::sleep(Duration::from_millis(20));
    }
    let reply = client.receive(true).unwrap();
    let said = reply.error(408, "header_timeout", None);
    assert!(said.contains("0.3 s (header_timeout)") && reply.headers["connection"] == "close", "{said}");
    // Who says nothing is told nothing.
    let mut rest = Vec::new();
    Client::new(server.address).socket.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
    let mut client = Client::new(server.address);
    client.write(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{");
    let reply = client.receive(true).unwrap();
    reply.error(408, "body_timeout", None);
    assert_eq!(reply.headers["connection"], "close");
    // An idle connection outlives the header's time, and ends after its own.
    let mut client = Client::new(server.address);
    assert_eq!(client.request("GET", "/live", &[], "").status, 200);
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(client.request("GET", "/live", &[], "").status, 200);
    let mut rest = Vec::new();
    client.socket.read_to_end(&mut rest).unwrap();
    assert!(rest.is_empty());
}

#[test]
fn a_connection_beyond_the_limit_is_told_so() {
    let server = serve(|settings| (settings.max_connections, settings.overload_status) = (2, 429));
    let mut clients: Vec<_> = (0..2).map(|_| Client::new(server.address)).collect();
    for client in &mut clients {
        assert_eq!(client.request("GET", "/live", &[], "").status, 200);
    }
    let reply = Client::new(server.address).receive(true).unwrap();
    reply.error(429, "queue_full", None);
    // Whether the process lives is answered all the same.
    assert_eq!(get(server.address, "/live").status, 200);
    assert_eq!((&*reply.headers["retry-after"], &*reply.headers["connection"]), ("1", "close"));
    drop(clients);
    until("there is room again", || {
        let mut client = Client::new(server.address);
        client.send("GET", "/version", &[], "");
        client.receive(true).is_some_and(|reply| reply.status == 200)
    });
}

#[test]
fn requests_can_be_pipelined() {
    let mut client = Client::new(shared().address);
    for _ in 0..3 {
        client.send("GET", "/live", &[], "");
    }
    for _ in 0..3 {
        assert_eq!(client.receive(true).unwrap().status, 200);
    }
}

/// Sends bytes, and gives the last answer, after which the connection ends.
fn last_answer(bytes: &[u8]) -> Reply {
    let mut client = Client::new(shared().address);
    client.write(bytes);
    let mut replies: Vec<_> = std::iter::from_fn(|| client.receive(true)).collect();
    replies.pop().unwrap()
}

#[test]
fn heads_that_are_no_http_are_answered_in_json() {
    for (head, said) in [
        ("hello\r\n\r\n", "HTTP/1.1"),
        ("\x16\x03\x01\x02", "does not begin with a method"),
        ("GET / HTTP/2.0\r\nHost: localhost\r\n\r\n", "version"),
        ("GET /live HTTP/1.1\r\n\r\n", "no header Host"),
        ("GET /live HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", "more than one header Host"),
        (
            "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
            "differ",
        ),
        ("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n{}", "Content-Length"),
        ("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", "both"),
        ("GET /\x01 HTTP/1.1\r\nHost: localhost\r\n\r\n", "HTTP/1.1"),
        ("GET /live HTTP/1.1\r\nHost: localhost\r\nA\x01: b\r\n\r\n", "header name"),
    ] {
        // Alone, and after requests that were right, with bodies of both kinds.
        let right = "GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let chunked =
            "POST /nowhere HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n";
        let sized = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}";
        for before in [String::new(), right.repeat(2), format!("{right}{sized}{right}"), format!("{sized}{chunked}")] {
            let reply = last_answer(format!("{before}{head}").as_bytes());
            let found = reply.error(400, "invalid_value", None);
            assert!(found.contains(said), "{head:?}: {found}");
            assert_eq!((&*reply.headers["connection"], reply.headers["x-request-id"].len()), ("close", 36));
        }
    }
}

#[test]
fn a_head_has_64_kib_at_most() {
    let head = |length: usize| {
        let frame = "GET /live HTTP/1.1\r\nHost: localhost\r\nX-Filler: \r\nConnection: close\r\n\r\n".len();
        let filler = "a".repeat(length - frame);
        format!("GET /live HTTP/1.1\r\nHost: localhost\r\nX-Filler: {filler}\r\nConnection: close\r\n\r\n")
    };
    assert_eq!(last_answer(head(64 << 10).as_bytes()).status, 200);
    for length in [(64 << 10) + 1, 1 << 20] {
        let reply = last_answer(head(length).as_bytes());
        assert!(reply.error(431, "request_too_large", None).contains("65536 bytes"));
    }
    let many = format!("GET /live HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "A: b\r\n".repeat(100));
    assert!(last_answer(many.as_bytes()).error(431, "request_too_large", None).contains("100 headers"));
    assert_eq!(get(shared().address, "/live").status, 200);
}

#[test]
fn what_clients_send_to_find_another_protocol_changes_nothing() {
    let headers = ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"];
    let body = json!({ "prompt": "a", "max_tokens": 1 }).to_string();
    request(shared().address, "POST", "/v1/completions", &headers, &body).ok();
    let head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nExpect: 100-continue\r\n";
    let mut client = Client::new(shared().address);
    client.write(format!("{head}Content-Length: {}\r\n\r\n", body.len()).as_bytes());
    assert_eq!(client.head().unwrap().0, 100);
    client.write(body.as_bytes());
    client.receive(true).unwrap().ok();
}

#[test]
fn s35_a_reader_that_stops_is_cut_and_its_request_cancelled() {
    let server = scripted::start(scripted::slow(Duration::ZERO), 4, |settings| settings.write_timeout = 0.5);
    let mut client = Client::new(server.address);
    // Far more than sockets hold: each token has twenty alternatives.
    let body = json!({ "prompt": [5], "max_tokens": 15_000, "logprobs": 20, "stream": true, "n": 4 });
    client.send("POST", "/v1/completions", &[], &body.to_string());
    assert_eq!(client.head().unwrap().0, 200);
    until("the stream has ended", || metric(server.address, "serve_sse_streams{") == 0.0);
    until("the request has ended", || server.state.model().unwrap().admission().under_way() == (0, 0));
    assert_eq!(complete(server.address, &json!({ "prompt": [5], "max_tokens": 1 })).status, 200);
}
