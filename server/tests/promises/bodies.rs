//! Bodies and connections: their sizes, their times, their ends.

use std::io::Read;
use std::time::Duration;

use serde_json::json;

use crate::common::client::{Client, complete, get, metric, request};
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
fn a_body_must_be_plain_json() {
    let send = |headers: &[&str]| {
        let body = json!({ "prompt": "a", "max_tokens": 1 }).to_string();
        request(shared().address, "POST", "/v1/completions", headers, &body)
    };
    send(&["Content-Type: application/json; charset=utf-8"]).ok();
    send(&["Content-Type: Application/JSON"]).ok();
    send(&["Content-Encoding: identity"]).ok();
    for headers in
        [["Content-Type: text/plain"], ["Content-Type: application/x-www-form-urlencoded"], ["Content-Encoding: gzip"]]
    {
        send(&headers).error(415, "unsupported_media_type", None);
    }
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
    let mut cut = false;
    for byte in b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nX-Filler: aaaaaaaaaaaaaaaaaaaaaa" {
        if std::io::Write::write_all(client.socket.get_mut(), &[*byte]).is_err() {
            cut = true;
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(cut || client.receive(true).is_none(), "the head was waited for");
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
    let server = serve(|settings| settings.max_connections = 2);
    let mut clients: Vec<_> = (0..2).map(|_| Client::new(server.address)).collect();
    for client in &mut clients {
        assert_eq!(client.request("GET", "/live", &[], "").status, 200);
    }
    let reply = Client::new(server.address).receive(true).unwrap();
    reply.error(503, "queue_full", None);
    assert_eq!((&*reply.headers["retry-after"], &*reply.headers["connection"]), ("1", "close"));
    drop(clients);
    until("there is room again", || {
        let mut client = Client::new(server.address);
        client.send("GET", "/live", &[], "");
        client.receive(true).is_some_and(|reply| reply.status == 200)
    });
}

#[test]
fn requests_can_be_pipelined_and_a_large_head_is_refused() {
    let mut client = Client::new(shared().address);
    for _ in 0..3 {
        client.send("GET", "/live", &[], "");
    }
    for _ in 0..3 {
        assert_eq!(client.receive(true).unwrap().status, 200);
    }
    let filler = format!("GET /live HTTP/1.1\r\nHost: localhost\r\nX-Filler: {}\r\n\r\n", "a".repeat(1 << 20));
    let mut client = Client::new(shared().address);
    // It need not be read to its end.
    let _ = std::io::Write::write_all(client.socket.get_mut(), filler.as_bytes());
    let reply = client.receive(true);
    assert!(reply.as_ref().is_none_or(|reply| reply.status == 431), "{reply:?}");
    assert_eq!(get(shared().address, "/live").status, 200);
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
