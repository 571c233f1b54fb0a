//! The same request, whatever else runs and however it is asked, gives the same tokens and log-probabilities.

use std::net::SocketAddr;
use std::sync::Arc;

use runner::executor::{Response, TokenResult};
use runner::generation_options::GenerationOptions;
use runner::request_builder::{Prompt, RequestBuilder};
use runner::session::{Awaited, Session};
use serde_json::{Value as Json, json};

use crate::common::client::{chat, complete};
use crate::common::engine::{open, shared};

/// The requests: completions, those with their prompts echoed, chats.
const REQUESTS: usize = 6;
/// Of the echoed prompts and the chats, at each position.
const TOP: usize = 3;

/// What an answer says, with numbers as their bits, because their reader has them so.
#[derive(Debug, Default, PartialEq)]
struct Said {
    ids: Vec<Json>,
    /// Of an echoed prompt's tokens, but for the first, and the output's.
    log_probs: Vec<u64>,
    /// Of the most likely tokens at each position of a chat's output.
    top: Vec<Vec<u64>>,
    /// The most likely tokens of a completion, by text.
    by_text: Vec<Json>,
}

impl Said {
    /// Adds an answer's choice, or that of an event.
    fn add(&mut self, choice: &Json) {
        let list = |list: &Json| list.as_array().cloned().unwrap_or_default();
        let log_probs = &choice["logprobs"];
        self.ids.extend(list(&choice["token_ids"]));
        self.log_probs.extend(list(&log_probs["token_logprobs"]).iter().filter_map(bits));
        self.by_text.extend(list(&log_probs["top_logprobs"]));
        for token in list(&log_probs["content"]) {
            self.log_probs.extend(bits(&token["logprob"]));
            self.top.push(list(&token["top_logprobs"]).iter().filter_map(|top| bits(&top["logprob"])).collect());
        }
    }
}

/// Of a number as its reader has it; none of null.
fn bits(number: &Json) -> Option<u64> {
    number.as_f64().map(f64::to_bits)
}

fn text(number: usize) -> String {
    format!("Number {number} of our solar system is")
}

fn is_chat(number: usize) -> bool {
    number >= 4
}

fn is_echo(number: usize) -> bool {
    (2..4).contains(&number)
}

fn ask(address: SocketAddr, number: usize, stream: bool) -> Said {
    let mut body = json!({
        "max_tokens": 24, "temperature": 1.1, "top_p": 0.95, "seed": number, "return_token_ids": true, "stream": stream,
    });
    let reply = if is_chat(number) {
        body["messages"] = json!([{ "role": "user", "content": text(number) }]);
        body["logprobs"] = json!(true);
        body["top_logprobs"] = json!(TOP);
        chat(address, &body)
    } else {
        body["prompt"] = json!(text(number));
        body["logprobs"] = json!(if is_echo(number) { TOP } else { 1 });
        body["echo"] = json!(is_echo(number));
        complete(address, &body)
    };
    let mut said = Said::default();
    match stream {
        true => reply.events().iter().for_each(|event| said.add(&event["choices"][0])),
        false => said.add(&reply.ok()["choices"][0]),
    }
    said
}

#[test]
fn s33_alone_or_among_many_streamed_or_not_in_the_library_or_over_http() {
    let address = shared().address;
    let alone: Vec<_> = (0..REQUESTS).map(|number| ask(address, number, false)).collect();
    for (number, said) in alone.iter().enumerate() {
        assert!(!said.ids.is_empty() && said.log_probs.len() >= said.ids.len(), "request {number}: {said:?}");
        assert_eq!(said.log_probs.len() > said.ids.len(), is_echo(number), "request {number}: {said:?}");
        assert_eq!(said.top.len(), if is_chat(number) { said.ids.len() } else { 0 }, "request {number}: {said:?}");
    }
    // Among 64, half of them streamed.
    let together: Vec<_> = std::thread::scope(|scope| {
        let ask = |number: usize| ask(address, number % REQUESTS, number / REQUESTS % 2 == 1);
        let threads: Vec<_> = (0..64).map(|number| scope.spawn(move || ask(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (number, one) in together.iter().enumerate() {
        assert_eq!(*one, alone[number % REQUESTS], "request {number}");
    }
    for (number, one) in in_the_library().into_iter().enumerate() {
        let Said { ids, log_probs, top, .. } = &alone[number];
        assert_eq!((&one.ids, &one.log_probs, &one.top), (ids, log_probs, top), "request {number}");
    }
}

/// The same requests as a host of the library makes them.
fn in_the_library() -> Vec<Said> {
    let (engine, _) = open();
    let session = Session::start(engine.executor(), engine.tokenizer().cloned()).unwrap();
    let executor = engine.executor();
    let builder = RequestBuilder::new(&engine, executor.as_ref());
    let one = |number: usize| {
        let options = GenerationOptions {
            max_new_tokens: Some(24),
            temperature: Some(1.1),
            top_p: Some(0.95),
            seed: Some(number as u64),
            logprobs: Some(true),
            top_logprobs: is_chat(number).then_some(TOP),
            prompt_logprobs: is_echo(number).then_some(true),
            ..GenerationOptions::default()
        };
        let prompt = match is_chat(number) {
            true => Prompt::Messages(text(number)),
            false => Prompt::Text(text(number)),
        };
        session.submit(builder.build(&prompt, &options).unwrap()).unwrap();
        let mut said = Said::default();
        loop {
            let Awaited::Outputs(outputs) = session.await_outputs(None) else { panic!("it ended early") };
            for output in outputs {
                let Response::Result(result) = output.response else { panic!("{output:?}") };
                said.add_result(&result);
                if result.is_final {
                    return said;
                }
            }
        }
    };
    let answers = (0..REQUESTS).map(one).collect();
    drop(session);
    drop(Arc::new(engine));
    answers
}

impl Said {
    fn add_result(&mut self, result: &TokenResult) {
        self.ids.extend(result.output_token_ids.iter().map(|id| json!(id)));
        let of_prompt = result.prompt_log_probs.iter().flatten();
        self.log_probs.extend(of_prompt.chain(result.log_probs.iter().flatten()).map(|&of| printed(of)));
        for top in result.top_log_probs.iter().flatten() {
            self.top.push(top.iter().map(|token| printed(token.log_prob)).collect());
        }
    }
}

/// A log-probability as it is printed and read again.
fn printed(log_prob: f32) -> u64 {
    let read: Json = serde_json::from_str(&serde_json::to_string(&log_prob).unwrap()).unwrap();
    bits(&read).unwrap()
}
