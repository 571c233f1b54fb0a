//! The same request, whatever else runs and however it is asked, gives the same tokens and log-probabilities.

use std::sync::Arc;

use runner::executor::Response;
use runner::generation_options::GenerationOptions;
use runner::request_builder::{Prompt, RequestBuilder};
use runner::session::{Awaited, Session};
use serde_json::{Value as Json, json};

use crate::common::client::complete;
use crate::common::engine::{open, shared};

/// Its tokens and the log-probabilities.
fn of_choice(choice: &Json) -> (Json, Vec<u64>) {
    let log_probs = choice["logprobs"]["token_logprobs"].as_array().unwrap();
    (choice["token_ids"].clone(), log_probs.iter().map(bits).collect())
}

/// Of a number as its reader has it.
fn bits(number: &Json) -> u64 {
    number.as_f64().unwrap().to_bits()
}

fn body(number: u64) -> Json {
    json!({
        "prompt": format!("Number {number} of our solar system is"), "max_tokens": 24, "temperature": 1.1, "top_p": 0.95,
        "seed": number, "logprobs": 1, "return_token_ids": true,
    })
}

#[test]
fn s33_alone_or_among_many_streamed_or_not_in_the_library_or_over_http() {
    let address = shared().address;
    let alone: Vec<_> = (0..4).map(|number| of_choice(&complete(address, &body(number)).ok()["choices"][0])).collect();
    // Among 64, half of them streamed.
    let together: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..64_u64)
            .map(|number| {
                scope.spawn(move || {
                    let mut body = body(number % 4);
                    if number % 8 < 4 {
                        return of_choice(&complete(address, &body).ok()["choices"][0]);
                    }
                    body["stream"] = json!(true);
                    let (mut ids, mut log_probs) = (Vec::new(), Vec::new());
                    for event in complete(address, &body).events() {
                        let choice = &event["choices"][0];
                        ids.extend(choice["token_ids"].as_array().into_iter().flatten().cloned());
                        if !choice["logprobs"].is_null() {
                            log_probs.extend(choice["logprobs"]["token_logprobs"].as_array().unwrap().iter().map(bits));
                        }
                    }
                    (Json::from(ids), log_probs)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (number, one) in together.iter().enumerate() {
        assert_eq!(*one, alone[number % 4], "request {number}");
    }
    assert_eq!(in_the_library(), alone);
}

/// The same requests as a host of the library makes them.
fn in_the_library() -> Vec<(Json, Vec<u64>)> {
    let (engine, _) = open();
    let session = Session::start(engine.executor(), engine.tokenizer().cloned()).unwrap();
    let executor = engine.executor();
    let builder = RequestBuilder::new(&engine, executor.as_ref());
    let one = |number: u64| {
        let options = GenerationOptions {
            max_new_tokens: Some(24),
            temperature: Some(1.1),
            top_p: Some(0.95),
            seed: Some(number),
            logprobs: Some(true),
            ..GenerationOptions::default()
        };
        let prompt = Prompt::Text(format!("Number {number} of our solar system is"));
        session.submit(builder.build(&prompt, &options).unwrap()).unwrap();
        let (mut ids, mut log_probs) = (Vec::new(), Vec::new());
        loop {
            let Awaited::Outputs(outputs) = session.await_outputs(None) else { panic!("it ended early") };
            for output in outputs {
                let Response::Result(result) = output.response else { panic!("{output:?}") };
                ids.extend(result.output_token_ids.iter().map(|id| json!(id)));
                // As it is printed and read again.
                let printed = |log_prob: &f32| serde_json::from_str(&serde_json::to_string(log_prob).unwrap()).unwrap();
                log_probs.extend(result.log_probs.unwrap().iter().map(|log_prob| bits(&printed(log_prob))));
                if result.is_final {
                    return (Json::from(ids), log_probs);
                }
            }
        }
    };
    let answers = (0..4).map(one).collect();
    drop(session);
    drop(Arc::new(engine));
    answers
}
