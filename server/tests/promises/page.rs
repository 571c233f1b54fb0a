//! The page at `/ui`: what is served, and with what headers. What it does is tested in a browser, by `scripts/test-page`.

use super::common::client::{get, request};
use super::common::engine::shared;
use server::ui::files;

#[test]
fn files_of_the_page_come_with_a_strict_policy() {
    for file in files() {
        let reply = get(shared().address, file.path);
        assert_eq!(reply.status, 200, "{}", file.path);
        let policy = &reply.headers["content-security-policy"];
        for part in [
            "default-src 'self'",
            "object-src 'none'",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
        ] {
            assert!(policy.split("; ").any(|of| of == part), "{policy}");
        }
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(reply.headers["x-content-type-options"], "nosniff");
        assert_eq!(reply.headers["referrer-policy"], "no-referrer");
        assert_eq!(reply.headers["content-length"], reply.body.len().to_string());
    }
}

#[test]
fn everything_that_the_page_asks_for_is_there() {
    let mut asked = 0;
    for file in files() {
        let text = get(shared().address, file.path).body;
        // What HTML refers to is relative to the root, what scripts import to their folder.
        let of_page = text.split('"').filter(|text| text.starts_with("ui/") || text.starts_with("docs/"));
        let of_script = text.split('\'').filter_map(|text| text.strip_prefix("./")).map(|name| format!("ui/{name}"));
        for path in of_page.map(str::to_owned).chain(of_script) {
            assert_eq!(get(shared().address, &format!("/{path}")).status, 200, "{path}");
            asked += 1;
        }
    }
    assert!(asked >= files().count(), "{asked}");
}

#[test]
fn a_browser_is_sent_to_the_page_and_a_probe_is_not() {
    let root = |accept: &str| request(shared().address, "GET", "/", &[&format!("Accept: {accept}")], "");
    let reply = root("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8");
    assert_eq!((reply.status, reply.headers["location"].as_str()), (303, "ui"));
    for accept in ["*/*", "application/json"] {
        assert_eq!(root(accept).status, 200, "{accept}");
    }
    for (path, to) in [("/ui/", "../ui"), ("/docs/", "../docs"), ("/ui/ui.js/", "../ui.js")] {
        let reply = get(shared().address, path);
        assert_eq!((reply.status, reply.headers["location"].as_str()), (303, to), "{path}");
    }
}

#[test]
fn the_page_is_told_what_parameters_are_where_nothing_is_said() {
    let facts = get(shared().address, "/ui/model.json").json();
    let model = shared().state.model().unwrap();
    assert_eq!(facts["name"], model.name());
    assert_eq!(facts["max_model_len"], 1024);
    assert_eq!(facts["has_chat_template"], true);
    let defaults = facts["defaults"].as_object().unwrap();
    let names: Vec<_> = defaults.keys().map(String::as_str).collect();
    assert_eq!(names, ["temperature", "top_p", "top_k", "min_p", "repetition_penalty"]);
}
