//! Answers as bytes: what is counted, and what is no answer.

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use serde_json::json;

use crate::scripted::{Piece, STREAM_HEAD, Scripted, chunk, completion, obliging, stream};
use crate::{bench_engine, measured, number, reported, text};

#[test]
fn tokens_are_counted_whatever_pieces_they_come_in() {
    let server = Scripted::start(|number, received| {
        let mut events = completion(received, received.body["max_tokens"].as_u64().unwrap());
        events.insert(0, ": keep-alive\n\n".to_owned());
        events.insert(3, ": keep-alive\r\n\r\n".to_owned());
        // HTTP chunks and TCP segments end anywhere.
        let body = events.concat();
        let (mut bytes, mut rest) = (STREAM_HEAD.to_owned(), body.as_str());
        for size in (1..=9).cycle() {
            let (part, left) = rest.split_at(size.min(rest.len()));
            if part.is_empty() {
                break;
            }
            bytes += &chunk(part);
            rest = left;
        }
        bytes += "0\r\n\r\n";
        bytes.as_bytes().chunks(number % 5 + 40).map(|piece| Piece::Bytes(piece.to_vec())).collect()
    });
    let report = measured(server.address, &["--requests", "6", "--output-len", "3:5", "--concurrency", "1,2"]);
    let output = number(&report, "/workload/output_tokens");
    for run in report["runs"].as_array().unwrap() {
        assert_eq!((number(run, "/answered"), number(run, "/ended_early"), number(run, "/failed")), (6.0, 0.0, 0.0));
        assert_eq!((number(run, "/output_tokens"), number(run, "/prompt_tokens")), (output, 42.0));
        assert_eq!(number(run, "/inter_token_latency/count"), output - 6.0);
        assert!((number(run, "/output_tokens_per_second") - output / number(run, "/seconds")).abs() < 1e-6);
        assert!(number(run, "/request_latency/min") >= number(run, "/time_to_first_token/min"));
    }
    assert_eq!(report["endpoint"]["token_counts"], "usage of each chunk");
    assert_eq!(
        (&report["endpoint"]["model"], number(&report, "/workload/prompt_tokens")),
        (&json!("scripted/model"), 42.0)
    );
    // Two at a time need no more than two connections, which are used again.
    assert!(server.connections() <= 2, "{}", server.connections());
}

#[test]
fn usage_at_the_end_is_enough_and_no_usage_is_not() {
    let server = Scripted::start(|_, received| {
        let mut plain = received.clone();
        plain.body["stream_options"] = json!(null);
        stream(&completion(&plain, 4))
    });
    let report = measured(server.address, &["--requests", "2", "--output-len", "6"]);
    assert_eq!(report["endpoint"]["token_counts"], "usage at the end");
    // Four of the six tokens that were asked for.
    assert_eq!((number(&report, "/runs/0/output_tokens"), number(&report, "/runs/0/ended_early")), (8.0, 2.0));

    let server = Scripted::start(|_, received| {
        let events = completion(received, 4);
        stream(&events.into_iter().filter(|event| !event.contains("\"usage\":{")).collect::<Vec<_>>())
    });
    crate::refused(server.address, &[], 1, &["warm-up", "does not tell `usage`"]);
}

#[test]
fn what_ends_without_an_answer_is_counted_and_told() {
    let events = |received: &crate::scripted::Received| completion(received, 5);
    let server = Scripted::start(move |number, received| {
        let half = |end: &str| {
            let body: String = events(received)[..2].iter().map(|event| chunk(event)).collect();
            Piece::Bytes(format!("{STREAM_HEAD}{body}{end}").into_bytes())
        };
        match number {
            // An error in mid-stream.
            1 => {
                let error = json!({ "error": { "message": "the engine failed", "code": "engine_failed" } });
                let mut events = events(received);
                events.truncate(2);
                events.push(format!("data: {error}\n\ndata: [DONE]\n\n"));
                stream(&events)
            }
            // Cut between chunks, in a chunk, and before the head.
            2 => vec![half(""), Piece::Cut],
            3 => vec![half("ff\r\ndata: {"), Piece::Cut],
            4 => vec![Piece::Cut],
            // An end as if all were well, but before the answer's.
            5 => vec![half("0\r\n\r\n")],
            6 => crate::scripted::whole(200, &[], &json!({ "choices": [] })),
            7 => crate::scripted::whole(500, &[], &json!({ "error": "a bug" })),
            8 => stream(&["data: <html>\n\n".to_owned()]),
            _ => obliging(received),
        }
    });
    let (report, said) = reported(server.address, &["--requests", "10", "--concurrency", "1"], 1);
    let run = &report["runs"][0];
    assert_eq!((number(run, "/answered"), number(run, "/failed"), number(run, "/refused")), (2.0, 8.0, 0.0));
    assert_eq!((number(run, "/output_tokens"), number(run, "/time_to_first_token/count")), (128.0, 2.0));
    let problems = run["problems"].to_string();
    for part in [
        "the stream ended with an error: the engine failed",
        "the stream was cut off",
        "the answer is no stream of events, but `application/json`",
        "status 500: a bug",
        "no chunk of a completion: <html>",
    ] {
        assert!(problems.contains(part), "no `{part}`: {problems}");
    }
    assert!(said.contains("error: 8 of 10 requests failed: "), "{said}");
    assert!(report["workload"]["prompt_tokens"].is_null());
}

#[test]
fn a_server_that_stops_talking_fails_its_request_only() {
    let server = Scripted::start(|number, received| match number {
        1 => {
            let first = chunk(&completion(received, 5)[0]);
            vec![Piece::Bytes((STREAM_HEAD.to_owned() + &first).into_bytes()), Piece::Wait(Duration::from_secs(60))]
        }
        _ => obliging(received),
    });
    let (report, said) = reported(server.address, &["--requests", "4", "--timeout", "1"], 1);
    assert_eq!((number(&report, "/runs/0/answered"), number(&report, "/runs/0/failed")), (3.0, 1.0));
    assert!(said.contains("1 of 4 requests failed: ") && said.contains("timeout"), "{said}");
}

#[test]
fn two_hundred_and_fifty_six_are_under_way_at_once() {
    // Nobody is answered before all have asked.
    static ARRIVED: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());
    let server = Scripted::start(|number, received| {
        if number > 0 {
            let (arrived, all) = &ARRIVED;
            let mut arrived = arrived.lock().unwrap();
            *arrived += 1;
            all.notify_all();
            let (arrived, waited) =
                all.wait_timeout_while(arrived, Duration::from_secs(60), |arrived| *arrived < 256).unwrap();
            assert!(!waited.timed_out(), "{arrived} came");
        }
        obliging(received)
    });
    let report = measured(server.address, &["--requests", "256", "--concurrency", "256", "--output-len", "2"]);
    assert_eq!((number(&report, "/runs/0/answered"), number(&report, "/runs/0/output_tokens")), (256.0, 512.0));
}

#[test]
fn the_table_and_the_plot_say_what_was_measured_where() {
    let server = Scripted::start(|_, received| obliging(received));
    let dir = tempfile::tempdir().unwrap();
    let plots = dir.path().join("plots");
    let arguments =
        ["--requests", "3", "--arrivals", "fixed", "--rate", "100,200", "--plots", plots.to_str().unwrap(), "--quiet"];
    let output = bench_engine(server.address, &arguments).output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
    let table = text(&output.stdout);
    let url = format!("http://{}/v1: model scripted/model; prompts as text to /completions", server.address);
    for part in [
        url.as_str(),
        "times are the client's",
        "HTTP and text included; tokens are the server's: usage of each chunk",
        "3 requests (synthetic): 21 prompt and 192 output tokens; greedy, seed 0",
        "100 requests/s",
        "200 requests/s",
        "time to first token, ms",
        "refused: 429, 503",
    ] {
        assert!(table.contains(part), "no `{part}`: {table}");
    }
    assert!(!table.contains("KV cache") && !table.contains("this machine"), "{table}");
    let mut names: Vec<_> = std::fs::read_dir(&plots).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["throughput_latency.png", "throughput_latency.svg"]);
    let svg = std::fs::read_to_string(plots.join("throughput_latency.svg")).unwrap();
    assert!(svg.contains("model scripted/model") && svg.contains("times are the client"), "{svg}");
}
