//! The page of metrics, read by a parser that forgives nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::json;

use crate::common::client::{complete, get, request};
use crate::common::engine::shared;
use crate::common::in_process::InProcess;
use crate::common::scripted;

type Labels = Vec<(String, String)>;

#[derive(Debug, Default)]
struct Family {
    kind: String,
    has_help: bool,
    /// By name and labels.
    samples: Vec<(String, Labels, f64)>,
}

/// The labels between braces.
fn labels(text: &str) -> Labels {
    let (mut labels, mut rest) = (Vec::new(), text);
    while !rest.is_empty() {
        let (name, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("{text}"));
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{text}");
        let (mut value, mut bytes) = (String::new(), after.char_indices());
        let end = loop {
            match bytes.next().unwrap_or_else(|| panic!("{text}")) {
                (end, '"') => break end,
                (_, '\\') => value.push(match bytes.next().unwrap().1 {
                    'n' => '\n',
                    escaped @ ('\\' | '"') => escaped,
                    other => panic!("\\{other} in {text}"),
                }),
                (_, other) => value.push(other),
            }
        };
        labels.push((name.to_owned(), value));
        rest = &after[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or_else(|| {
            assert!(rest.is_empty(), "{text}");
            rest
        });
    }
    labels
}

/// Which names the samples of a family have.
fn suffixes(kind: &str, is_open: bool) -> &'static [&'static str] {
    match (kind, is_open) {
        ("counter", true) => &["_total"],
        ("info", true) => &["_info"],
        ("histogram", _) => &["_bucket", "_sum", "_count"],
        ("gauge" | "counter", _) => &[""],
        _ => panic!("{kind} is no type of this format"),
    }
}

fn parse(page: &str, is_open: bool) -> BTreeMap<String, Family> {
    assert!(page.ends_with('\n') && page.ends_with("# EOF\n") == is_open && page.matches("# EOF").count() < 2);
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    let mut seen = BTreeSet::new();
    for line in page.strip_suffix("# EOF\n").unwrap_or(page).lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        if let ["#", what @ ("HELP" | "TYPE"), name, said] = words[..] {
            if name != current {
                // A family is in one piece.
                assert!(!families.contains_key(name), "{line}");
                current = name.to_owned();
            }
            let family = families.entry(current.clone()).or_default();
            assert!(family.samples.is_empty() && !said.is_empty(), "{line}");
            match what {
                "HELP" => assert!(!std::mem::replace(&mut family.has_help, true), "{line}"),
                _ => assert_eq!(std::mem::replace(&mut family.kind, said.to_owned()), "", "{line}"),
            }
            if is_open {
                assert!(
                    ["_total", "_info", "_bucket", "_sum", "_count"].iter().all(|end| !name.ends_with(end)),
                    "{line}"
                );
            }
            continue;
        }
        assert!(!line.starts_with('#') && seen.insert(line.rsplit_once(' ').unwrap().0.to_owned()), "{line}");
        let (name, rest) = line.split_once('{').unwrap();
        let (inside, value) = rest.rsplit_once("} ").unwrap();
        let family = families.get_mut(&current).unwrap();
        let suffix = name.strip_prefix(&current).unwrap_or_else(|| panic!("{line} in {current}"));
        assert!(suffixes(&family.kind, is_open).contains(&suffix), "{line}: {}", family.kind);
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        assert!(value.is_finite() && value >= 0.0, "{line}");
        family.samples.push((suffix.to_owned(), labels(inside), value));
    }
    for (name, family) in &families {
        assert!(family.has_help && !family.kind.is_empty(), "{name}");
        match family.kind.as_str() {
            "histogram" => check_histogram(name, family),
            "counter" if !is_open => assert!(name.ends_with("_total"), "{name}"),
            "info" => assert!(family.samples.iter().all(|(_, _, value)| *value == 1.0), "{name}"),
            _ => {}
        }
        // Every family but that of answers, of which there may be none, has a value from the start.
        assert!(!family.samples.is_empty() || name.starts_with("serve_http_requests"), "{name}");
    }
    families
}

/// Bounds and counts, and the sum and the count of all.
type Series = (Vec<(f64, f64)>, Option<f64>, Option<f64>);

/// Buckets of a histogram grow, by bound and by count, to a last one without bound, which counts all.
fn check_histogram(name: &str, family: &Family) {
    let mut series: BTreeMap<Labels, Series> = BTreeMap::new();
    for (suffix, labels, value) in &family.samples {
        let (bounds, others): (Labels, Labels) = labels.iter().cloned().partition(|(label, _)| label == "le");
        let of = series.entry(others).or_default();
        match (suffix.as_str(), &bounds[..]) {
            ("_bucket", [(_, bound)]) => {
                assert!(bound == "+Inf" || bound.contains('.'), "{name}: {bound} is not written as a float");
                of.0.push((bound.replace("+Inf", "inf").parse().unwrap(), *value));
            }
            ("_sum", []) => of.1 = Some(*value),
            ("_count", []) => of.2 = Some(*value),
            _ => panic!("{name}{suffix} {labels:?}"),
        }
    }
    for (labels, (buckets, sum, count)) in series {
        assert!(buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1), "{name} {labels:?}");
        let last = buckets.last().unwrap();
        assert!(last.0.is_infinite() && count == Some(last.1) && sum.is_some(), "{name} {labels:?}");
    }
}

fn page(address: SocketAddr, accept: &str) -> (String, String) {
    let reply = request(address, "GET", "/metrics", &[&format!("Accept: {accept}")], "");
    assert_eq!(reply.status, 200);
    (reply.headers["content-type"].clone(), reply.body)
}

const OPEN: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

#[test]
fn s32_both_forms_are_read_by_a_strict_parser_before_and_after_work() {
    let server = scripted::start(scripted::slow(Duration::ZERO), 4, |settings| {
        settings.served_model_name = vec!["a \"b\" \\c".to_owned()];
    });
    let kinds = |families: &BTreeMap<String, Family>| -> Vec<_> {
        families.iter().map(|(name, family)| (name.clone(), family.kind.clone())).collect()
    };
    let read = || {
        let ((open, open_page), (text, text_page)) = (page(server.address, OPEN), page(server.address, "*/*"));
        assert_eq!((open.as_str(), text.as_str()), (OPEN, TEXT));
        (parse(&open_page, true), parse(&text_page, false))
    };
    let loading = InProcess::loading(|_| {});
    let before_loading = parse(&page(loading.address, OPEN).1, true);
    let (open, text) = read();
    assert_eq!((kinds(&before_loading), open.len()), (kinds(&open), text.len()));
    for stream in [true, false] {
        let body = json!({ "prompt": [[5], [6]], "max_tokens": 20, "n": 2, "stream": stream });
        assert_eq!(complete(server.address, &body).status, 200);
    }
    complete(server.address, &json!({ "prompt": 1.5 })).error(400, "invalid_value", Some("prompt"));
    get(server.address, "/nowhere").error(404, "not_found", None);
    let (open_after, text_after) = read();
    assert_eq!((kinds(&open), kinds(&text)), (kinds(&open_after), kinds(&text_after)));
    for name in [
        "serve_http_requests",
        "serve_http_request_seconds",
        "serve_connections",
        "serve_sse_streams",
        "serve_admission_rejections",
        "serve_cancelled",
        "serve_prepare_seconds",
        "serve_guide_seconds",
        "serve_coalesced_chunks",
        "serve_router_lag_seconds",
        "serve_build",
        "trtllm_model_config",
    ] {
        assert!(open.contains_key(name), "{name}");
    }
    let value = |name: &str, label: Option<&str>| -> f64 {
        let with = |labels: &Labels| label.is_none_or(|label| labels.iter().any(|(_, value)| value == label));
        let samples = open_after[name].samples.iter();
        samples
            .filter(|(suffix, labels, _)| ["_total", "_count"].contains(&suffix.as_str()) && with(labels))
            .map(|of| of.2)
            .sum()
    };
    assert!(
        open_after["trtllm_prompt_tokens"].samples[0].1.contains(&("model_name".to_owned(), "a \"b\" \\c".to_owned()))
    );
    assert_eq!(
        (value("trtllm_generation_tokens", None), value("trtllm_request_error", Some("not_found"))),
        (160.0, 1.0)
    );
    assert_eq!((value("trtllm_request_error", None), value("serve_cancelled", None)), (2.0, 0.0));
    assert_eq!((value("serve_prepare_seconds", Some("work")), value("serve_router_lag_seconds", None)), (3.0, 4.0));
}

#[test]
fn the_form_is_what_is_accepted_most() {
    let address = shared().address;
    let prometheus = "application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    for (accept, expected) in [
        (prometheus, OPEN),
        ("text/html, */*", TEXT),
        ("image/png", TEXT),
        ("application/json;q=0.2, text/plain", TEXT),
        ("application/json", "application/json"),
        ("application/openmetrics-text;q=0, */*;q=0.1", TEXT),
    ] {
        assert_eq!(page(address, accept).0, expected, "{accept}");
    }
}

#[test]
fn the_newest_iteration_is_as_trtllm_serve_gives_it() {
    let server = scripted::start(scripted::slow(Duration::ZERO), 4, |_| {});
    let newest = || -> serde_json::Value { serde_json::from_str(&page(server.address, "application/json").1).unwrap() };
    assert_eq!(newest(), json!([]));
    complete(server.address, &json!({ "prompt": [5], "max_tokens": 3 })).ok();
    crate::common::until("an iteration was the last", || newest()[0]["iter"] == 2);
    for _ in 0..2 {
        // Whoever else has looked.
        let newest = newest();
        assert_eq!(newest.as_array().unwrap().len(), 1);
        let stats = &newest[0];
        assert_eq!((&stats["numCompletedRequests"], &stats["kvCacheStats"]["tokensPerBlock"]), (&json!(1), &json!(16)));
        assert_eq!(stats["inflightBatchingStats"]["numScheduledRequests"], 1);
        assert!(stats["iterLatencyMS"].is_f64());
    }
}
