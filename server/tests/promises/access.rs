//! Who may ask.

use serde_json::json;

use crate::common::client::{Client, request};
use crate::common::engine::{serve, shared};

fn keyed() -> (crate::common::in_process::InProcess, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    std::fs::write(&keys, "ann:Secret1\n").unwrap();
    (serve(|settings| settings.api_key_file = keys.display().to_string()), dir)
}

#[test]
fn s12_no_route_serves_the_model_without_a_key() {
    let (server, _dir) = keyed();
    let body = json!({ "prompt": "a", "max_tokens": 1 }).to_string();
    let paths = [
        "/v1/completions",
        "/v1/chat/completions",
        "//v1/completions",
        "/V1/completions",
        "/v1/completions/",
        "/v1%2fcompletions",
        "/v1/completions?x",
        "/v1/models",
        "/v1/models/demo",
        "/v1/embeddings",
        "/tokenize",
        "/v1/tokenize",
        "/detokenize",
        "/v1/detokenize",
        "/tokenizer_info",
        "/v1/tokenizer_info",
        "/apply-template",
        "/v1/apply-template",
        "/chat_tokenize",
        "//tokenize",
        "/Tokenize",
        "/tokenize/",
        "/v1%2ftokenize",
        "/v1/../tokenize",
        "/generate",
        "/health_generate",
        "/generate_stream",
        "/info",
        "//generate",
        "/Generate",
        "/generate/",
        "/%67enerate",
        "//",
        "/nowhere",
        "/health/../v1/completions",
        "/./v1/completions",
    ];
    for path in paths {
        for method in ["POST", "GET", "HEAD", "PUT", "OPTIONS"] {
            for header in [
                "X-None: 1",
                "Authorization: Bearer secret1",
                "Authorization: Bearer ",
                "Authorization: Basic Secret1",
                "Authorization: Secret1",
            ] {
                let reply = Client::new(server.address).request(
                    method,
                    path,
                    &[header],
                    if method == "POST" { &body } else { "" },
                );
                assert_eq!(reply.status, 401, "{method} {path} {header}: {reply:?}");
                assert_eq!(reply.headers["www-authenticate"], "Bearer");
                assert!(reply.headers.contains_key("x-request-id"));
            }
        }
    }
    let reply = request(server.address, "POST", "/v1/completions", &["Authorization: bearer Secret1"], &body);
    reply.ok();
    for path in
        ["/health", "/live", "/ready", "/startup", "/metrics", "/version", "/openapi.json", "/ui", "/ui/ui.js", "/"]
    {
        assert_eq!(request(server.address, "GET", path, &[], "").status, 200, "{path}");
    }
    // What is open to GET generates for POST.
    let inputs = json!({ "inputs": "a", "parameters": { "max_new_tokens": 1 } }).to_string();
    for header in ["X-None: 1", "Authorization: Bearer secret1"] {
        let reply = request(server.address, "POST", "/", &[header], &inputs);
        assert_eq!((reply.status, &reply.json()["error_type"]), (401, &json!("invalid_api_key")), "{reply:?}");
    }
    request(server.address, "POST", "/", &["Authorization: Bearer Secret1"], &inputs).ok();
    let refused = request(server.address, "POST", "/v1/completions", &[], &body);
    assert!(refused.error(401, "invalid_api_key", None).contains("Authorization: Bearer"));
}

#[test]
fn hosts_that_are_not_this_servers_are_refused_on_loopback() {
    let address = shared().address;
    let port = address.port();
    for host in [
        "localhost".to_owned(),
        format!("localhost:{port}"),
        "127.0.0.1".to_owned(),
        "[::1]:80".to_owned(),
        "LOCALHOST".to_owned(),
    ] {
        assert_eq!(request(address, "GET", "/v1/models", &[&format!("Host: {host}")], "").status, 200, "{host}");
    }
    for host in ["evil.example", "evil.example:80", "localhost.evil.example", "127.0.0.1.evil.example", ""] {
        let reply = request(address, "GET", "/v1/models", &[&format!("Host: {host}")], "");
        assert!(reply.status == 403 || reply.status == 400, "{host}: {reply:?}");
    }
    let server = serve(|settings| settings.allowed_host = vec!["my.box".to_owned()]);
    assert_eq!(request(server.address, "GET", "/v1/models", &["Host: my.box:8000"], "").status, 200);
}

#[test]
fn pages_of_other_sites_are_refused() {
    let address = shared().address;
    let body = json!({ "prompt": "a", "max_tokens": 1 }).to_string();
    let send = |header: &str| request(address, "POST", "/v1/completions", &[header], &body);
    for header in
        ["Origin: https://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site", "Origin: http://127.0.0.1:1"]
    {
        send(header).error(403, "forbidden", None);
    }
    send(&format!("Origin: http://{address}")).ok();
    let reply = send("Sec-Fetch-Site: same-origin");
    reply.ok();
    assert!(reply.headers.keys().all(|name| !name.starts_with("access-control-")));
}

#[test]
fn a_request_id_is_taken_over_or_made() {
    let address = shared().address;
    let body = json!({ "prompt": "a", "max_tokens": 1 }).to_string();
    let reply = request(address, "POST", "/v1/completions", &["X-Request-Id: mine-1"], &body);
    assert_eq!(reply.headers["x-request-id"], "mine-1");
    assert_eq!(reply.ok()["id"], "cmpl-mine-1");
    let long = format!("X-Request-Id: {}", "a".repeat(129));
    for header in [long.as_str(), "X-Request-Id: a b", "X-None: 1"] {
        let made = request(address, "GET", "/nowhere", &[header], "").headers["x-request-id"].clone();
        assert_eq!(made.len(), 36, "{made}");
    }
}

#[test]
fn paths_and_methods_that_are_not_there_are_told_what_is() {
    let address = shared().address;
    let said = request(address, "POST", "/v1/chat/completion", &[], "{}").error(404, "not_found", None);
    assert!(said.contains("did you mean `/v1/chat/completions`?"), "{said}");
    let reply = request(address, "GET", "/v1/completions", &[], "");
    reply.error(405, "method_not_allowed", None);
    assert_eq!(reply.headers["allow"], "POST, OPTIONS");
    request(address, "DELETE", "/v1/models", &[], "").error(405, "method_not_allowed", None);
    let reply = request(address, "OPTIONS", "/v1/completions", &[], "");
    assert_eq!((reply.status, &*reply.headers["allow"]), (204, "POST, OPTIONS"));
    let reply = request(address, "OPTIONS", "*", &[], "");
    assert_eq!((reply.status, &*reply.headers["allow"]), (204, "GET, HEAD, POST, OPTIONS"));
    let reply = request(address, "HEAD", "/health", &[], "");
    assert_eq!((reply.status, reply.body.as_str()), (200, ""));
    let reply = request(address, "POST", "/v1/embeddings", &[], "{}");
    reply.error(501, "not_implemented", None);
    assert_eq!(reply.headers["x-should-retry"], "false");
    let body = json!({ "prompt": "a", "max_tokens": 1 }).to_string();
    request(address, "POST", "/v1/completions/", &[], &body).ok();
}
